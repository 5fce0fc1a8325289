"""Headrace, loaded for the `reads` benchmark: many keys by ten features, read here or over HTTP.

The engine, the thread that pushes events to it and the readers are in one process, as they are in `headrace
run`.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from headrace.bench.child import serve
from headrace.bench.data import bodies, user_ids, zipf
from headrace.bench.harness import BenchError, resident_bytes
from headrace.bench.openloop import Feed, Pusher, call_on_schedule
from headrace.bench.spending import Bench, ten_features
from headrace.serving.server import BackgroundServer
from headrace.units import HOUR, SECOND

EXPONENT = 0.99
EVENT_RATE = 50_000
BODY = 4 << 20


def now_micros() -> int:
    return time.time_ns() // 1_000


def load(live: Any, bench: Bench, keys: int, rng: np.random.Generator) -> None:
    """Every key once and as many again by Zipf's law, over the last hour up to now."""
    for numbers in (rng.permutation(keys).astype(np.int64), zipf(keys, keys, EXPONENT, rng)):
        times = now_micros() - np.sort(rng.integers(0, HOUR - 60 * SECOND, len(numbers)))[::-1]
        feed = Feed.of(numbers, times, rng.integers(0, 9_000, len(numbers)))
        for body in bodies(bytes(feed.data), BODY):
            live.push(bench.stream, body, format="ndjson")
    live.drain()
    held = live.stats().views[bench.view.name].keys
    if held != keys:
        raise BenchError(f"expected {keys:,} keys to be held after loading, found {held:,}")


class Traffic:
    """Events at a rate beside the reads, and the reads."""

    def __init__(self, live: Any, bench: Bench, keys: int, seed: int) -> None:
        self._live, self._bench, self._keys = live, bench, keys
        self._rng = np.random.default_rng(seed)

    def pusher(self, seconds: float, rate: int = EVENT_RATE) -> Pusher:
        """Events of the next `seconds`, ready to be started; they are due from 50 ms after this returns."""
        count = int(rate * seconds)
        numbers = zipf(count, self._keys, EXPONENT, self._rng)
        cents = self._rng.integers(0, 9_000, count)
        times = now_micros() + np.arange(count, dtype=np.int64) * SECOND // rate
        feed = Feed.of(numbers, times, cents)
        stream = self._bench.stream
        return Pusher(
            lambda start, stop: self._live.push(stream, feed.body(start, stop), format="ndjson"),
            count,
            rate,
            time.perf_counter_ns() + 50_000_000,
            period=0.01,
        )

    def reads(self, rate: float, seconds: float, batch: int) -> dict[str, Any]:
        """In-process reads of `batch` keys while events arrive."""
        count = int(rate * seconds)
        ids = user_ids(zipf(count * batch, self._keys, EXPONENT, self._rng)).to_list()
        live, view = self._live, self._bench.view
        pusher = self.pusher(seconds + 0.5)
        pusher.start()
        if batch == 1:
            latencies = call_on_schedule(lambda i: live.read(view, ids[i]), rate, count)
        else:
            lots = [ids[i : i + batch] for i in range(0, len(ids), batch)]
            latencies = call_on_schedule(lambda i: live.read_many(view, lots[i]), rate, count)
        pusher.stop()
        return {"latency": latencies.to_dict(), "pushed": pusher.sent}

    def push_only(self, seconds: float) -> dict[str, Any]:
        """Events alone, while another process reads over HTTP."""
        cpu, begin = time.process_time(), time.perf_counter()
        pusher = self.pusher(seconds)
        pusher.start()
        pusher.finish()
        self._live.drain()
        wall = time.perf_counter() - begin
        return {"pushed": pusher.sent, "rate": pusher.sent / wall, "cpu": (time.process_time() - cpu) / wall}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--http", action="store_true")
    options = parser.parse_args(arguments)
    bench = ten_features()
    before = resident_bytes()
    with bench.app.open() as live:
        load(live, bench, options.keys, np.random.default_rng(options.seed))
        traffic = Traffic(live, bench, options.keys, options.seed)
        view = live.stats().views["spending"]
        about = {"tiles": view.tiles, "bytes": view.bytes, "resident": resident_bytes() - before}
        if not options.http:
            serve(traffic.reads, **about)
            return
        with BackgroundServer(live) as server:
            serve(traffic.push_only, port=int(server.url.rpartition(":")[2]), **about)


if __name__ == "__main__":
    main()
