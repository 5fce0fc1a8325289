"""Reading at one point: features, collections and tables as they were between the same two writes.

Collections lag behind their tables, features do not. So the moments of the collections say where the cut can be (see
`headrace.runners.order`), and features are read as they were at that cut, from the engine's last commits; reading waits
for nothing as long as there is such a cut. Where there is none, it is tried again when whoever is in the way has come
further, for a short while; then the newest of each is read, and the point says so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.errors import ClosedError, StaleError, UnknownNameError, nearest
from headrace.features.versions import Frozen, freeze
from headrace.features.view import View
from headrace.runners.base import PUSH
from headrace.runners.history import Historic, Version
from headrace.runners.order import Cuts, Followed, Hindrance
from headrace.runners.progress import reached
from headrace.serving import documents
from headrace.serving.rows import Row
from headrace.serving.token import Token, token_text

if TYPE_CHECKING:
    from headrace.features.read import Values
    from headrace.runners.library.hits import Hit
    from headrace.runners.library.search import Asked, Held
    from headrace.serving.live import Live

# Seconds for which a cut is looked for, before the newest of each is read.
PATIENCE = 0.25
# How often features are read again that changed meanwhile, where no lock is at hand.
_TRIES = 5
_ASKED = "the newest of each was asked for"
Lookups = Sequence[tuple[View, Any]]


@dataclass
class ReadPoint:
    """What was read, and what can be searched for as long as the block of `point` lasts.

    Attributes:
        rows: The features, in the order in which they were asked for.
        positions: What has been seen, by source and table, as plain JSON.
        token: The same as a token.
        consistent: Whether all is at one point: every write before it is seen, and none after it.
        why: Why it is not; empty if it is.
        now: The moment of the read, microseconds since the Unix epoch.
        lagging: Whether the engine is further behind its input than the app allows.
        as_of: The newest event time in the rows.
    """

    rows: list[Row]
    positions: dict[str, Any]
    token: str
    consistent: bool
    why: str
    now: int
    lagging: bool
    as_of: datetime | None
    _held: Mapping[str, Held] = field(default_factory=dict, repr=False)
    _ages: int = field(default=0, repr=False)

    def search(self, collection: str, asked: Asked) -> list[Hit]:
        """The best chunks of a collection at this point. Threads may search at the same time."""
        if collection not in self._held:
            raise UnknownNameError(f"the point does not hold the collection {collection!r}; name it when reading")
        return self._held[collection].search(asked, self._ages)

    def table_seq(self, table: str) -> int:
        """The number of a table's last change at this point."""
        found = self.positions.get(documents.position_of(table))
        if not isinstance(found, int):
            raise UnknownNameError(f"the point does not hold the table {table!r}; name it when reading")
        return found


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
        now: Read features as of this moment instead.

    Raises:
        UnknownNameError: There is no such view, collection or table.
        InputError: A key, the token or `now` cannot be used.
        StaleError: What was waited for did not come in time.
    """
    with contextlib.ExitStack() as stack:
        yield _Reading(live, lookups, collections, tables, after, timeout, now).read(stack, consistent)


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

    def read(self, stack: contextlib.ExitStack, consistent: bool) -> ReadPoint:
        """The point; the stack then holds what has to be let go of."""
        self._runner.alive()
        self._reach()
        if self._lookups and self._collections and isinstance(self._runner, Historic):
            self._runner.keep_history()
        end = min(self._deadline, time.monotonic() + PATIENCE)
        why = _ASKED
        while consistent:
            with contextlib.ExitStack() as held:
                found = self._try(self._hold(held))
                if isinstance(found, ReadPoint):
                    stack.push(held.pop_all())
                    return found
            why = found.why
            left = (self._deadline if found.token else end) - time.monotonic()
            if left > 0 and self._wait(found, left):
                continue
            if found.token:
                raise StaleError(f"expected a point behind the write of the token within {self._timeout} s; {why}")
            break
        return self._newest(self._hold(stack), why)

    def _reach(self) -> None:
        """Waits until the newest of each has seen the token's write."""
        if self._after is None:
            return
        if self._lookups:
            self._live._wait(self._after, self._timeout)
        if not self._collections:
            return
        library = self._live.library
        for name in self._collections:
            left = max(0.0, self._deadline - time.monotonic())
            documents.wait(library, library.collections[name].collection, self._after, left)

    def _hold(self, stack: contextlib.ExitStack) -> dict[str, Held]:
        """Moments of all collections, always in the same order: there is a most of them that can be held."""
        if not self._collections:
            return {}
        from headrace.runners.library.search import held

        library, left = self._live.library, max(0.0, self._deadline - time.monotonic())
        return {name: stack.enter_context(held(library.collections[name], left)) for name in self._collections}

    # -- one point -------------------------------------------------------------------------------------------------

    def _try(self, held: dict[str, Held]) -> ReadPoint | Hindrance:
        for name, one in held.items():
            if one.position < (ahead := one.live.ahead):
                return Hindrance(f"{name} is between two changes of one document", name, ahead)
        if self._engine is None:
            return self._try_elsewhere(held)
        if not self._lookups:
            cuts = self._cuts(held)
            return cuts if isinstance(cuts, Hindrance) else self._made(held, {}, [], cuts, cuts.high)
        frozen: list[Frozen | Values] = []
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
            for (view, key), now in zip(self._lookups, self._nows, strict=True):
                machine = engine.machines[view.name]
                if version.back and engine.history is not None:
                    frozen.append(freeze(machine, key, engine.history.undos(view.name, version.back), now))
                else:
                    frozen.append(machine.read(key, now))
        values = [one.finish() if isinstance(one, Frozen) else one for one in frozen]
        return self._made(held, version.seen, values, cuts, cut)

    def _cuts(self, held: dict[str, Held]) -> Cuts | Hindrance:
        if not self._tables:
            return Cuts.free()
        followed = [Followed(name, one.live.collection.table.name, one.position) for name, one in held.items()]
        return self._live.library.order.cuts(followed)

    def _version(self, cuts: Cuts) -> tuple[Version, int] | Hindrance:
        """The newest version that fits, and the cut."""
        assert self._engine is not None
        engine, history = self._engine, self._engine.history
        found = iter([Version(engine.applied, 0)]) if history is None else history.versions(engine.applied)
        for version in found:
            cut = cuts.at(version.pushed)
            if cut is not None:
                return version, cut
            if version.pushed < cuts.needed:
                break
        if engine.applied.get(PUSH, 0) < cuts.needed:
            return Hindrance("features are behind what the collections have seen", "", cuts.needed)
        return cuts.behind("the last commits do not reach back to it")

    def _made(
        self, held: dict[str, Held], seen: Mapping[str, Any], values: Sequence[Values], cuts: Cuts, cut: int
    ) -> ReadPoint | Hindrance:
        numbers = {name: cuts.seq(name, cut) for name in self._tables}
        numbers |= {one.live.collection.table.name: one.position for one in held.values()}
        if self._after is not None:
            for name, wanted in self._after.positions.items():
                if documents.of_table(name):
                    number = numbers.get(name.removeprefix(documents.position_of("")))
                    missing = number is not None and number < wanted
                else:
                    missing = bool(self._lookups) and not reached(seen.get(name), wanted)
                if missing:
                    return cuts.behind("a point behind the token's write waits for it", token=True)
        return self._point(held, seen, values, numbers, "")

    # -- where there is none ---------------------------------------------------------------------------------------

    def _try_elsewhere(self, held: dict[str, Held]) -> ReadPoint | Hindrance:
        """With the features in another process: one version of them, or one point of collections."""
        cuts = self._cuts(held)
        if isinstance(cuts, Hindrance):
            return cuts
        if not self._lookups:
            return self._made(held, {}, [], cuts, cuts.high)
        return Hindrance(f"the runner {self._live.app.runner!r} keeps its features elsewhere", "", -1)

    def _newest(self, held: dict[str, Held], why: str) -> ReadPoint:
        """The newest of each."""
        numbers = {name: self._live.library.tables[name].store.seq for name in self._tables}
        numbers |= {one.live.collection.table.name: one.position for one in held.values()}
        if not self._lookups:
            return self._point(held, {}, [], numbers, why)
        if self._engine is not None:
            with self._engine.lock:
                seen: Mapping[str, Any] = self._engine.applied
                machines = self._engine.machines
                values = [
                    machines[view.name].read(key, now)
                    for (view, key), now in zip(self._lookups, self._nows, strict=True)
                ]
            return self._point(held, seen, values, numbers, why)
        for _ in range(_TRIES):
            before, seen = self._runner.seen()
            values = [
                self._runner.store.read(view.name, key, now)
                for (view, key), now in zip(self._lookups, self._nows, strict=True)
            ]
            if self._runner.seen()[0] == before:
                break
        return self._point(held, seen, values, numbers, why)

    def _wait(self, hindrance: Hindrance, timeout: float) -> bool:
        """Waits until what is in the way has come further; False if waiting does not help."""
        try:
            if hindrance.noted:
                return self._live.library.order.wait(hindrance.name, hindrance.upto, timeout)
            if hindrance.name:
                return self._live.library.followed(hindrance.name, hindrance.upto, timeout)
            engine = self._engine
            if engine is None or hindrance.upto < 0:
                return False
            return self._runner.wait_until(lambda: engine.applied.get(PUSH, 0) >= hindrance.upto, timeout)
        except ClosedError:
            # A collection that has stopped is still searched as it is.
            self._runner.alive()
            return False

    # -- what is handed out ----------------------------------------------------------------------------------------

    def _point(
        self,
        held: dict[str, Held],
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
