"""`headrace bench kafka`: JSON messages in a topic to every key's ten-minute trailing sum, readable and right.

What a broker and a client library can deliver on the same cores is the ceiling, so the first system reads every
message and throws it away; the share of its rate is the figure. Each system is a process of its own, timed from
connecting to the last result, and what it answers is compared with an offline recomputation before its time counts.
The peers get the first part of the topic's messages, in a topic of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from headrace.bench.data import Workload, events, ndjson, sliding_sums, trailing_sums
from headrace.bench.features import check
from headrace.bench.harness import BenchError, Report, installed, interleave, run_process, say
from headrace.bench.kafka_broker import broker, fill

PARTITIONS = 4
PEER_EVENTS = 100_000
PEERS = {"bytewax": "bytewax_kafka", "quixstreams": "quix_kafka"}
HEADRACE = ("headrace", "headrace on bytewax", "headrace on bytewax, two workers")

Run = Callable[[], dict[str, Any]]


def run(
    *, events_count: int, runs: int, seed: int, brokers: str | None = None, peers: bool = True, keys: int = 10_000
) -> Report:
    """Measure the consumer alone, Headrace on its runners, and the peers that are installed."""
    report = Report("kafka", seed, "messages of a topic to every key's ten-minute trailing sum in one-minute tiles")
    if installed("confluent-kafka") is None:
        raise BenchError('this benchmark needs confluent-kafka: pip install "headrace[kafka]"')
    frame = events(Workload(events=events_count, keys=keys, seed=seed))
    part = frame.head(min(PEER_EVENTS, events_count))
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary, broker(brokers, Path(temporary)) as where:
        with _topics(where, frame, part) as (whole, first):
            systems = _headrace(Path(temporary), where, whole, frame)
            if peers:
                systems |= _peers(report, Path(temporary), where, first, part)
            results = interleave(systems, runs)
        report.notes.append(f"broker: {where.about}")
    for name, rounds in results.items():
        count = part.height if name in PEERS else frame.height
        report.add(name, "rate", "messages/s", [count / result["seconds"] for result in rounds])
    report.ratio("headrace/consumer alone", "headrace", "consumer alone", "rate")
    report.ratio("bytewax runner/local runner", HEADRACE[1], HEADRACE[0], "rate")
    report.ratio("two workers/one", HEADRACE[2], HEADRACE[1], "rate")
    for peer in PEERS:
        report.ratio(f"headrace/{peer}", "headrace", peer, "rate")
    report.notes += [
        f"{frame.height:,} messages of {len(ndjson(frame)) // frame.height} bytes in {PARTITIONS} partitions by key",
        f"the first {part.height:,} of them for the peers, in a topic of their own; the ratio is of rates",
        "every run is a process of its own; timed from connecting to the last result; the broker is on the same cores",
    ]
    return report


@contextmanager
def _topics(where: Any, frame: pl.DataFrame, part: pl.DataFrame) -> Iterator[tuple[str, str]]:
    say(f"writing {frame.height:,} messages")
    yield fill(where, "headrace-bench", frame, PARTITIONS), fill(where, "headrace-bench-part", part, PARTITIONS)


def _headrace(folder: Path, where: Any, topic: str, frame: pl.DataFrame) -> dict[str, Run]:
    expected = trailing_sums(frame)
    found = folder / "headrace.ndjson"
    keys = folder / "keys.ndjson"
    expected.select("user_id").write_ndjson(keys)

    def consumer() -> dict[str, Any]:
        return run_process("headrace.bench.kafka_discard", where.bootstrap, topic, str(frame.height))

    def once(*options: str) -> dict[str, Any]:
        result = run_process(
            "headrace.bench.kafka_sum", where.bootstrap, topic, str(keys), str(found), str(frame.height), *options
        )
        check("headrace", found, expected, ["user_id"])
        return result

    systems: dict[str, Run] = {"consumer alone": consumer, HEADRACE[0]: lambda: once("--runner", "local")}
    if installed("bytewax") is not None:
        systems[HEADRACE[1]] = lambda: once("--runner", "bytewax", "--workers", "1")
        systems[HEADRACE[2]] = lambda: once("--runner", "bytewax", "--workers", "2")
    return systems


def _peers(report: Report, folder: Path, where: Any, topic: str, part: pl.DataFrame) -> dict[str, Run]:
    systems: dict[str, Run] = {}
    expected = sliding_sums(part)
    for peer, module in PEERS.items():
        if installed(peer) is None:
            report.left_out[peer] = 'not installed; pip install "headrace[bench]"'
            continue

        def once(peer: str = peer, module: str = module) -> dict[str, Any]:
            found = folder / f"{peer}.ndjson"
            result = run_process(f"headrace.bench.peers.{module}", where.bootstrap, topic, str(found), str(part.height))
            check(peer, found, expected, ["user_id", "start"])
            return result

        systems[peer] = once
    return systems
