"""The push log as a lane, for a dataflow that runs in the process that takes the pushes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headrace.errors import StorageError
from headrace.runners.bytewax_lane import BUSY, Lane
from headrace.runners.bytewax_messages import Arrival
from headrace.runners.inbox import Work

if TYPE_CHECKING:
    from headrace.runners.bytewax_site import Site

logger = logging.getLogger("headrace")

PUSH = "push"
_REPLAY_ROWS = 131_072
# Arrival numbers before all others, for what was pushed before all that is still to come.
_BEFORE = -(1 << 40)


class PushLane(Lane):
    """The push log: first what it holds past the checkpoint, then what is pushed.

    A view that is new, or whose declaration has changed, is made anew from what the log still holds. How far that has
    come is part of the lane's state, so that a crash on the way counts nothing twice.
    """

    quiet = BUSY

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
        return self.standing() | {"views": views, "again": self._again}
