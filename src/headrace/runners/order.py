"""The write order: in which order this process took its writes, so that a read can be true to a prefix of it.

    pushes   1  2        3  4  5         6
    tables         A:1          B:1..3      A:2
             ───────────────────────────────────────► one order

A push to a stream has its place by its position in the push log, noted before the engine is given it. A write to a
table is noted with the newest position then, right after it is stored and before its push returns. So a write that
began after another had returned stands after it; of writes at the same time either may be first.

A cut lies between two places. Collections follow their tables with a lag, each readable at a moment that has followed
its table up to some number; the cut must be behind what the moments have, and before what they have not. Features are
then read at a version (a commit) whose push position is the cut's.
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

# Writes to tables that are kept; collections that are further behind are not read at one point with anything else.
_MOST = 4096
# In so many places an engine's batch is parted at most, that versions may end where cuts may be.
_MOST_PARTS = 4
_ALL = 1 << 62


@dataclass(frozen=True, slots=True)
class Entry:
    """Rows of a table that were written after the push `pushed`, and before the next; those past `before` up to `seq`.

    Rows stand in the order one by one, those of one push too: who has followed a part of them is at a point.
    """

    table: str
    before: int
    seq: int
    pushed: int


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two writes to tables: behind the push `first`, and at the push `last` at the latest."""

    first: int
    last: int
    numbers: Mapping[str, int]


class Follower(Protocol):
    """Who follows a table: up to `position`, and soon up to `aimed`."""

    position: int
    aimed: int


@dataclass(frozen=True)
class Followed:
    """A moment: which collection, of which table, and how far it has followed that."""

    name: str
    table: str
    position: int


@dataclass(frozen=True)
class Hindrance:
    """Why there is no cut.

    Attributes:
        token: Whether there is a cut, but not behind the write that was to be seen.
    """

    why: str
    token: bool = False


@dataclass
class Cuts:
    """The cuts that moments allow: between `low` and `high` writes to tables, and at a version that fits them."""

    entries: Sequence[Entry]
    least: int
    low: int
    high: int
    inside: bool
    last: Mapping[str, int]
    follower: Followed | None
    pushed: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.pushed = [one.pushed for one in self.entries]

    def at(self, position: int) -> int | None:
        """The latest cut (how many writes to tables come before it) for features that have seen that push; or None."""
        if position < self.least:
            return None
        low = max(self.low, bisect_left(self.pushed, position))
        high = min(self.high, bisect_right(self.pushed, position))
        if low > high:
            return None
        if self.inside and not (high == self.high and self.pushed[high] == position):
            return None
        return high

    @classmethod
    def free(cls) -> Cuts:
        """Without tables any version will do."""
        return cls([], 0, 0, 0, False, {}, None)

    def behind(self, why: str, *, token: bool = False) -> Hindrance:
        """Who holds the cut back, as what is in the way."""
        if self.follower is None:
            return Hindrance(why, token=token)
        return Hindrance(f"{self.follower.name} has not followed {self.follower.table} so far: {why}", token=token)

    @property
    def needed(self) -> int:
        """The push that features must have seen at least."""
        if self.inside:
            return self.pushed[self.high]
        return max(self.least, self.pushed[self.low - 1] if self.low else 0)

    def seq(self, table: str, cut: int) -> int:
        """The table's number at a cut."""
        behind = (one.before for one in self.entries[cut:] if one.table == table)
        return next(behind, self.last[table])


