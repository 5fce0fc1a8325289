"""Headrace: from a topic's messages to every key's trailing sum, read once.

Timed: opening the app, with its consumer's connecting, until all messages are processed and every key has been read.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import polars as pl

import headrace as hr
from headrace.bench.spending import trailing_sum


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("keys", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("events", type=int)
    parser.add_argument("--runner", default="local")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    os.environ["HEADRACE_WORKERS"] = str(options.workers)
    keys = pl.read_ndjson(options.keys)["user_id"].to_list()
    bench = trailing_sum(f"kafka://{options.bootstrap}/{options.topic}?start=earliest", runner=options.runner)
    with tempfile.TemporaryDirectory() as data:
        begin = time.perf_counter_ns()
        with bench.app.open(None if options.runner == "local" else data) as live:
            opened = time.perf_counter_ns()
            live.drain()
            drained = time.perf_counter_ns()
            rows = live.read_many(bench.view, keys)
            end = time.perf_counter_ns()
            processed = live.stats().streams["payment"].processed
    if processed != options.events:
        raise hr.HeadraceError(f"expected {options.events} events processed, found {processed}")
    rows.select(user_id="user_id", total="total").write_ndjson(options.result)
    answer = {
        "seconds": (end - begin) / 1e9,
        "open": (opened - begin) / 1e9,
        "drain": (drained - opened) / 1e9,
        "read": (end - drained) / 1e9,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
