"""`headrace bench vectors`: nearest neighbours while chunks come and go.

A million chunks of 384 numbers are in the index; 500 and 2,000 a second come and as many go, and fifty questions a
second are asked. What counts is how long a question takes, how many of the exact ten nearest *live* chunks are in the
answer, and how soon a chunk can be found. The peers take turns at a size that each can bear; Headrace is measured at
that size too, so that the ratio is one of equals.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.bench.harness import BenchError, Report, installed, percentiles, say
from headrace.bench.vectors_data import DIMENSION, Chunks, chunks, words
from headrace.bench.vectors_systems import PEERS, Ours, ours
from headrace.bench.vectors_trial import SEARCH_RATE, Churn, K, Trial, loaded, trial

CHUNKS = 1_000_000
RATES = (500, 2_000)
SECONDS = 10.0
# What Qdrant Edge builds its indexes for in minutes.
EDGE_CHUNKS = 200_000
GOALS = {"search p99": 20.0, "searchable p99": 100.0}
_RECALL, _MEMORY = 0.95, 2_048.0
_BATCH = 1_000
_BOTH = 200


def run(
    *,
    count: int = CHUNKS,
    runs: int,
    seed: int,
    seconds: float = SECONDS,
    rates: tuple[int, ...] = RATES,
    peers: bool = True,
    base: Path | None = None,
) -> Report:
    """Measure each system in turn.

    Args:
        count: How many chunks are live.
        base: Real embeddings (.npy) to make the chunks from; None to embed some texts.

    Raises:
        BenchError: A chunk was written and not found.
    """
    report = Report("vectors", seed, f"{K} nearest of up to {count:,} × {DIMENSION} while chunks come and go")
    say("making chunks")
    made = chunks(count + int(max(rates) * seconds) + _BATCH, seed, base)
    sizes = {"local": count, "edge": min(count, EDGE_CHUNKS)}
    if installed("qdrant-edge-py") is None:
        sizes.pop("edge")
        report.left_out["edge"] = 'pip install "headrace[edge]"'
    for scheme, size in sizes.items():
        with _kept(lambda folder, scheme=scheme: ours(scheme, folder, made)) as system:  # type: ignore[misc]
            measure(report, f"headrace {scheme}:", system, made, size, (0, *rates), runs, seconds)
    if peers:
        beside(report, made, count, max(min(rates), 1), runs, seconds)
    describe(report, made, rates, sizes, seconds)
    return report


@contextlib.contextmanager
def _kept(make: Callable[[Path], Any]) -> Iterator[Any]:
    """A system in a folder of its own, which are taken away in the end."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        system = make(Path(folder))
        try:
            yield system
        finally:
            system.close()


def measure(
    report: Report,
    name: str,
    system: Any,
    made: Chunks,
    count: int,
    rates: tuple[int, ...],
    runs: int,
    seconds: float,
) -> None:
    """One system: loading, then every rate in turn, in rounds."""
    say(f"{name}: loading {count:,} chunks")
    took = loaded(system, count, _BATCH, say)
    report.add(name, f"loaded, {count:,}", "chunks/s", [count / took])
    churn = Churn(made, count, seed=count)
    found: dict[int, list[Trial]] = {rate: [] for rate in rates}
    for turn in range(runs):
        for rate in rates:
            say(f"run {turn + 1} of {runs}: {name} {rate:,}/s")
            found[rate].append(trial(system, made, churn, rate, seconds))
    for rate, rounds in found.items():
        add(report, name, f"{count:,}, {rate:,}/s", rounds)
    if isinstance(system, Ours):
        both = [asked_both(system, made, seed) for seed in range(runs)]
        percentiles(report, name, f"{count:,}, at rest: by meaning and words", "ms", both)
        report.add(name, f"memory, {count:,}", "MiB", [system.memory() / 2**20])


