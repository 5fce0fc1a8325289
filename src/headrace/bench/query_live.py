"""Headrace, for the `query` benchmark: the payments of an hour, kept with a data directory, read here and over HTTP."""

from __future__ import annotations

import argparse
import itertools
import time
from datetime import datetime
from typing import Any

import polars as pl

import headrace as hr
from headrace.bench import query_data
from headrace.bench.child import serve
from headrace.bench.harness import BenchError
from headrace.bench.openloop import Pusher, call_on_schedule
from headrace.serving.server import BackgroundServer
from headrace.testing.clock import VirtualClock
from headrace.units import MINUTE

PERIOD = 0.05  # seconds between commits


class Payment(hr.Event):
    """A payment, its time in microseconds since the epoch."""

    user_id: str
    amount: float
    at: datetime = hr.event_time(unit="us")


clock = VirtualClock(query_data.NOW)
app = hr.App("bench-query", clock=clock)
payments = app.stream(Payment)


@app.features(payments, key="user_id")
class Spending:
    """What a user has spent in the last ten minutes."""

    total = hr.sum("amount", over="10m", every="1m")
    count = hr.count(over="10m", every="1m")
    most = hr.max("amount", over="10m", every="1m")


class Answers:
    """One live engine, asked in slices."""

    def __init__(self, live: Any, keys: int, seed: int) -> None:
        self._live, self._keys, self._seed = live, keys, seed

    def values(self, users: list[str]) -> dict[str, Any]:
        """The answers, to be compared."""
        self._live.drain()
        rows = self._live.read_many(Spending, users).select("total", "count", "most").rows()
        return {"values": dict(zip(users, rows, strict=True))}

    def reads(self, users: list[str], rate: float, seconds: float, events: int = 0, slot: int = 0) -> dict[str, Any]:
        """Reads at a rate, while events arrive if there are to be any."""
        live, count = self._live, int(rate * seconds)
        named = list(itertools.islice(itertools.cycle(users), count))
        pusher = self._pusher(events, seconds, slot)
        pusher.start()
        latencies = call_on_schedule(lambda i: live.read(Spending, named[i]), rate, count)
        pusher.finish()
        live.drain()
        return {"latency": latencies.to_dict()}

    def push(self, events: int, seconds: float, slot: int) -> dict[str, Any]:
        """Events alone, while another process reads over HTTP."""
        pusher = self._pusher(events, seconds, slot)
        pusher.start()
        pusher.finish()
        self._live.drain()
        return {"pushed": pusher.sent}

    def busy(self, users: list[str], seconds: float) -> dict[str, Any]:
        """Reads back to back, and the processor time that the process took for them."""
        live, done = self._live, 0
        cpu, begin = time.process_time(), time.perf_counter()
        for user in itertools.cycle(users):
            live.read(Spending, user)
            done += 1
            if time.perf_counter() - begin >= seconds:
                break
        return {"cpu": time.process_time() - cpu, "count": done}

    def cpu(self) -> dict[str, Any]:
        """The processor time of the process so far."""
        return {"cpu": time.process_time()}

    def _pusher(self, events: int, seconds: float, slot: int) -> Pusher:
        frame = query_data.arriving(events, self._keys, self._seed, slot)
        begin = time.perf_counter_ns() + 20_000_000
        send = lambda start, stop: self._live.push(payments, frame[start:stop])  # noqa: E731
        return Pusher(send, events, max(events / seconds, 1), begin, PERIOD)

    def handle(self, what: str, **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = getattr(self, what)(**arguments)
        return result


def load(live: Any, frame: pl.DataFrame) -> None:
    """All of the events, a minute of them at a time and each at its own time, as they would have come.

    Raises:
        BenchError: Some were not taken.
    """
    for _, part in frame.group_by(pl.col("at") // MINUTE, maintain_order=True):
        clock.set(int(part["at"][-1]))
        live.push(payments, part)
        live.drain()
    clock.set(query_data.NOW)
    if aside := live.stats().dead_letters:
        raise BenchError(f"expected every payment to be taken, found dead letters: {aside}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--data", required=True)
    options = parser.parse_args(arguments)
    with app.open(options.data) as live:
        load(live, query_data.payments(options.events, options.keys, options.seed))
        held = live.stats().views["spending"]
        with BackgroundServer(live) as server:
            port = int(server.url.rpartition(":")[2])
            answers = Answers(live, options.keys, options.seed)
            serve(answers.handle, port=port, tiles=held.tiles, bytes=held.bytes)


if __name__ == "__main__":
    main()
