"""`headrace bench features`: JSON events to a ten-minute trailing sum of every key, readable and right.

Each system reads the same file, in a process of its own, and is timed from the first byte to the last
result; starting the interpreter and importing are not timed. What it answers is compared with an offline
Polars recomputation before its time counts. Rates are compared, not times: the peers get the first part of
the file, as their rate does not rise with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from headrace.bench.data import Workload, difference, events, ndjson, sliding_sums, trailing_sums
from headrace.bench.harness import BenchError, Report, installed, interleave, run_process

PEER_EVENTS = 100_000
MEMORY_KEYS = 100_000
PEERS = {"bytewax": "bytewax_sum", "pathway": "pathway_sum"}
NO_PEER = 'not installed; pip install "headrace[bench]"'

Run = Callable[[], dict[str, Any]]


def run(*, events_count: int, runs: int, seed: int, peers: bool = True, peer_events: int = PEER_EVENTS) -> Report:
    """Measure Headrace and the peers that are installed."""
    report = Report("features", seed, "JSON events to every key's ten-minute trailing sum in one-minute tiles")
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary:
        folder = Path(temporary)
        work = Workload(events=events_count, seed=seed)
        frame = events(work)
        whole, part = folder / "events.ndjson", folder / "part.ndjson"
        whole.write_bytes(ndjson(frame))
        prefix = frame.head(min(peer_events, events_count))
        part.write_bytes(ndjson(prefix))
        systems = headrace_systems(folder, whole, trailing_sums(frame))
        if peers:
            systems |= peer_systems(report, folder, part, sliding_sums(prefix))
        results = interleave(systems, runs)
        for name, rounds in results.items():
            count = prefix.height if name in PEERS else frame.height
            report.add(name, "rate", "events/s", [count / result["seconds"] for result in rounds])
        shares(report, results)
        memory(report, folder, seed, events_count)
    for peer in PEERS:
        report.ratio(f"headrace/{peer}", "headrace", peer, "rate")
    describe(report, work, prefix.height)
    return report


def headrace_systems(folder: Path, file: Path, expected: pl.DataFrame) -> dict[str, Run]:
    """Headrace in memory and durable, from one pushing thread and from two."""
    found = folder / "headrace.ndjson"

    def once(durable: bool, threads: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=folder) as data:
            place = ["--data", data] if durable else []
            result = run_process(
                "headrace.bench.headrace_sum", str(file), str(found), "--threads", str(threads), *place
            )
        check("headrace", found, expected, ["user_id"])
        return result

    return {
        "headrace": lambda: once(False, 1),
        "headrace, two pushers": lambda: once(False, 2),
        "headrace, durable": lambda: once(True, 1),
        "headrace, durable, two pushers": lambda: once(True, 2),
    }


def peer_systems(report: Report, folder: Path, file: Path, expected: pl.DataFrame) -> dict[str, Run]:
    """The peers that are installed; the others are noted as left out."""
    systems: dict[str, Run] = {}
    for peer, module in PEERS.items():
        if installed(peer) is None:
            report.left_out[peer] = NO_PEER
            continue

        def once(peer: str = peer, module: str = module) -> dict[str, Any]:
            found = folder / f"{peer}.ndjson"
            result = run_process(f"headrace.bench.peers.{module}", str(file), str(found))
            check(peer, found, expected, ["user_id", "start"])
            return result

        systems[peer] = once
    return systems


def check(system: str, found: Path, expected: pl.DataFrame, on: list[str]) -> None:
    """Compare what a system wrote with the oracle.

    Raises:
        BenchError: A row is missing, too many, or wrong.
    """
    wrong = difference(pl.read_ndjson(found), expected, on)
    if wrong:
        raise BenchError(f"the answer of {system} is not the oracle's: {wrong}")


def shares(report: Report, results: dict[str, list[dict[str, Any]]]) -> None:
    """Where Headrace's time goes: pushing (decode and store), draining what is queued, reading every key."""
    for system, rounds in results.items():
        for step in ("push", "drain", "read"):
            if step in rounds[0]:
                report.add(system, f"time to {step}", "ms", [result[step] * 1e3 for result in rounds])


def memory(report: Report, folder: Path, seed: int, events_count: int) -> None:
    """Bytes for each live (key, tile) row: as the view counts them, and by the growth of the process."""
    # Even keys and one window's time: nearly every event makes a row, so that rows outweigh all else.
    work = Workload(events=events_count, keys=MEMORY_KEYS, exponent=0.0, rate=max(events_count // 590, 1), seed=seed)
    frame = events(work)
    file, found = folder / "memory.ndjson", folder / "memory.out"
    file.write_bytes(ndjson(frame))
    result = run_process("headrace.bench.headrace_sum", str(file), str(found))
    check("headrace", found, trailing_sums(frame), ["user_id"])
    report.add("headrace", "live (key, tile) rows", "rows", [result["tiles"]])
    report.add("headrace", "memory a row, counted", "bytes", [result["bytes"] / result["tiles"]])
    report.add("headrace", "memory a row, by process growth", "bytes", [result["resident"] / result["tiles"]])


def describe(report: Report, work: Workload, part: int) -> None:
    """What a reader of the figures must know."""
    report.notes += [
        f"{work.events:,} events ({{user_id, amount, timestamp}}, {work.keys:,} keys, Zipf {work.exponent}, "
        f"{work.rate:,} events a second of event time, out of order by up to 5 s) for Headrace",
        f"the first {part:,} of them for the peers; the ratio is of rates",
        "every run is a process of its own; timed from reading the file to the last result",
        "for Headrace that includes reading every key (read_many), for the peers emitting every window",
        "bytewax: one worker (two are no faster); its system clock is held still: no stall makes events late",
        "pathway: static mode, a thread a core",
        "process growth includes the allocator's slack and what the pushed bodies left behind",
    ]
