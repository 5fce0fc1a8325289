"""A lane: a part of the input with a position of its own, which Bytewax asks for batches and saves."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from bytewax.inputs import StatefulSourcePartition

from headrace.features.layout import Array
from headrace.runners.bytewax_messages import Arrival, Done
from headrace.runners.feeder import Feeder
from headrace.runners.inbox import Inbox, Work

if TYPE_CHECKING:
    from headrace.runners.bytewax_site import Site

# Under a trickle, batches of so long cost far less than one an event.
_REST = timedelta(milliseconds=2)
# How soon a lane that has nothing is asked again: at once while it is busy, less often when it has been quiet.
BUSY, QUIET = timedelta(milliseconds=1), timedelta(milliseconds=5)
_BUSY_FOR = timedelta(seconds=1)


class Lane(StatefulSourcePartition[Arrival, dict[str, Any]]):
    """What lanes have in common: numbered batches, the event clock, and when to be asked again.

    Attributes:
        inbox: What waits to be handed on.
        feeder: What fills it; None if others do.
        position: Of what was handed on last.
        newest: The newest event time in it, by stream.
    """

    quiet = QUIET

    def __init__(self, site: Site, name: str, source: str, inbox: Inbox, state: dict[str, Any] | None) -> None:
        self.site = site
        self.name = name
        self.source = source
        self.inbox = inbox
        self.feeder: Feeder | None = None
        self.position: Any = None if state is None else state["position"]
        self.newest: dict[str, int] = dict(state["newest"]) if state is not None else {}
        self._number = 0
        self._taken = 0
        self._awake: datetime | None = None
        self._busy = datetime.now(UTC)
        # Of the batches handed on last, when they were written.
        self._in_hand: deque[tuple[int, int]] = deque(maxlen=64)
        site.lanes[name] = self

    def next_batch(self) -> Sequence[Arrival]:
        with self.site.explained():
            if self._number == 0:
                # Where it stands, before anything: so that it is known how far the last checkpoint had come.
                return [replace(self._arrival([], self.newest), opens=self.site.expected[0] == self.name)]
            found = self.more()
            if found is None:
                raise StopIteration
            now = datetime.now(UTC)
            if found:
                self._busy = now
            self._awake = now + (_REST if found else BUSY if now - self._busy < _BUSY_FOR else self.quiet)
            return found

    def next_awake(self) -> datetime | None:
        return self._awake

    def more(self) -> list[Arrival] | None:
        """What there is to hand on now; None if nothing will ever come any more."""
        works = self.inbox.take(0)
        if works:
            self._taken += len(works)
            self.position = works[-1].position
            return [self._arrival(works)]
        ended = self.inbox.closed or (self.feeder is not None and self.feeder.finished)
        return None if ended and self.inbox.rows == 0 else []

    def _arrival(self, works: list[Work], newest: Mapping[str, int] | None = None) -> Arrival:
        now = tuple(self._clock(work, self.newest) for work in works)
        return Arrival(self._done(works), tuple(works), now, newest=dict(newest or {}))

    def _done(self, works: list[Work]) -> Done:
        """What is true once these have been written."""
        if works:
            self._in_hand.append((self._number, min(work.created for work in works)))
        done = Done(self.name, self._number, self.source, self.position, self._taken)
        self._number += 1
        return done

    def _clock(self, work: Work, newest: dict[str, int]) -> Array:
        """The time at which each row arrived. On event time that is this lane's: another may read an earlier time."""
        if work.frame.height == 0:
            return np.empty(0, np.int64)
        at = work.frame[self.site.app.streams[work.stream].schema.time].to_physical().to_numpy()
        floor = newest.get(work.stream, int(at[0]))
        now = np.maximum.accumulate(np.maximum(at, floor))
        newest[work.stream] = int(now[-1])
        return now if self.site.app.event_time else np.full(work.frame.height, work.received)

    def begun(self) -> bool:
        """Whether it has begun to read."""
        return True

    def standing(self) -> dict[str, Any]:
        """Where it stands, to go on from."""
        return {"position": self.position, "newest": dict(self.newest), "source": self.source}

    def oldest(self) -> int | None:
        """When that was written which has waited longest to become readable, in microseconds."""
        done = self.site.tracker.done(self.name)
        in_hand = [created for number, created in tuple(self._in_hand) if done is None or number > done.number]
        waiting = self.inbox.oldest() if self.inbox.rows else None
        since = None if self.feeder is None else self.feeder.behind_since()
        return min([*in_hand, *(one for one in (waiting, since) if one is not None)], default=None)
