"""The engine of the `online` benchmark: it keeps views in a store, and takes events at a rate when told to.

It keeps the events too, to say afterwards what the totals must be.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import polars as pl

from headrace.bench.child import serve
from headrace.bench.data import bodies, user_ids, zipf
from headrace.bench.online_app import ten_minutes
from headrace.bench.openloop import Feed, Pusher
from headrace.units import MINUTE, SECOND

EXPONENT = 1.2
BODY = 4 << 20
OVER = 10 * MINUTE
PERIOD = 0.01


def now_micros() -> int:
    return time.time_ns() // 1_000


class Load:
    """Events, and what they add up to."""

    def __init__(self, live: Any, bench: Any, keys: int, seed: int) -> None:
        self._live, self._bench, self._keys = live, bench, keys
        self._rng = np.random.default_rng(seed)
        self._pushed: list[pl.DataFrame] = []

    def _feed(self, numbers: Any, times: Any) -> Feed:
        cents = self._rng.integers(0, 9_000, len(numbers))
        self._pushed.append(pl.DataFrame({"number": numbers, "time": times, "cents": cents + 1_000}))
        return Feed.of(numbers, times, cents)

    def fill(self) -> None:
        """Every key in each of the last ten minutes: as many rows as there can be."""
        now = now_micros()
        for minute in range(10, 0, -1):
            numbers = self._rng.permutation(self._keys).astype(np.int64)
            times = now - minute * MINUTE + np.sort(self._rng.integers(0, MINUTE, self._keys))
            for body in bodies(bytes(self._feed(numbers, times).data), BODY):
                self._live.push(self._bench.stream, body, format="ndjson")
        self._live.drain()

    def push(self, rate: int, seconds: float) -> dict[str, Any]:
        """Events at a rate, and how long after the last of them all were in the store."""
        count = int(rate * seconds)
        start = now_micros() + 500_000
        feed = self._feed(
            zipf(count, self._keys, EXPONENT, self._rng), start + np.arange(count, dtype=np.int64) * SECOND // rate
        )
        cpu, stream = time.process_time(), self._bench.stream
        pusher = Pusher(
            lambda low, high: self._live.push(stream, feed.body(low, high), format="ndjson"),
            count,
            rate,
            time.perf_counter_ns() + 50_000_000,
            period=PERIOD,
        )
        pusher.start()
        pusher.finish()
        pushed = time.perf_counter_ns()
        self._live.drain()
        done = time.perf_counter_ns()
        wall = (done - pusher.begin) / 1e9
        return {
            "rate": count / wall,
            "behind": (done - pushed) / 1e6,
            "cpu": (time.process_time() - cpu) / wall,
        }

    def expected(self, now: int, file: str) -> dict[str, Any]:
        """What the totals are at a moment, by the definition, to a file."""
        events = pl.concat(self._pushed)
        tile = pl.col("time") // MINUTE * MINUTE
        inside = events.filter((tile > now - OVER) & (tile <= now))
        totals = inside.group_by("number").agg(total=pl.col("cents").sum() / 100)
        every = pl.DataFrame({"number": np.arange(self._keys)}).join(totals, on="number", how="left")
        every.select(user_id=user_ids(every["number"].to_numpy()), total=pl.col("total").fill_null(0.0)).write_ndjson(
            file
        )
        return {"keys": every.height}


def main(url: str, keys: str, seed: str) -> None:
    bench = ten_minutes(url)
    with bench.app.open() as live:
        load = Load(live, bench, int(keys), int(seed))
        load.fill()

        def handle(do: str, **how: Any) -> dict[str, Any]:
            result: dict[str, Any] = getattr(load, do)(**how)
            return result

        serve(handle, tiles=live.stats().views["spending"].tiles)


if __name__ == "__main__":
    main(*sys.argv[1:])
