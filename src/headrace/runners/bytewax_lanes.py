"""Lanes: what Bytewax reads from. Each is a part of a source, or the push log, with a position of its own.

The number of a stream's lanes is fixed, so that a lane's saved position means the same whatever the number of workers.
A lane reads and decodes in threads of its own (the local runner's feeder), and hands on what has gathered when Bytewax
asks: batches grow under load.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from bytewax.inputs import DynamicSource, FixedPartitionedSource, StatefulSourcePartition, StatelessSourcePartition

from headrace.errors import StorageError
from headrace.features.layout import Array
from headrace.registry import DEFAULT as CONNECTORS
from headrace.runners.bytewax_messages import Arrival, Done
from headrace.runners.feeder import Feeder
from headrace.runners.inbox import BATCH_ROWS, Inbox, Work
from headrace.runners.intake import Intake
from headrace.sources.base import Divisible, Source, Writable

if TYPE_CHECKING:
    from headrace.app import App, Stream
    from headrace.runners.bytewax_site import Site

logger = logging.getLogger("headrace")

PUSH = "push"
# Under a trickle, batches of so long cost far less than one an event.
_REST = timedelta(milliseconds=2)
# How soon a lane that has nothing is asked again: at once while it is busy, less often when it has been quiet.
_BUSY, _QUIET = timedelta(milliseconds=1), timedelta(milliseconds=5)
_BUSY_FOR = timedelta(seconds=1)
_TICK = timedelta(milliseconds=100)
_REPLAY_ROWS = 131_072
# Arrival numbers before all others, for what was pushed before all that is still to come.
_BEFORE = -(1 << 40)


class Ticks(DynamicSource[Arrival]):
    """Nothing ever comes of it, but every worker has one: what is due now and then is done when it is asked."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSourcePartition[Arrival]:  # noqa: ARG002
        self._site.arrive(worker_index, worker_count)
        return _Tick(self._site)


class _Tick(StatelessSourcePartition[Arrival]):
    def __init__(self, site: Site) -> None:
        self._site = site

    def next_batch(self) -> list[Arrival]:
        with self._site.explained():
            self._site.here().engine.tick()
        return []

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + _TICK


class Lanes(FixedPartitionedSource[Arrival, dict[str, Any]]):
    """All lanes of an app, under names that never change."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def list_parts(self) -> list[str]:
        names = [] if self._site.log is None else [PUSH]
        names += [f"{stream.name}/{number}" for stream, number, _ in sources(self._site)]
        self._site.opener = names[0]
        return names

    def build_part(self, step_id: str, for_part: str, resume_state: dict[str, Any] | None) -> _Lane:  # noqa: ARG002
        with self._site.explained():
            if for_part == PUSH:
                return PushLane(self._site, resume_state)
            for stream, number, source in sources(self._site):
                if for_part == f"{stream.name}/{number}":
                    return SourceLane(self._site, for_part, stream, source, resume_state)
        raise AssertionError(f"no lane {for_part}")


def sources(site: Site) -> Iterator[tuple[Stream, int, Source]]:
    """The lanes of every stream: those of a source that can be divided, or the one of another."""
    for stream in site.app.streams.values():
        if stream.url is not None:
            source: Source = CONNECTORS.create("source", stream.url)
            lanes = source.lanes(site.lineage.lanes) if isinstance(source, Divisible) else [source]
            for number, lane in enumerate(lanes):
                yield stream, number, lane


class _Lane(StatefulSourcePartition[Arrival, dict[str, Any]]):
    """What lanes have in common: numbered batches, the event clock, and when to be asked again.

    Attributes:
        inbox: What waits to be handed on.
        feeder: What fills it; None if others do.
    """

    quiet = _QUIET

    def __init__(self, site: Site, name: str, source: str, inbox: Inbox, state: dict[str, Any] | None) -> None:
        self.site = site
        self.name = name
        self.source = source
        self.inbox = inbox
        self.feeder: Feeder | None = None
        self.position: Any = None if state is None else state["position"]
        self._newest: dict[str, int] = dict(state["newest"]) if state is not None else {}
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
                return [replace(self._arrival([], self._newest), opens=self.site.opener == self.name)]
            found = self.more()
            if found is None:
                raise StopIteration
            now = datetime.now(UTC)
            if found:
                self._busy = now
            self._awake = now + (_REST if found else _BUSY if now - self._busy < _BUSY_FOR else self.quiet)
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
        now = tuple(self._clock(work, self._newest) for work in works)
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

    def newest(self) -> dict[str, int]:
        """The newest event time of each stream that it brings."""
        return self._newest

    def snapshot(self) -> dict[str, Any]:
        return {"position": self.position, "newest": dict(self._newest), "source": self.source}

    def oldest(self) -> int | None:
        """When that was written which has waited longest to become readable, in microseconds."""
        done = self.site.tracker.done(self.name)
        in_hand = [created for number, created in tuple(self._in_hand) if done is None or number > done.number]
        waiting = self.inbox.oldest() if self.inbox.rows else None
        since = None if self.feeder is None else self.feeder.behind_since()
        return min([*in_hand, *(one for one in (waiting, since) if one is not None)], default=None)


class SourceLane(_Lane):
    """A part of a stream's source."""

    def __init__(self, site: Site, name: str, stream: Stream, source: Source, state: dict[str, Any] | None) -> None:
        state = _continued(site.app, stream, source, site.lineage.lines, state)
        super().__init__(site, name, source.name, Inbox(BATCH_ROWS), state)
        self._lines = _lines(site.app, stream, site.lineage.lines)
        if isinstance(source, Writable) and stream.name not in site.setaside.writers:
            site.setaside.writers[stream.name] = source.writer(stream.schema)
        intake = Intake(stream.name, stream.schema, source, site.setaside, site.app.clock.now)
        self.feeder = Feeder(stream.name, source, intake, self.inbox)
        self.feeder.start(self.position)

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"lines": self._lines}


