"""Pathway: the trailing sum by its sliding window, as its documentation writes it.

The file is read in its static mode, which is kind to it: one batch, and no intermediate result is sent out
and taken back.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

# Read when Pathway is imported: a thread for each core.
os.environ.setdefault("PATHWAY_THREADS", str(min(len(os.sched_getaffinity(0)), 8)))

import pathway as pw

MINUTES = timedelta(minutes=1)
PAYMENT = pw.schema_from_types(user_id=str, amount=float, timestamp=int)


def main(path: str, result: str) -> None:
    rows: dict[tuple[str, Any], float] = {}

    def on_change(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        del key, time
        if is_addition:
            rows[row["user_id"], row["start"]] = row["total"]

    events = pw.io.jsonlines.read(path, schema=PAYMENT, mode="static")
    timed = events.with_columns(at=pw.this.timestamp.dt.utc_from_timestamp(unit="ms"))
    window = pw.temporal.sliding(hop=MINUTES, duration=10 * MINUTES, origin=datetime(2025, 1, 1, tzinfo=UTC))
    sums = timed.windowby(pw.this.at, window=window, instance=pw.this.user_id).reduce(
        user_id=pw.this._pw_instance, start=pw.this._pw_window_start, total=pw.reducers.sum(pw.this.amount)
    )
    pw.io.subscribe(sums, on_change)
    begin = time.perf_counter_ns()
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    seconds = (time.perf_counter_ns() - begin) / 1e9
    with open(result, "w") as file:
        for (user, start), total in rows.items():
            micros = start.value // 1000
            file.write(json.dumps({"user_id": user, "start": micros, "total": total}) + "\n")
    print(json.dumps({"seconds": seconds, "windows": len(rows)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
