"""Which batches have been written by all who keep a piece of them, and so how far every lane has come.

A lane's batches are done in order: that a later one is written first shows only once those before it are, so that a
position never promises what is not there yet. And what is done is told to those who wait only when their reads know it,
too: a store elsewhere has its own word of how far all have come, which says what `now` is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.runners.bytewax_messages import Begun, Done, StreamDone, Written
from headrace.runners.progress import StreamState
from headrace.runners.tally import FRESHNESS, ROWS, Tally
from headrace.units import SECOND

if TYPE_CHECKING:
    from headrace.app import App


@dataclass
class _Lane:
    """A lane's batches on their way, in order, and what was done last."""

    waiting: deque[tuple[Done, str]] = field(default_factory=deque)
    done: Done | None = None
    told: Done | None = None


class Tracker:
    """Counts pieces, and knows what is true: positions, newest event times, and rows.

    One thread tells it of batches; any may ask.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.changed = threading.Condition()
        self.version = 0
        self.seen: dict[str, Any] = {}  # what is written
        self.told: dict[str, Any] = {}  # what of that those who wait have been told of
        self._untold = False
        self.streams = {name: StreamState() for name in app.streams}
        self.freshness = {name: Tally(FRESHNESS) for name in app.streams}
        self.batch_rows = {name: Tally(ROWS) for name in app.streams}
        self._lanes: dict[str, _Lane] = {}
        self._missing: dict[str, int] = {}  # of each batch, the pieces that are not written
        self._streams: dict[str, Mapping[str, StreamDone]] = {}

    def take(self, word: Begun | Written) -> bool:
        """Takes word of a batch in; says whether anything is true now that was not before, and is to be told."""
        if isinstance(word, Written):
            # A piece may be written before it is heard that the batch has begun.
            self._missing[word.batch] = self._missing.get(word.batch, 0) - word.pieces
        else:
            self._missing[word.batch] = self._missing.get(word.batch, 0) + word.pieces
            self._streams[word.batch] = word.streams
            for done in word.dones:
                self._lanes.setdefault(done.lane, _Lane()).waiting.append((done, word.batch))
        ready = [lane for lane in self._lanes.values() if lane.waiting and self._is_done(lane.waiting[0][1])]
        if not ready:
            return False
        with self.changed:
            for lane in ready:
                self._advance(lane)
            self._untold = True
        return True

    def tell(self) -> None:
        """Lets those who wait know what is true: whatever they read knows it."""
        if not self._untold:
            return
        with self.changed:
            self._untold = False
            self.told = self.seen
            for lane in self._lanes.values():
                lane.told = lane.done
            self.version += 1
            self.changed.notify_all()

    def _is_done(self, batch: str) -> bool:
        return batch in self._streams and self._missing[batch] == 0

    def _advance(self, lane: _Lane) -> None:
        while lane.waiting and self._is_done(lane.waiting[0][1]):
            done, batch = lane.waiting.popleft()
            lane.done = done
            self.seen = self.seen | {done.source: merged(self.seen.get(done.source), done.position)}
            for name, stream in self._streams[batch].items():
                self._count(name, stream)
            # The batches of several lanes can be one: it is counted once, with the first of them.
            self._streams[batch] = {}
            if not any(batch == other for one in self._lanes.values() for _, other in one.waiting):
                del self._streams[batch], self._missing[batch]

    def _count(self, name: str, done: StreamDone) -> None:
        state = self.streams[name]
        newest = done.newest if state.newest is None else max(state.newest, done.newest)
        if done.rows == 0:
            state.newest = newest
            return
        state.advance(done.rows, newest)
        state.late += done.late
        self.batch_rows[name].add(np.array([float(done.rows)]))
        if not self._app.event_time:
            self.freshness[name].add(np.maximum(0.0, (self._app.clock.now() - done.sample) / SECOND))

    def done(self, lane: str) -> Done | None:
        """The last batch of a lane of which all has been written and told; None before its first."""
        held = self._lanes.get(lane)
        return None if held is None else held.told

    def newest(self) -> dict[str, int | None]:
        """The newest event time of each stream."""
        return {name: state.newest for name, state in self.streams.items()}

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Waits until `done`, asked whenever anything has changed."""
        with self.changed:
            return self.changed.wait_for(done, timeout)

    def notify(self) -> None:
        """Lets those who wait ask again."""
        with self.changed:
            self.changed.notify_all()


def merged(held: Any, position: Any) -> Any:
    """The position of a source after one of its lanes has come to `position`."""
    if isinstance(held, dict) and isinstance(position, dict):
        return held | position
    return held if position is None else position