def _lines(app: App, stream: Stream, lines: dict[str, str]) -> list[str]:
    return [lines[name] for name, view in app.views.items() if view.stream == stream.name]


def _continued(
    app: App, stream: Stream, source: Source, lines: dict[str, str], state: dict[str, Any] | None
) -> dict[str, Any] | None:
    """A lane's saved state, if it can be gone on with: some view has seen what was read before."""
    if state is None or state["source"] != source.name:
        return None
    present, known = set(_lines(app, stream, lines)), set(state["lines"])
    if present <= known:
        return state
    if present & known:
        logger.warning(
            "of the stream %r some views are new or have changed, others not: those begin where the source %s "
            "stands; for their past too, open the app on a new data directory",
            stream.name,
            source.name,
        )
        return state
    logger.warning("all views of %r are new or have changed: %s is read again", stream.name, source.name)
    return None


class PushLane(_Lane):
    """The push log: first what it holds past the checkpoint, then what is pushed.

    A view that is new, or whose declaration has changed, is made anew from what the log still holds. How far that has
    come is part of the lane's state, so that a crash on the way counts nothing twice.
    """

    quiet = _BUSY

    def __init__(self, site: Site, state: dict[str, Any] | None) -> None:
        super().__init__(site, PUSH, PUSH, site.inbox, state)
        assert site.log is not None
        self._log = site.log
        self.position = self.position or 0
        self.end = self._log.position
        if self.end < self.position:
            raise StorageError(
                f"the push log ends at position {self.end}, but the last checkpoint has seen {self.position}: the end "
                "of the log is damaged or was removed; restore the directory from a backup, or begin a new one"
            )
        known = dict(state["views"]) if state is not None else {}
        # The views that have not seen all that others have, and how far the log has been read for each.
        self._behind = {line: at for line in site.lineage.lines.values() if (at := known.get(line, 0)) < self.position}
        self._again: int = state["again"] if state is not None else 0
        self._backlog: Iterator[Arrival] | None = self._read_again()
        self._replayed: int | None = None  # the last batch of it
        self._saved: deque[int] = deque(maxlen=3)
        if self._behind and self._log.first > 1:
            logger.warning(
                "the views %s are new or have changed; of what was pushed, the log still holds only what came after "
                "position %d, so they begin there",
                ", ".join(sorted(name for name, line in site.lineage.lines.items() if line in self._behind)),
                self._log.first - 1,
            )

    def more(self) -> list[Arrival] | None:
        if self._backlog is not None:
            arrival = next(self._backlog, None)
            if arrival is not None:
                return [arrival]
            self._backlog = None
            self._replayed = self._number - 1
            self.site.tracker.notify()
        return super().more()

    def caught_up(self) -> bool:
        """Whether all that the log held at the start has been written."""
        done = self.site.tracker.done(self.name)
        return self._replayed is not None and done is not None and done.number >= self._replayed

    def _read_again(self) -> Iterator[Arrival]:
        """For each view what it has not seen of what others have, then for all what none has."""
        views = {line: name for name, line in self.site.lineage.lines.items()}
        for upto in sorted({*self._behind.values(), self.position}):
            lines = [line for line, at in self._behind.items() if at < upto]
            newest: dict[str, int] = {}
            for works in self._works_of(min((self._behind[line] for line in lines), default=upto), upto):
                first = _BEFORE + self._again
                self._again += sum(work.frame.height for work in works)
                self._behind |= dict.fromkeys(lines, works[-1].position)
                now = tuple(self._clock(work, newest) for work in works)
                only = frozenset(views[line] for line in lines)
                yield Arrival(self._done(works), tuple(works), now, only, first)
            self._behind |= dict.fromkeys(lines, upto)
        self._behind = {}
        for works in self._works_of(self.position, self.end):
            self.position = works[-1].position
            yield self._arrival(works)
        self.position = max(self.position, self.end)

    def _works_of(self, after: int, upto: int) -> Iterator[list[Work]]:
        works: list[Work] = []
        rows = 0
        if after >= upto:
            return
        for record in self._log.replay(after):
            if record.position > upto:
                break
            stream = self.site.app.streams.get(record.stream)
            if stream is None:
                logger.warning("the push log holds rows of %r, which the app no longer has", record.stream)
                continue
            frame = stream.schema.align(record.frame)
            works.append(Work(record.stream, frame, PUSH, record.position, record.received, record.received))
            rows += frame.height
            if rows >= _REPLAY_ROWS:
                yield works
                works, rows = [], 0
        if works:
            yield works

    def snapshot(self) -> dict[str, Any]:
        # The last one is durable once the dataflow goes on; what lies before the one before it is never asked for.
        if len(self._saved) == self._saved.maxlen:
            self.site.log_done(self._saved[0])
        self._saved.append(min([self.position, *self._behind.values()]))
        views = {line: self._behind.get(line, self.position) for line in self.site.lineage.lines.values()}
        self.site.epoch()
        return super().snapshot() | {"views": views, "again": self._again}