def asked_both(system: Ours, made: Chunks, seed: int) -> NDArray[np.float64]:
    """Milliseconds of questions by meaning and by six words."""
    rng, took = np.random.default_rng(seed), []
    for question in made.questions[:_BOTH]:
        terms, begin = words(rng, 6), time.perf_counter_ns()
        system.both(question, terms, K)
        took.append(time.perf_counter_ns() - begin)
    return np.array(took) / 1e6


def add(report: Report, name: str, what: str, rounds: list[Trial]) -> None:
    """One system's figures at a size and a rate."""
    percentiles(report, name, f"{what}: search", "ms", [one.search for one in rounds])
    report.add(name, f"{what}: search, service p99", "ms", [float(np.percentile(one.service, 99)) for one in rounds])
    report.add(name, f"{what}: recall@{K}", "", [one.recall for one in rounds])
    if all(len(one.searchable) for one in rounds):
        percentiles(report, name, f"{what}: searchable", "ms", [one.searchable for one in rounds])
        report.add(name, f"{what}: written", "chunks/s", [one.written for one in rounds])
    report.add(name, f"{what}: interpreter held up", "ms", [one.held_up for one in rounds])


def beside(report: Report, made: Chunks, count: int, rate: int, runs: int, seconds: float) -> None:
    """Each peer at a size that it can bear, and Headrace at the same."""
    for peer, (package, make, most) in PEERS.items():
        if installed(package) is None:
            report.left_out[peer] = f"pip install {package}"
            continue
        size = min(count, most)
        what = f"{size:,}, {rate:,}/s"
        if report.value("headrace local:", f"{what}: search p99") is None:
            with _kept(lambda folder: ours("local", folder, made)) as system:
                measure(report, "headrace local:", system, made, size, (rate,), runs, seconds)
        try:
            with _kept(lambda folder, make=make: make(made, folder)) as system:  # type: ignore[misc]
                measure(report, peer, system, made, size, (rate,), runs, seconds)
        except BenchError as error:
            report.left_out[peer] = f"at {what}: {error}"
            continue
        for metric in ("search p99", "searchable p99"):
            report.ratio(f"headrace/{peer}, {what}: {metric}", "headrace local:", peer, f"{what}: {metric}")


def describe(report: Report, made: Chunks, rates: tuple[int, ...], sizes: dict[str, int], seconds: float) -> None:
    """The goals as ratios, and what a reader of the figures must know."""
    for scheme, size in sizes.items():
        name = f"headrace {scheme}:"
        for rate in rates:
            what = f"{size:,}, {rate:,}/s"
            for metric, goal in GOALS.items():
                value = report.value(name, f"{what}: {metric}")
                if value is not None:
                    report.ratios[f"{name} {what}: {metric}, of its goal of {goal:g} ms"] = value / goal
            found = report.value(name, f"{what}: recall@{K}")
            if found is not None:
                report.ratios[f"{name} {what}: recall@{K}, of its goal of {_RECALL}"] = found / _RECALL
        memory = report.value(name, f"memory, {size:,}")
        if memory is not None and size <= EDGE_CHUNKS:
            report.ratios[f"{name} memory, {size:,}, of its goal of 2 GiB"] = memory / _MEMORY
    report.notes += [
        f"chunks: {made.about}, and points between them; questions: real ones that no chunk was made from",
        f"{SEARCH_RATE:g} questions/s and a write every 20 ms, open loop, {seconds:g} s a round; "
        "a latency counts from the scheduled time, 'service' from the call",
        "so many chunks/s come, and as many go; recall is of the exact answer over the chunks live at that moment",
        "'searchable': from a write's scheduled time until a search has found the last chunk of it",
        "'interpreter held up': the longest that a thread beside it waited for 2 ms to pass",
        "ours are durable, hold words and columns too, and run in a process of their own; "
        "usearch, hnswlib and qdrant-client are in memory, and in this process",
        "memory: the index's process and its builders, shared pages by their share",
    ]
