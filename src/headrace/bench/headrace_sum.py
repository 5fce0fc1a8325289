"""Headrace: the trailing sum of the `features` benchmark, from the file's bytes to every key's value.

Timed: reading the file, pushing its bytes in bodies of a few megabytes from one or more threads, draining,
and reading every key once. The rows that were read go to a file, for the oracle.
"""

from __future__ import annotations

import argparse
import gc
import json
import threading
import time
from pathlib import Path
from typing import Any

import polars as pl

from headrace.bench.data import bodies
from headrace.bench.harness import resident_bytes
from headrace.bench.spending import trailing_sum

BODY = 4 << 20


def push_all(live: Any, stream: Any, parts: list[bytes], threads: int) -> None:
    """Push the bodies from this many threads, each taking every n-th one."""

    def push(first: int) -> None:
        for part in parts[first::threads]:
            live.push(stream, part, format="ndjson")

    others = [threading.Thread(target=push, args=(first,)) for first in range(1, threads)]
    for other in others:
        other.start()
    push(0)
    for other in others:
        other.join()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("events", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--body", type=int, default=BODY)
    options = parser.parse_args(arguments)
    keys = pl.read_ndjson(options.events)["user_id"].unique().sort().to_list()
    bench = trailing_sum()
    with bench.app.open(options.data) as live:
        gc.collect()
        resident = resident_bytes()
        begin = time.perf_counter_ns()
        push_all(live, bench.stream, bodies(options.events.read_bytes(), options.body), options.threads)
        pushed = time.perf_counter_ns()
        live.drain()
        drained = time.perf_counter_ns()
        rows = live.read_many(bench.view, keys)
        end = time.perf_counter_ns()
        gc.collect()
        grown = resident_bytes() - resident
        view = live.stats().views["spending"]
        rows.select(user_id="user_id", total="total").write_ndjson(options.result)
    answer = {
        "seconds": (end - begin) / 1e9,
        "push": (pushed - begin) / 1e9,
        "drain": (drained - pushed) / 1e9,
        "read": (end - drained) / 1e9,
        "tiles": view.tiles,
        "bytes": view.bytes,
        "resident": grown,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