class WriteOrder:
    """The order of one process's writes; for any number of threads.

    Args:
        tables: The number of each table's last change.
    """

    def __init__(self, tables: Mapping[str, int]) -> None:
        self.pushed = 0
        self.versions: Callable[[], list[int]] = list
        self._lock = threading.Lock()
        self._seen: Callable[[], int] = lambda: _ALL
        self._entries: deque[Entry] = deque()
        self._last = dict(tables)
        self._base = dict(tables)
        self._least = 0
        self._begun: dict[int, int] = {}
        self._number = 0
        self._followers: dict[str, list[Follower]] = {}
        self._marks: list[int] = []

    def begin(self, pushed: int, seen: Callable[[], int], versions: Callable[[], list[int]]) -> None:
        """Pushes are noted from here on.

        Args:
            pushed: The position of the last one.
            seen: Of the last one that features have.
            versions: Of those behind which features can be read, in their order.
        """
        self.pushed = pushed
        self._seen = seen
        self.versions = versions

    def follow(self, table: str, follower: Follower) -> None:
        """From now on, somebody follows a table."""
        self._followers.setdefault(table, []).append(follower)

    @contextlib.contextmanager
    def writing(self, table: str, seq: Callable[[], int]) -> Iterator[None]:
        """Around one write to a table, of which there is one at a time; `seq` is the number of its last change."""
        with self._lock:
            self._number += 1
            mark = self._number
            # Pushes that come from now on may stand after it: those who could see them too early are told in time.
            self._begun[mark] = self.pushed
        try:
            yield
        finally:
            after = seq()
            with self._lock:
                self._note(table, after)
                del self._begun[mark]

    def _note(self, table: str, seq: int) -> None:
        before, pushed = self._last[table], self.pushed
        if seq <= before:
            return
        self._last[table] = seq
        if self._entries and self._entries[-1].table == table and self._entries[-1].pushed == pushed:
            # Nothing came in between: whoever is between the two is between two rows of one entry.
            before = self._entries.pop().before
        self._entries.append(Entry(table, before, seq, pushed))
        self._prune()

    def _prune(self) -> None:
        """Forgets what everybody has."""
        seen = self._seen()
        while self._entries:
            first = self._entries[0]
            passed = all(one.position >= first.seq for one in self._followers.get(first.table, ()))
            if not (passed and first.pushed <= seen) and len(self._entries) <= _MOST:
                return
            self._entries.popleft()
            self._base[first.table] = first.seq
            self._least = first.pushed

    # -- for readers -----------------------------------------------------------------------------------------------

    def cuts(self, moments: Iterable[Followed]) -> Cuts | Hindrance:
        """Where a cut may be, given moments of collections, which have followed nothing but what is noted."""
        with self._lock:
            self._prune()
            entries, last, base, least = list(self._entries), dict(self._last), dict(self._base), self._least
        cuts = Cuts(entries, least, 0, len(entries), False, last, None)
        for one in moments:
            if one.position < base[one.table]:
                return Hindrance(f"{one.name} is still catching up with what came before all that is known")
            _narrow(cuts, one)
        if cuts.low > cuts.high:
            assert cuts.follower is not None
            return Hindrance(f"{cuts.follower.name} is behind other collections")
        return cuts

    def before(self, pushed: int, tables: Mapping[str, int]) -> tuple[int, dict[str, int]]:
        """What stands before the last of some writes, and they themselves: a push, and the numbers of tables.

        Args:
            pushed: One of the writes, if it is a push; else 0.
            tables: The others, by table, as the number of a change.
        """
        with self._lock:
            entries = list(self._entries)
        places = [n for n, one in enumerate(entries) if one.pushed < pushed or one.before < tables.get(one.table, 0)]
        found = dict(tables)
        if not places:
            return pushed, found  # what is forgotten has been seen by all
        last = entries[places[-1]]
        whole = places[-1] if last.before < tables.get(last.table, 0) and last.pushed >= pushed else places[-1] + 1
        for one in entries[:whole]:
            found[one.table] = max(found.get(one.table, 0), one.seq)
        return max(pushed, last.pushed), found

    def last(self, table: str) -> int:
        """The number of a table's last change that has its place."""
        with self._lock:
            return self._last[table]

    def mark(self, aims: Mapping[str, int] | None, versions: Sequence[int]) -> Place:
        """Chooses a place between writes, and keeps it until `unmark`: features can be read as they were there.

        Args:
            aims: By table, the number before which the place may not be; None for the place behind all that is noted.
            versions: The pushes behind which features can be read, in their order.
        """
        with self._lock:
            entries = list(self._entries)
            cut = len(entries) if aims is None else _first_cut(entries, aims)
            while cut < len(entries) and not _within(versions, self._behind(entries, cut), entries[cut].pushed):
                cut += 1
            numbers = dict(self._last)
            for one in reversed(entries[cut:]):
                numbers[one.table] = one.before
            # A version that ends at the last place is still to come, if it is not there.
            last = self.pushed if cut == len(entries) else entries[cut].pushed
            self._marks.append(last)
            return Place(self._behind(entries, cut), last, numbers)

    def _behind(self, entries: Sequence[Entry], cut: int) -> int:
        return max(self._least, entries[cut - 1].pushed if cut else 0)

    def unmark(self, place: Place) -> None:
        """A place is needed no more."""
        with self._lock:
            self._marks.remove(place.last)

    # -- for the engine --------------------------------------------------------------------------------------------

    def floor(self) -> int | None:
        """The push position of the oldest cut that somebody may need; None while nothing is on its way."""
        if not self._entries and not self._begun and not self._marks:
            return None
        with self._lock:
            self._prune()
            found = [*self._begun.values(), *self._marks]
            for table, followers in self._followers.items():
                position = min(one.position for one in followers)
                found += [one.pushed for one in self._entries if one.table == table and one.seq > position][:1]
            return min(found, default=None)

    def parts(self, after: int, upto: int) -> list[int]:
        """Push positions at which a batch, from `after` to `upto`, had best be parted."""
        if not self._entries and not self._marks:
            return []
        with self._lock:
            inside = {one.pushed for one in self._entries if after < one.pushed < upto and one.table in self._followers}
            if len(inside) > _MOST_PARTS:
                aims = {(table, one.aimed) for table, some in self._followers.items() for one in some}
                wanted = {
                    next((e.pushed for e in self._entries if e.table == table and e.seq >= aimed), 0)
                    for table, aimed in aims
                }
                inside &= wanted
            inside.update(one for one in self._marks if after < one < upto)
        return sorted(inside)


def _narrow(cuts: Cuts, moment: Followed) -> None:
    """Takes another moment into account."""
    low, high, inside = 0, len(cuts.entries), False
    for place, one in enumerate(cuts.entries):
        if one.table != moment.table:
            continue
        if one.seq > moment.position:
            high, inside = place, one.before < moment.position
            low = place if inside else low
            break
        low = place + 1
    if high < cuts.high:
        cuts.high, cuts.follower, cuts.inside = high, moment, inside
    elif high == cuts.high and high < len(cuts.entries):
        # Two that follow one table, and differ inside one entry: `low` is as high as it gets for neither.
        if cuts.follower is not None and cuts.follower.position != moment.position:
            behind = min(cuts.follower, moment, key=lambda one: one.position)
            cuts.follower, cuts.low = behind, high + 1
        cuts.inside = cuts.inside or inside
    cuts.low = max(cuts.low, low)


def _first_cut(entries: Sequence[Entry], aims: Mapping[str, int]) -> int:
    """How many writes come before the first place that is not before any of the aims."""
    behind = [place for place, one in enumerate(entries, 1) if one.before < aims.get(one.table, 0)]
    return behind[-1] if behind else 0


def _within(sorted_: Sequence[int], first: int, last: int) -> bool:
    place = bisect_left(sorted_, first)
    return place < len(sorted_) and sorted_[place] <= last
