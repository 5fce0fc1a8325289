"""Reading at one point: features, collections and tables as they were between the same two writes.

Collections lag behind their tables, features do not. So the moments of the collections say where the cut can be (see
`headrace.runners.order`), and features are read as they were at that cut, from the engine's last commits; reading waits
for nothing as long as there is such a cut. Where there is none, one is made: all hand over what they have as they pass
a place that the read names (see `headrace.runners.meetings`). Who does not come there in time is too far behind; then
the newest of each is read, and the point says so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace.errors import ClosedError, StaleError, UnknownNameError, nearest
from headrace.features.versions import Frozen, freeze
from headrace.features.view import View
from headrace.runners.base import PUSH
from headrace.runners.history import Historic, Version
from headrace.runners.order import Cuts, Followed, Hindrance, Place
from headrace.runners.progress import reached
from headrace.serving import documents
from headrace.serving.read_point import ReadPoint
from headrace.serving.token import Token, token_text

if TYPE_CHECKING:
    from headrace.features.read import Values
    from headrace.runners.engine import Engine
    from headrace.runners.library.collection import LiveCollection
    from headrace.runners.library.search import Held
    from headrace.serving.live import Live

# Seconds for which a cut is waited for, before the newest of each is read.
PATIENCE = 0.5
# How often features are read again that changed meanwhile, where no lock is at hand.
_TRIES = 5
_ASKED = "the newest of each was asked for"
_ELSEWHERE = "this runner keeps its features in another process"
Lookups = Sequence[tuple[View, Any]]


@contextlib.contextmanager
def point(
    live: Live,
    lookups: Lookups,
    collections: Sequence[str],
    tables: Sequence[str],
    *,
    after: Token | str | None = None,
    timeout: float = 10.0,
    consistent: bool = True,
    patience: float | None = PATIENCE,
    now: datetime | int | None = None,
) -> Iterator[ReadPoint]:
    """Reads all at one point; collections are held there for as long as the block takes.

    Args:
        live: The running app.
        lookups: Views and keys.
        collections: The names of the collections that will be searched.
        tables: The names of the tables whose number is asked for.
        after: Wait until the point is behind the write that returned this token.
        timeout: How many seconds to wait for that.
        consistent: Whether to look for one point; else the newest of each is read.
        patience: How many seconds to wait for one point, within `timeout`, before the newest of each is read; None
            waits for all of `timeout`, and then raises.
        now: Read features as of this moment instead.

    Raises:
        UnknownNameError: There is no such view, collection or table.
        InputError: A key, the token or `now` cannot be used.
        StaleError: What was waited for did not come in time.
    """
    with contextlib.ExitStack() as stack:
        yield _Reading(live, lookups, collections, tables, after, timeout, now).read(stack, consistent, patience)


class _Reading:
    """One read: what is asked for, and until when."""

    def __init__(
        self,
        live: Live,
        lookups: Lookups,
        collections: Sequence[str],
        tables: Sequence[str],
        after: Token | str | None,
        timeout: float,
        now: datetime | int | None,
    ) -> None:
        self._live = live
        self._runner = live._runner
        views = [live.app.view_of(view) for view, _ in lookups]
        keys = ((view, key) for view, (_, key) in zip(views, lookups, strict=True))
        self._lookups = [(view, key if type(key) is view.plain_key else view.key(key)) for view, key in keys]
        self._collections = sorted(set(collections))
        self._tables = _tables(live, self._collections, tables)
        self._after = None if after is None else Token.parse(after)
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._nows = [live._moment(view, now) for view in views]
        if self._nows:
            self._nows = [self._nows[0] if one is not None else None for one in self._nows]
        self._engine = self._runner.engine if isinstance(self._runner, Historic) else None

    def read(self, stack: contextlib.ExitStack, consistent: bool, patience: float | None) -> ReadPoint:
        """The point; the stack then holds what has to be let go of."""
        self._runner.alive()
        self._reach()
        if self._lookups and self._collections and isinstance(self._runner, Historic):
            self._runner.keep_history()
        if not consistent:
            return self._newest(self._hold(stack), _ASKED)
        with contextlib.ExitStack() as held:
            found = self._try(self._hold(held))
            if isinstance(found, ReadPoint):
                stack.push(held.pop_all())
                return found
        insists = patience is None or found.token
        end = self._deadline if patience is None or insists else min(self._deadline, time.monotonic() + patience)
        near = self._after is None
        while (why := self._never()) is None and time.monotonic() < end:
            found = self._meet(stack, end, near=near)
            if isinstance(found, ReadPoint):
                return found
            near = False
        if insists and why is None:
            what = "behind the write of the token " if found.token else ""
            raise StaleError(f"expected one point {what}within {self._timeout} s; {found.why}")
        return self._newest(self._hold(stack), why or found.why)

    def _reach(self) -> None:
        """Waits until the newest of each has seen the token's write, and of what is read together all before it."""
        if self._after is None:
            return
        if self._lookups:
            self._live._wait(self._after, self._timeout)
        if not self._collections:
            return
        library = self._live.library
        for name in self._collections:
            documents.wait(library, library.collections[name].collection, self._after, self._left())
        if self._lookups and self._engine is not None:
            self._reach_before(self._engine, self._after)

    def _reach_before(self, engine: Engine, after: Token) -> None:
        """Also where no point is found: whoever has a token made the writes before it, or knows of them."""
        library, prefix = self._live.library, documents.position_of("")
        tables = {name.removeprefix(prefix): at for name, at in after.positions.items() if documents.of_table(name)}
        pushed, numbers = library.order.before(after.positions.get(PUSH, 0), tables)
        done = self._runner.wait_until(lambda: engine.applied.get(PUSH, 0) >= pushed, self._left())
        for name in self._collections:
            wanted = numbers.get(library.collections[name].collection.table.name, 0)
            done = done and library.followed(name, wanted, self._left())
        if not done:
            raise StaleError(
                f"expected to be behind the write of the token within {self._timeout} s; it is not yet seen"
            )

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _hold(self, stack: contextlib.ExitStack) -> dict[str, Held]:
        """Moments of all collections, always in the same order: there is a most of them that can be held."""
        if not self._collections:
            return {}
        from headrace.runners.library.search import held

        library = self._live.library
        return {name: stack.enter_context(held(library.collections[name], self._left())) for name in self._collections}

    # -- one point -------------------------------------------------------------------------------------------------

    def _try(self, held: dict[str, Held]) -> ReadPoint | Hindrance:
        for name, one in held.items():
            if one.position < one.live.ahead:
                return Hindrance(f"{name} is between two changes of one document")
        if not self._lookups or self._engine is None:
            # With the features in another process: one version of them, or one point of collections.
            cuts = self._cuts(held)
            if isinstance(cuts, Hindrance):
                return cuts
            return Hindrance(_ELSEWHERE) if self._lookups else self._made(held, {}, [], *self._numbers(cuts, cuts.high))
        engine = self._engine
        with engine.lock:
            # Under the lock: whatever a commit has seen is noted in the order by now.
            cuts = self._cuts(held)
            if isinstance(cuts, Hindrance):
                return cuts
            chosen = self._version(cuts)
            if isinstance(chosen, Hindrance):
                return chosen
            version, cut = chosen
            frozen = self._frozen(engine, version)
        return self._made(held, version.seen, _finished(frozen), *self._numbers(cuts, cut))

    def _frozen(self, engine: Engine, version: Version) -> list[Frozen | Values]:
        """The features at a version; the engine is locked."""
        found: list[Frozen | Values] = []
        for (view, key), now in zip(self._lookups, self._nows, strict=True):
            machine = engine.machines[view.name]
            if version.back and engine.history is not None:
                found.append(freeze(machine, key, engine.history.undos(view.name, version.back), now))
            else:
                found.append(machine.read(key, now))
        return found

    def _cuts(self, held: dict[str, Held]) -> Cuts | Hindrance:
        if not self._tables:
            return Cuts.free()
        followed = [Followed(name, one.live.collection.table.name, one.position) for name, one in held.items()]
        return self._live.library.order.cuts(followed)

    def _version(self, cuts: Cuts) -> tuple[Version, int] | Hindrance:
        """The newest version that fits, and the cut."""
        assert self._engine is not None
        engine = self._engine
        for version in _versions(engine):
            cut = cuts.at(version.pushed)
            if cut is not None:
                return version, cut
            if version.pushed < cuts.needed:
                break
        if engine.applied.get(PUSH, 0) < cuts.needed:
            return Hindrance("features are behind what the collections have seen")
        return cuts.behind("the last commits do not reach back to it")

    def _numbers(self, cuts: Cuts, cut: int) -> tuple[dict[str, int], Hindrance]:
        """The numbers of the tables at a cut, and what is wrong if the token's are later."""
        late = cuts.behind("a point behind the token's write waits for it", token=True)
        return {name: cuts.seq(name, cut) for name in self._tables}, late

    def _made(
        self,
        held: Mapping[str, Held],
        seen: Mapping[str, Any],
        values: Sequence[Values],
        numbers: Mapping[str, int],
        late: Hindrance,
    ) -> ReadPoint | Hindrance:
        numbers = {**numbers, **{one.live.collection.table.name: one.position for one in held.values()}}
        if self._after is not None:
            for name, wanted in self._after.positions.items():
                if documents.of_table(name):
                    number = numbers.get(name.removeprefix(documents.position_of("")))
                    missing = number is not None and number < wanted
                else:
                    missing = bool(self._lookups) and not reached(seen.get(name), wanted)
                if missing:
                    return late
        return self._point(held, seen, values, numbers, "")

    # -- where there is none ---------------------------------------------------------------------------------------

    def _never(self) -> str | None:
        """Why waiting for a point does not help, if it does not."""
        self._runner.alive()
        if self._lookups and self._engine is None:
            return _ELSEWHERE
        # A collection that has stopped is still searched as it is.
        return next((why for one in self._followers() if (why := one.stopped) is not None), None)

    def _followers(self) -> list[LiveCollection]:
        return [self._live.library.collections[name] for name in self._collections]

    def _meet(self, stack: contextlib.ExitStack, end: float, *, near: bool) -> ReadPoint | Hindrance:
        """A point where all meet, the first or behind what is written by now; or why there is none at that time."""
        meetings = self._live.library.meetings
        with meetings.meet(self._collections, near=near) as meeting, contextlib.ExitStack() as kept:
            kept.enter_context(meeting.used())
            if not meetings.wait(meeting, end) or meeting.place is None:
                late = ", ".join(meeting.missing()) or "another read"
                return Hindrance(f"{late} did not come in time to the place where all would be read")
            if meeting.failed:
                self._settle(end)
                return Hindrance(meeting.failed)
            version, values = self._features_at(meeting.place, end)
            if isinstance(values, Hindrance):
                return values
            held = {name: meeting.moments[name] for name in self._collections}
            numbers = {name: meeting.place.numbers[name] for name in self._tables}
            made = self._made(
                held, version, values, numbers, Hindrance("the token's write is still to come", token=True)
            )
            if isinstance(made, ReadPoint):
                stack.push(kept.pop_all())
            return made

    def _features_at(self, place: Place, end: float) -> tuple[Mapping[str, Any], list[Values] | Hindrance]:
        """What has been seen at a place, and the features there; or why they cannot be had."""
        engine = self._engine
        if not self._lookups or engine is None:
            return {}, []
        # At the last place there is nothing yet to go back to: a version that ends there is made.
        if not self._runner.wait_until(lambda: _reaches(engine, place), max(0.0, end - time.monotonic())):
            return {}, Hindrance("the features did not come in time to the place where all would be read")
        with engine.lock:
            version = next((one for one in _versions(engine) if one.pushed <= place.last), None)
            if version is None or version.pushed < place.first:
                return {}, Hindrance("the last commits do not reach back to the place where all would be read")
            frozen = self._frozen(engine, version)
        return version.seen, _finished(frozen)

    def _settle(self, end: float) -> None:
        """Waits until collections show no rows newer than they say."""
        for one in self._followers():
            with contextlib.suppress(ClosedError):  # who asks next is told
                one.wait(partial(_is_whole, one), max(0.0, end - time.monotonic()))

    def _newest(self, held: dict[str, Held], why: str) -> ReadPoint:
        """The newest of each."""
        numbers = {name: self._live.library.tables[name].store.seq for name in self._tables}
        numbers |= {one.live.collection.table.name: one.position for one in held.values()}
        if not self._lookups:
            return self._point(held, {}, [], numbers, why)
        if self._engine is not None:
            with self._engine.lock:
                newest = Version(self._engine.applied, 0)
                frozen = self._frozen(self._engine, newest)
            return self._point(held, newest.seen, _finished(frozen), numbers, why)
        for _ in range(_TRIES):
            before, seen = self._runner.seen()
            values = [
                self._runner.store.read(view.name, key, now)
                for (view, key), now in zip(self._lookups, self._nows, strict=True)
            ]
            if self._runner.seen()[0] == before:
                break
        return self._point(held, seen, values, numbers, why)

    # -- what is handed out ----------------------------------------------------------------------------------------

    def _point(
        self,
        held: Mapping[str, Held],
        seen: Mapping[str, Any],
        values: Sequence[Values],
        numbers: Mapping[str, int],
        why: str,
    ) -> ReadPoint:
        live = self._live
        positions = {**seen, **{documents.position_of(name): number for name, number in numbers.items()}}
        token, lagging = token_text(positions), live.lagging()
        makers = live._makers
        rows = [
            makers[view.name].one(key, one, token, lagging)
            for (view, key), one in zip(self._lookups, values, strict=True)
        ]
        newest = [row.as_of for row in rows if row.as_of is not None]  # type: ignore[attr-defined]  # every row class
        ages = live.app.clock.now()
        now = max((one.now for one in values if one.now is not None), default=0 if live.app.event_time else ages)
        return ReadPoint(rows, positions, token, not why, why, now, lagging, max(newest, default=None), held, ages)


def _finished(frozen: Sequence[Frozen | Values]) -> list[Values]:
    return [one.finish() if isinstance(one, Frozen) else one for one in frozen]


def _reaches(engine: Engine, place: Place) -> bool:
    """Whether features have come to a place, between its first push and its last."""
    return bool(engine.applied.get(PUSH, 0) >= place.first)


def _is_whole(one: LiveCollection) -> bool:
    """Whether a collection shows no rows newer than it says."""
    return one.position >= one.ahead


def _versions(engine: Engine) -> Iterator[Version]:
    """What can be read, the newest first."""
    history = engine.history
    return iter([Version(engine.applied, 0)]) if history is None else history.versions(engine.applied)


def _tables(live: Live, collections: Sequence[str], tables: Sequence[str]) -> list[str]:
    """The tables of these names, and those that the collections follow."""
    if not collections and not tables:
        return []
    library = live.library
    for names, known, what in ((collections, library.collections, "collection"), (tables, library.tables, "table")):
        for name in names:
            if name not in known:
                raise UnknownNameError(f"there is no {what} {name!r}; {nearest(name, known)}")
    return sorted({*tables, *(library.collections[name].collection.table.name for name in collections)})
