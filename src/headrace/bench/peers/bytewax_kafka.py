"""Bytewax: the trailing sum by its own windowing operators, from a topic by its own connector."""

from __future__ import annotations

import json
import operator
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.testing import TestingSink
from bytewax.testing import run_main as run_untyped

from headrace.bench.peers.bytewax_sum import ALIGN, EVERY

run: Callable[..., None] = run_untyped


def flow(bootstrap: str, topic: str, out: list[Any], late: list[Any]) -> Dataflow:
    """From a topic's messages to one sum a key and window; ends at the topic's end."""
    graph = Dataflow("trailing_sum")
    messages = op.input("messages", graph, KafkaSource([bootstrap], [topic], tail=False, batch_size=1000))
    events = op.map("decode", messages, _event)
    keyed = op.key_on("key", events, lambda event: event["user_id"])
    sums = windowing.fold_window(
        "sum",
        keyed,
        windowing.EventClock(
            lambda event: datetime.fromtimestamp(event["timestamp"] / 1000, UTC),
            # Partitions are read one ahead of another, so a key's events of one partition stay in order; the clock
            # is each key's own.
            wait_for_system_duration=timedelta(seconds=5),
            now_getter=lambda: ALIGN,
            to_system_utc=lambda _: None,
        ),
        windowing.SlidingWindower(length=10 * EVERY, offset=EVERY, align_to=ALIGN),
        builder=float,
        folder=lambda total, event: total + event["amount"],
        merger=operator.add,
        ordered=False,
    )
    op.output("sums", sums.down, TestingSink(out))
    op.output("late", sums.late, TestingSink(late))
    return graph


def _event(message: Any) -> Any:
    return json.loads(message.value)


def main(bootstrap: str, topic: str, result: str, _: str) -> None:
    out: list[tuple[str, tuple[int, float]]] = []
    late: list[Any] = []
    graph = flow(bootstrap, topic, out, late)
    begin = time.perf_counter_ns()
    run(graph)
    seconds = (time.perf_counter_ns() - begin) / 1e9
    start, every = int(ALIGN.timestamp() * 1e6), int(EVERY.total_seconds() * 1e6)
    with open(result, "w") as file:
        for key, (window, total) in out:
            file.write(json.dumps({"user_id": key, "start": start + window * every, "total": total}) + "\n")
    print(json.dumps({"seconds": seconds, "windows": len(out), "late": len(late)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
