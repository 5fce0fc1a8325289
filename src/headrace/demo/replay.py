"""The replay: recorded events pushed on the schedule of their event times, and their freshness measured.

The load is open-loop: when an event is due follows from its event time alone, never from how fast the engine
took the one before, and every delay is counted from the moment an event was due. A generator that waits for
its server would leave out the very waits it is there to find ("coordinated omission": Tene, "How NOT to
Measure Latency", 2013).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from headrace.demo.app import Flight, flights
from headrace.units import SECOND, from_micros

if TYPE_CHECKING:
    from headrace.serving.live import Live

# At full speed nothing is due at any time: this many events go in one push, enough for the batch to pay and
# few enough to watch.
FULL_SPEED_BATCH = 500
_SAMPLES = 10_000
_RATE_SPAN = 1.0


@dataclass(frozen=True)
class Schedule:
    """When recorded events are due, in seconds since the replay began.

    Attributes:
        at: Event times, int64 microseconds, in increasing order.
        start: The event time at which the replay begins.
        speed: Seconds of event time in a second; None for as fast as they are taken.
    """

    at: np.ndarray
    start: int
    speed: float | None

    def seconds(self, index: int) -> float:
        """When an event is due; 0.0 at full speed: all are due at once."""
        if self.speed is None:
            return 0.0
        return float(self.at[index] - self.start) / (self.speed * SECOND)

    def due(self, done: int, elapsed: float) -> int:
        """How many events are to have been pushed `elapsed` seconds after the start, if `done` have been.

        Events of one moment are never parted: a replay that was cut can go on after the newest moment that
        was stored.
        """
        if done >= len(self.at):
            return done
        if self.speed is None:
            newest = self.at[min(done + FULL_SPEED_BATCH, len(self.at)) - 1]
        else:
            newest = self.start + int(elapsed * self.speed * SECOND)
        return max(done, int(np.searchsorted(self.at, newest, side="right")))

    def now(self, done: int, elapsed: float) -> int:
        """The simulated time: that of the schedule, up to its last event, or the newest event's at full speed."""
        if self.speed is None or done >= len(self.at):
            return int(self.at[done - 1]) if done else self.start
        return min(self.start + int(elapsed * self.speed * SECOND), int(self.at[-1]))


@dataclass(frozen=True)
class Progress:
    """How far the replay is, and how it keeps up; times in seconds."""

    pushed: int
    total: int
    now: int
    rate: float
    lag: float
    fresh_p50: float | None
    fresh_p99: float | None


@dataclass
class Replay:
    """Pushes `events` into `live` on schedule; `run` in one thread, `progress` from any.

    Attributes:
        live: An open engine of `headrace.demo.app:app`.
        events: Flights in the order of `at`, none before `start`.
        start: The event time at which the replay begins.
        speed: Seconds of event time in a second; None for as fast as they are taken.
        stop: Set to end it early; what was pushed stays.
    """

    live: Live
    events: pl.DataFrame
    start: int
    speed: float | None
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        at = self.events["at"].dt.epoch("us").to_numpy()
        self._schedule = Schedule(at, self.start, self.speed)
        self._done = 0
        self._lag = 0.0
        self._began: float | None = None
        self._took = 0.0
        self._fresh = np.zeros(_SAMPLES)
        self._samples = 0
        self._recent: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=4096)
        self._lock = threading.Lock()

    def run(self) -> None:
        """Push all events, each when it is due; returns at the end or soon after `stop` is set."""
        began = self._began = time.perf_counter()
        total = self.events.height
        while self._done < total and not self.stop.is_set():
            elapsed = time.perf_counter() - began
            upto = self._schedule.due(self._done, elapsed)
            if upto == self._done:
                self.stop.wait(max(0.0, self._schedule.seconds(self._done) - elapsed))
                continue
            # At full speed there is no schedule: freshness counts from the push.
            due_at = self._due_times(upto, elapsed)
            self._push(upto)
            self._note(upto, due_at, time.perf_counter() - began)

    def _due_times(self, upto: int, elapsed: float) -> np.ndarray:
        if self.speed is None:
            return np.full(upto - self._done, elapsed)
        at = self._schedule.at[self._done : upto]
        return np.asarray((at - self.start) / (self.speed * SECOND))

    def _push(self, upto: int) -> None:
        batch = self.events[self._done : upto]
        token = self.live.push(Flight, batch)
        # Visible is what a reader gets: the newest event's airport is read back, and the read waits for this
        # push.
        self.live.read("origin", batch["origin"][-1], after=token)

    def _note(self, upto: int, due_at: np.ndarray, visible: float) -> None:
        waits = visible - due_at[-_SAMPLES:]
        with self._lock:
            places = np.arange(self._samples, self._samples + len(waits)) % _SAMPLES
            self._fresh[places] = waits
            self._samples += len(waits)
            self._done = upto
            self._lag = float(waits[0])
            self._took = visible
            self._recent.append((visible, upto))
            while len(self._recent) > 2 and self._recent[1][0] < visible - _RATE_SPAN:
                self._recent.popleft()

    def progress(self) -> Progress:
        """Where it is now; the rate is over the last second, the freshness over the last 10,000 events."""
        with self._lock:
            done, lag = self._done, self._lag
            waits = self._fresh[: min(self._samples, _SAMPLES)].copy()
            (then, before), (last, _) = self._recent[0], self._recent[-1]
        elapsed = 0.0 if self._began is None else time.perf_counter() - self._began
        if done < self.events.height and self.speed is not None:
            # An event that is due and not yet visible is behind, whatever the last one was.
            lag = max(lag if elapsed - last < _RATE_SPAN else 0.0, elapsed - self._schedule.seconds(done))
        p50, p99 = (float(p) for p in np.percentile(waits, (50, 99))) if len(waits) else (None, None)
        rate = (done - before) / (last - then) if last > then else 0.0
        return Progress(done, self.events.height, self._schedule.now(done, elapsed), rate, max(0.0, lag), p50, p99)

    @property
    def took(self) -> float:
        """Seconds from the start until the newest event was visible."""
        return self._took


def between(events: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    """The events after `start` and not after `end`."""
    at = pl.col("at")
    return events.filter((at > from_micros(start)) & (at <= from_micros(end)))


def newest(live: Live) -> int | None:
    """The newest event time that is stored, None if there is none: where a replay that was cut goes on."""
    return live.stats().streams[flights.name].newest
