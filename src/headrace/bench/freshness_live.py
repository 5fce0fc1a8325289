"""Headrace, for the `freshness` benchmark: events on a schedule, and when a read shows each.

One event in every `stride` belongs to a probe key. The reader asks for the probe's count again and again;
when it reads that n probe events are counted, those it had not seen yet became visible at that moment at
the latest, and each one's latency is that moment less its scheduled time. The reader's own pauses are in
the figure.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bench.child import serve
from headrace.bench.data import bodies, user_ids, zipf
from headrace.bench.harness import BenchError
from headrace.bench.openloop import Feed, Pusher, precise_timer
from headrace.bench.reads_live import now_micros
from headrace.bench.spending import Bench, ten_features
from headrace.units import SECOND

PROBES = 1_000  # a second
PAUSE = 0.0002
WARM_UP = 0.5
TIMEOUT = 30.0
BODY = 1 << 20


class Freshness:
    """One live engine, measured slice by slice; each slice has a probe key of its own."""

    def __init__(self, live: Any, bench: Bench, keys: int, seed: int) -> None:
        self._live, self._bench, self._keys = live, bench, keys
        self._rng = np.random.default_rng(seed)
        self._probes = keys

    def feed(self, count: int, rate: float, begin: int, stride: int, probe: int) -> Feed:
        """Events whose event time is their scheduled time, from `begin` (microseconds since the epoch)."""
        numbers = zipf(count, self._keys, 1.2, self._rng)
        numbers[::stride] = probe
        times = begin + (np.arange(count) * (SECOND / rate)).astype(np.int64)
        return Feed.of(numbers, times, self._rng.integers(0, 9_000, count))

    def sustainable(self, count: int) -> dict[str, Any]:
        """Events a second when megabyte bodies are pushed back to back, until the last one is visible."""
        feed = self.feed(count, 1e6, now_micros(), count, self._keys)
        parts = bodies(bytes(feed.data), BODY)
        gc.collect()
        begin = time.perf_counter_ns()
        for part in parts:
            self._live.push(self._bench.stream, part, format="ndjson")
        self._live.drain()
        return {"rate": count / ((time.perf_counter_ns() - begin) / 1e9)}

    def measure(self, rate: float, seconds: float) -> dict[str, Any]:
        """Latencies of the probe events of `seconds` at `rate`, those of the warm-up left out."""
        count, stride = int(rate * (seconds + WARM_UP)), max(int(rate / PROBES), 1)
        self._probes += 1
        lead = 0.1 + count / 1e6
        # Both clocks are read together: event time and the schedule are then the same moments.
        ticks, micros = time.perf_counter_ns(), now_micros()
        begin = ticks + int(lead * 1e9)
        feed = self.feed(count, rate, micros + int(lead * SECOND), stride, self._probes)
        begin = max(begin, time.perf_counter_ns() + 10_000_000)
        live, stream = self._live, self._bench.stream
        pusher = Pusher(
            lambda start, stop: live.push(stream, feed.body(start, stop), format="ndjson"), count, rate, begin
        )
        pusher.start()
        seen = self.watch(pusher, -(-count // stride))
        pusher.finish()
        due = begin + (np.arange(len(seen)) * stride * (1e9 / rate)).astype(np.int64)
        latency = ((seen - due) / 1e6)[int(WARM_UP * rate / stride) :]
        points = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
        return {
            "latency": {name: float(np.percentile(latency, q)) for name, q in points.items()},
            "rate": count / ((pusher.finished - begin) / 1e9),
            "largest": pusher.largest,
            "probes": len(latency),
        }

    def watch(self, pusher: Pusher, expected: int) -> Any:
        """When each probe event was first seen (`time.perf_counter_ns`)."""
        precise_timer()
        key = user_ids(np.array([self._probes]))[0]
        live, view = self._live, self._bench.view
        seen, known = np.zeros(expected, np.int64), 0
        give_up = 0
        while known < expected:
            counted = live.read(view, key).count_1h
            now = time.perf_counter_ns()
            if counted > known:
                seen[known:counted], known = now, counted
            elif pusher.finished or pusher.error:
                give_up = give_up or now + int(TIMEOUT * 1e9)
                if now > give_up or pusher.error:
                    pusher.finish()
                    raise BenchError(f"{expected - known:,} of {expected:,} probe events never became visible")
            time.sleep(PAUSE)
        return seen

    def handle(self, what: str, **arguments: Any) -> dict[str, Any]:
        return self.sustainable(**arguments) if what == "sustainable" else self.measure(**arguments)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args(arguments)
    bench = ten_features()
    with bench.app.open(options.data) as live:
        serve(Freshness(live, bench, options.keys, options.seed).handle)


if __name__ == "__main__":
    main()
