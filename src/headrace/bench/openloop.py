"""Open-loop load: work starts when its schedule says so, whether or not what came before it is done.

A closed loop asks for the next thing when the last one is answered, so a system that stalls is asked less
while it stalls and its worst moments count once: coordinated omission (Gil Tene). Here every event and
every read has a scheduled time, and a latency is measured from that. Beside it stands the service time,
from the call to its return: the difference is queueing, the thread's wake-up and the wait for the
interpreter's lock.

The timer of a Linux thread may fire 50 µs late to save power; a load generator asks for none of that slack,
sleeps until a little before the moment and spins the rest.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.bench.data import user_id

SPIN = 100_000  # ns before the scheduled moment at which sleeping turns into spinning
_PR_SET_TIMERSLACK = 29


def precise_timer() -> None:
    """Ask the kernel to wake this thread on time (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def wait_until(moment: int) -> int:
    """Wait for a moment of `time.perf_counter_ns`; returns the time now, which is the moment or later."""
    now = time.perf_counter_ns()
    while now < moment:
        if moment - now > SPIN:
            time.sleep((moment - now - SPIN) / 1e9)
        now = time.perf_counter_ns()
    return now


@dataclass(frozen=True)
class Latencies:
    """Microseconds, one for each call, in the order of the schedule."""

    scheduled: NDArray[np.float64]
    service: NDArray[np.float64]

    def to_dict(self) -> dict[str, list[float]]:
        """The percentiles by name, as `[scheduled, service]`."""
        points = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
        return {
            name: [float(np.percentile(self.scheduled, q)), float(np.percentile(self.service, q))]
            for name, q in points.items()
        }


def call_on_schedule(call: Callable[[int], object], rate: float, count: int) -> Latencies:
    """Call `call(0)`, `call(1)`, … at `rate` a second from this thread, catching up at once after a stall."""
    precise_timer()
    scheduled, service = np.empty(count), np.empty(count)
    clock = time.perf_counter_ns
    begin = clock() + 1_000_000
    for i in range(count):
        due = begin + int(i * 1e9 / rate)
        called = wait_until(due)
        call(i)
        done = clock()
        scheduled[i], service[i] = done - due, done - called
    return Latencies(scheduled / 1e3, service / 1e3)


@dataclass(frozen=True)
class Feed:
    """Events as NDJSON lines of one width, so that any run of them is one slice."""

    data: memoryview
    width: int
    count: int

    @classmethod
    def of(cls, numbers: NDArray[np.int64], times: NDArray[np.int64], cents: NDArray[np.int64]) -> Feed:
        """Events of these user numbers, event times (microseconds) and amounts (0 to 8,999 cents)."""
        line = pl.concat_str(
            pl.lit('{"user_id":"'),
            user_id(pl.col("number")),
            pl.lit('","amount":'),
            # From 10.00 on: 1.05 is narrower, and 01.05 is not JSON.
            (10 + pl.col("cents") // 100).cast(pl.String),
            pl.lit("."),
            (pl.col("cents") % 100).cast(pl.String).str.zfill(2),
            pl.lit(',"timestamp":'),
            pl.col("time").cast(pl.String),
            pl.lit("}\n"),
        )
        frame = pl.DataFrame({"number": numbers, "time": times, "cents": cents})
        data = "".join(frame.select(line=line)["line"].to_list()).encode()
        return cls(memoryview(data), len(data) // max(len(numbers), 1), len(numbers))

    def body(self, start: int, stop: int) -> bytes:
        return bytes(self.data[start * self.width : stop * self.width])


class Pusher(threading.Thread):
    """Sends at a rate, from its own thread: every `period`, `send(start, stop)` of all that is due.

    When a call takes longer than the period, the next one sends more: nothing is left out and nothing slows
    the schedule.

    Attributes:
        begin: `time.perf_counter_ns` at which event 0 is due; event i is due i / rate seconds later.
        sent: How many events have been sent.
        largest: The most that one call sent.
        finished: `time.perf_counter_ns` after the last call, or 0.
    """

    def __init__(
        self, send: Callable[[int, int], object], count: int, rate: float, begin: int, period: float = 0.002
    ) -> None:
        super().__init__(name="bench-pusher", daemon=True)
        self.begin = begin
        self.sent = 0
        self.largest = 0
        self.finished = 0
        self.error: BaseException | None = None
        self._send, self._count, self._rate, self._period = send, count, rate, int(period * 1e9)
        self._stopping = threading.Event()

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - carried to the thread that joins
            self.error = error

    def _run(self) -> None:
        precise_timer()
        tick = self.begin
        while self.sent < self._count and not self._stopping.is_set():
            tick = max(tick + self._period, time.perf_counter_ns())
            while (now := time.perf_counter_ns()) < tick:
                time.sleep((tick - now) / 1e9)
            due = min(int((now - self.begin) * self._rate / 1e9), self._count)
            if due > self.sent:
                self.largest = max(self.largest, due - self.sent)
                self._send(self.sent, due)
                self.sent = due
        self.finished = time.perf_counter_ns()

    def finish(self) -> None:
        """Wait until all is sent and raise what went wrong, if anything."""
        self.join()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Send no more, and wait for the call in progress."""
        self._stopping.set()
        self.finish()
