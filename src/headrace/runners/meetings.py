"""Meetings: a place in the write order at which everybody lets a reader have a look while passing it.

    writes       ──A1──p1──B1──A2──p2─┃─A3──p3──►        the reader names the place ┃ behind all that is written
    collection a ────────────►        ┃                  each hands over a moment when it is there, and goes on
    collection b ──►                  ┃
    features     ────────────────────►┃                  a commit ends there, and can be undone up to there

Collections are apart nearly always while others write, each a little behind its own table, and whoever waits for the
one finds the other gone ahead. So a reader does not look for a place that all have come to, but names one: the first
that nobody has passed and at which features can be read, or one behind all that is written. Nobody stands still for it.
These are the aligned barriers of asynchronous snapshots (Carbone et al., Lightweight Asynchronous Snapshots for
Distributed Dataflows, 2015), after Chandy and Lamport's markers. The first takes as long as the batches in hand, the
other as long as following what was written before.

Readers that come at the same time share a meeting, and there is a most of them, since each costs a moment of a database
in every collection.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Generic, TypeVar

from headrace.errors import ClosedError
from headrace.runners.order import Place, WriteOrder

# Places that are waited for at the same time; who comes later shares the next one.
_MOST = 4
Held = TypeVar("Held")  # what is handed over


class Meeting(Generic[Held]):
    """One place, and what is handed over there.

    Attributes:
        place: Where it is; None while there are too many others.
        names: The collections that are wanted.
        near: Whether the first place will do.
        moments: The collections at it, as far as they have come.
        failed: Why it cannot be, if it cannot.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.near = True
        self.place: Place | None = None
        self.moments: dict[str, Held] = {}
        self.failed = ""
        self.waiting = 0  # readers who need the place
        self._users = 0  # readers who need the moments
        self._open = ExitStack()
        self._lock = threading.Lock()

    def missing(self) -> list[str]:
        """The collections that have not come yet."""
        return sorted(self.names - self.moments.keys())

    def hand_over(self, name: str, moment: Held, close: Callable[[], None]) -> None:
        """A collection that is there; its moment lasts until the last reader goes."""
        self.moments[name] = moment
        self._open.callback(close)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """For as long as the block takes, the moments last."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                last = not self._users
            if last:
                self._open.close()


class Meetings(Generic[Held]):
    """The meetings of one app; for any number of threads.

    Args:
        order: The order of its writes.
        tables: By collection, the table that it follows.
        wake: Tells a collection that it is wanted.
    """

    def __init__(self, order: WriteOrder, tables: Mapping[str, str], wake: Callable[[str], None]) -> None:
        self._order = order
        self._tables = tables
        self._aims: dict[str, int] = {}
        self._wake = wake
        self._changed = threading.Condition()
        self._placed: list[Meeting[Held]] = []
        self._next: Meeting[Held] | None = None
        self._closed = False

    # -- for readers -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def meet(self, names: Iterable[str], *, near: bool) -> Iterator[Meeting[Held]]:
        """A meeting with these collections; within the block its place is kept.

        Args:
            near: Whether the first place will do that nobody has passed; else it is behind all that is written by now.

        Raises:
            ClosedError: There are no more meetings.
        """
        with ExitStack() as used:
            meeting = self._join(set(names), near, used)
            try:
                self._place()
                yield meeting
            finally:
                # Before the moments go: from here on none is handed over any more.
                with self._changed:
                    meeting.waiting -= 1
                    if not meeting.waiting:
                        self._forget(meeting)
                self._place()

    def _join(self, names: set[str], near: bool, used: ExitStack) -> Meeting[Held]:
        """The next meeting, which is used until the stack is closed."""
        with self._changed:
            if self._closed:
                raise ClosedError("the app is closed; open it again")
            if self._next is None:
                self._next = Meeting()
            meeting = self._next
            meeting.names |= names
            meeting.near = meeting.near and near
            meeting.waiting += 1
            used.enter_context(meeting.used())
            return meeting

    def wait(self, meeting: Meeting[Held], until: float) -> bool:
        """Waits until all are there, or it cannot be; False if neither was so at that time (of `time.monotonic`)."""
        with self._changed:
            left = max(0.0, until - time.monotonic())
            return self._changed.wait_for(
                lambda: bool(meeting.failed) or (meeting.place is not None and not meeting.missing()), left
            )

    def _place(self) -> None:
        """Gives the next meeting its place if there is room for one more."""
        with self._changed:
            meeting = self._next
            if meeting is None or len(self._placed) >= _MOST:
                return
            self._next = None
            meeting.place = self._order.mark(self._aims_of(meeting), self._order.versions())
            self._placed.append(meeting)
            self._changed.notify_all()
        for name in meeting.names:
            self._wake(name)

    def _aims_of(self, meeting: Meeting[Held]) -> dict[str, int] | None:
        """By table, how far those have come, or will with what they have in hand, who follow it."""
        if not meeting.near or not meeting.names <= self._aims.keys():
            return None
        aims: dict[str, int] = {}
        for name in meeting.names:
            table = self._tables[name]
            aims[table] = max(aims.get(table, 0), self._aims[name])
        return aims

    def _forget(self, meeting: Meeting[Held]) -> None:
        if meeting is self._next:
            self._next = None
        elif meeting.place is not None:
            self._placed.remove(meeting)
            self._order.unmark(meeting.place)

    def close(self) -> None:
        """There are no meetings any more; who waits for one is told."""
        with self._changed:
            self._closed = True
            for meeting in (*self._placed, *([self._next] if self._next else ())):
                meeting.failed = "the app is being closed"
            self._changed.notify_all()

    # -- for collections -------------------------------------------------------------------------------------------

    def wanted(self, name: str, position: int) -> bool:
        """Whether there is something to follow for a collection that is at that number, or somebody waits for it."""
        with self._changed:
            return self._order.last(self._tables[name]) > position or bool(self._awaiting(name, position))

    def upto(self, name: str, position: int) -> int:
        """How far a collection may follow its table without passing a place where it is awaited: it will, then."""
        table = self._tables[name]
        with self._changed:
            places = [number for _, number in self._awaiting(name)]
            self._aims[name] = max(position, min([self._order.last(table), *places]))
            return self._aims[name]

    def aim(self, name: str, upto: int) -> None:
        """A collection has decided to follow only so far for now."""
        with self._changed:
            self._aims[name] = upto

    def due(self, name: str, position: int) -> bool:
        """Whether a collection that is at that number has somebody to hand its moment to."""
        with self._changed:
            return bool(self._awaiting(name, position))

    def arrive(self, name: str, position: int, moment: Callable[[], AbstractContextManager[Held]]) -> None:
        """A collection says that it is at that number, and hands over what is waited for there.

        Args:
            moment: Makes a moment, which has to be of that number.
        """
        with self._changed:
            due = [one for one, number in self._awaiting(name) if number == position]
        for meeting in due:
            with ExitStack() as stack:
                found = stack.enter_context(moment())
                with self._changed:
                    if meeting in self._placed:
                        meeting.hand_over(name, found, stack.pop_all().close)
                        self._changed.notify_all()
        self.spoil(name, position - 1, f"{name} has passed the place already")

    def spoil(self, name: str, position: int | None, why: str) -> None:
        """A collection says that up to that number, or at all, it has nothing to hand over."""
        with self._changed:
            for meeting, _ in self._awaiting(name, position):
                meeting.failed = why
                self._changed.notify_all()

    def _awaiting(self, name: str, position: int | None = None) -> list[tuple[Meeting[Held], int]]:
        """Where a collection is awaited, up to a number, and the number there."""
        table = self._tables[name]
        found = [
            (one, one.place.numbers[table])
            for one in self._placed
            if one.place is not None and name in one.names and name not in one.moments and not one.failed
        ]
        return [(one, number) for one, number in found if position is None or number <= position]
