"""Bytewax: the trailing sum by its own windowing operators, as its documentation writes it.

A sliding window of ten minutes every minute on the event clock, waiting five seconds for what is out of
order, folded into a sum. `ordered=False` spares it the sorting by time that a sum does not need; lines are
read a thousand at a time.
"""

from __future__ import annotations

import json
import operator
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.files import FileSource
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.testing import TestingSink
from bytewax.testing import run_main as run_untyped

ALIGN = datetime(2026, 1, 1, tzinfo=UTC)
EVERY = timedelta(minutes=1)


run: Callable[..., None] = run_untyped


def flow(path: str, out: list[Any], late: list[Any]) -> Dataflow:
    """From the file's lines to one sum a key and window."""

    def event_time(event: dict[str, Any]) -> datetime:
        return datetime.fromtimestamp(event["timestamp"] / 1000, UTC)

    graph = Dataflow("trailing_sum")
    lines = op.input("lines", graph, FileSource(path))
    events = op.map("decode", lines, json.loads)
    keyed = op.key_on("key", events, lambda event: event["user_id"])
    sums = windowing.fold_window(
        "sum",
        keyed,
        windowing.EventClock(
            event_time,
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


def main(path: str, result: str) -> None:
    out: list[tuple[str, tuple[int, float]]] = []
    late: list[Any] = []
    graph = flow(path, out, late)
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
