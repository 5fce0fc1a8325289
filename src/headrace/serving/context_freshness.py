"""How old what a context reads may be, and how old it is.

A pack is out of date when something happened in the world that it does not tell. So what counts is how far what was
read is behind: the engine behind the input that it has, and a collection behind its table. That a customer has paid
nothing for an hour is no staleness; it is a fact, and every row says how old it is. A caller who knows that events of a
key come often may ask for more, as in a read: with `max_age` of the request itself (not of the declaration), the newest
event of each row counts as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace.errors import ClosedError
from headrace.units import SECOND, format_duration

if TYPE_CHECKING:
    from headrace.serving.live import Live
    from headrace.serving.rows import Row

# Waiting is asked anew at least this often: an engine may catch up without anything new to be seen.
_SLICE = 0.05


@dataclass(frozen=True)
class Old:
    """Something that is older than was asked for: in words, and how to wait until it may not be.

    Attributes:
        words: For the model, and for the error.
        wait: Waits so many seconds at most.
    """

    words: str
    wait: Callable[[float], Any]


@dataclass(frozen=True)
class Limit:
    """What was asked for.

    Attributes:
        max_age: In microseconds; None for any.
        rows: Whether the newest event of each row counts.
    """

    max_age: int | None
    rows: bool

    @property
    def words(self) -> str:
        return "" if self.max_age is None else f"at most {format_duration(self.max_age)} was asked for"


def behind(live: Live, limit: Limit, features: bool, collections: Sequence[str]) -> list[Old]:
    """What is further behind than it may be, asked before the read: then no newer state is taken for an old one."""
    if limit.max_age is None:
        return []
    found = []
    runner = live.runner
    lag = runner.behind() * SECOND if features else 0.0
    if lag > limit.max_age:
        words = f"the features are {_seconds(lag)} behind their events, {limit.words}"
        found.append(Old(words, lambda left: runner.wait_until(lambda: False, min(left, _SLICE))))
    for name in collections:
        late = _collection_lag(live, name)
        if late > limit.max_age:
            running = live.library.collections[name]
            why = running.trouble()
            words = f"{name} is {_seconds(late)} behind its documents, {limit.words}{f' ({why})' if why else ''}"
            seq = live.library.tables[running.collection.table.name].store.seq
            found.append(Old(words, partial(live.library.followed, name, seq)))
    return found


def old_rows(live: Live, limit: Limit, rows: Sequence[tuple[str, Row]]) -> list[Old]:
    """The rows whose newest event is older than was asked for; `rows` are with what each is called."""
    if limit.max_age is None or not limit.rows:
        return []
    found = []
    runner = live.runner
    version = runner.seen()[0]
    for name, row in rows:
        age: float | None = row.age  # type: ignore[attr-defined]  # every row class has it
        if age is not None and age * SECOND <= limit.max_age:
            continue
        is_old = "there is no event of it" if age is None else f"its newest event is {age:.1f} s old"
        words = f"{name}: {is_old}, {limit.words}"
        found.append(Old(words, lambda left: runner.wait_until(lambda: runner.seen()[0] != version, left)))
    return found


def wait(old: Sequence[Old], deadline: float) -> None:
    """Waits until something may have become fresher, or the deadline (of `time.monotonic`) has passed.

    Raises:
        ClosedError: The app was closed meanwhile.
    """
    for one in old:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        one.wait(left)


def _collection_lag(live: Live, name: str) -> float:
    """Microseconds since the oldest change was stored that the collection has not followed yet."""
    running = live.library.collections[name]
    store = live.library.tables[running.collection.table.name].store
    if running.position >= store.seq:
        return 0.0
    if running.failure is not None:
        raise ClosedError(f"the collection {name!r} has stopped: {running.failure}")
    waiting, _ = store.since(running.position, 1, 1)
    return float(max(0, live.library.now() - waiting[0].at)) if waiting else 0.0


def _seconds(micros: float) -> str:
    return f"{micros / SECOND:.1f} s"
