"""Hypothesis strategies for what streams bring: events in any order and of any value, cuts into batches, crashes.

    from headrace.testing import strategies

    @given(events=strategies.events(Schema.of(Payment), keys={"user_id": ["u1", "u2"]}), data=st.data())
    def test_cutting(events, data):
        batches = strategies.cut(events, data.draw(strategies.cuts(events.height)))

The times lie close together and often on the edges of tiles, where windows go wrong; some lie far off, as after a
silence. Values mix the ordinary with the extreme. Rows come out of order, more than once, and with nulls where a column
may be null. What fails shrinks to few rows, early times and plain values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import polars as pl
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from headrace.errors import ConfigError
from headrace.schema import Schema
from headrace.units import DAY, HOUR, MAX_TIME, MIN_TIME, MINUTE, from_micros

# The ends of int64 mark nothing-yet inside the engine, so a stream's integers stop one short of them.
MAX_INT = 2**63 - 2
# The square of this, summed over thousands of events, is still a float: a standard deviation of it exists.
MAX_FLOAT = 1e150
START = 1_700_000_000 * 1_000_000

_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.1, 1e16, -1e16, 1e-300, 5e-324, MAX_FLOAT, -MAX_FLOAT)
_INTS = (0, 1, -1, 2**31, 2**32, -(2**32), 2**53 + 1, MAX_INT, -MAX_INT)


def values(dtype: pl.DataType) -> SearchStrategy[Any]:
    """Python values that a column of a type can hold, the extreme ones often.

    Raises:
        ConfigError: No strategy for that type; give one in `values_of=`.
    """
    if isinstance(dtype, pl.List):
        return st.lists(values(_instance(dtype.inner)), max_size=3)
    if isinstance(dtype, pl.Struct):
        return st.fixed_dictionaries({field.name: values(_instance(field.dtype)) for field in dtype.fields})
    if dtype.is_float():
        return st.sampled_from(_FLOATS) | st.floats(-1000, 1000, width=32) | st.floats(-MAX_FLOAT, MAX_FLOAT)
    if dtype == pl.Int64:
        return st.integers(-10, 10) | st.sampled_from(_INTS) | st.integers(-MAX_INT, MAX_INT)
    if isinstance(dtype, pl.Datetime):
        return st.integers(MIN_TIME, MAX_TIME).map(from_micros)
    simple: dict[Any, SearchStrategy[Any]] = {
        pl.String: st.sampled_from(("", "a", "b", "ä", "\N{GRINNING FACE}")) | st.text(max_size=4),
        pl.Boolean: st.booleans(),
        pl.Date: st.dates(date(1, 1, 2), date(9999, 12, 30)),
        pl.Time: st.times().map(lambda moment: moment.replace(fold=0)),
        pl.Binary: st.binary(max_size=4),
    }
    if type(dtype) not in simple:
        raise ConfigError(f"expected a column type that a stream can have, found {dtype}; give its values yourself")
    return simple[type(dtype)]


def times(
    start: int = START, *, spread: int = 2 * HOUR, tiles: Collection[int] = (MINUTE,), far: int = 3 * DAY
) -> SearchStrategy[int]:
    """Event times in microseconds: around `start`, often on the edges of tiles, seldom far off.

    Args:
        start: Around which moment; also negative, for the time before 1970.
        spread: Most lie at most this far from it.
        tiles: Widths of tiles whose edges are hit.
        far: How far off the others lie, as when a key falls silent and comes back.
    """
    ways = [st.integers(start - spread, start + spread)]
    for width in tiles:
        near = st.integers((start - spread) // width, (start + spread) // width)
        ways.append(st.builds(lambda tile, by, width=width: tile * width + by, near, st.sampled_from((0, -1, 1))))
    ways.append(st.builds(lambda by, at: at + by, st.sampled_from((-far, far)), st.integers(start, start + spread)))
    return st.one_of(ways)


def events(
    columns: Schema | Mapping[str, pl.DataType],
    *,
    time: str | None = None,
    at: SearchStrategy[int] | None = None,
    keys: Mapping[str, Sequence[Any]] | None = None,
    values_of: Mapping[str, SearchStrategy[Any]] | None = None,
    nullable: Collection[str] | None = None,
    min_rows: int = 0,
    max_rows: int = 30,
) -> SearchStrategy[pl.DataFrame]:
    """A frame of events in order of arrival: out of order in time, some of them twice, some columns null.

    Args:
        columns: A stream's schema, or column types by name.
        time: The event-time column; of a schema, its own.
        at: Event times in microseconds; `times()` if not given.
        keys: The values that key columns take: few, so that keys meet again.
        values_of: Strategies for the values of other columns, in place of `values`.
        nullable: Columns that may be null; of a schema, the optional ones.
        min_rows: At least so many events.
        max_rows: At most so many, repetitions not counted.

    Raises:
        ConfigError: No event-time column is named, or no strategy is known for a column's type.
    """
    types, time, optional = _columns(columns, time, nullable)
    given = {time: times() if at is None else at, **(values_of or {})}
    ways = {name: given[name] if name in given else values(dtype) for name, dtype in types.items()}
    ways |= {name: st.sampled_from(list(of_key)) for name, of_key in (keys or {}).items() if name in types}
    ways = {name: st.none() | way if name in optional else way for name, way in ways.items()}
    ways[time] = ways[time].map(from_micros)
    rows = st.lists(st.tuples(*(ways[name] for name in types)), min_size=min_rows, max_size=max_rows)
    return _frames(types, rows)


@st.composite
def _frames(draw: DrawFn, types: dict[str, pl.DataType], listed: SearchStrategy[list[Any]]) -> pl.DataFrame:
    rows = draw(listed)
    for again in draw(st.lists(st.integers(0, 99), max_size=3)) if rows else []:
        # A sender that was not sure sends once more: the same event later on.
        rows.append(rows[again % len(rows)])
    return pl.DataFrame(rows, schema=types, orient="row")


def cuts(rows: int, *, most: int = 6) -> SearchStrategy[list[int]]:
    """Where to cut so many rows into batches; the same place twice makes an empty one."""
    return st.lists(st.integers(0, rows), max_size=most).map(sorted)


def cut(frame: pl.DataFrame, places: Sequence[int]) -> list[pl.DataFrame]:
    """The batches that `cuts` makes of a frame."""
    bounds = [0, *places, frame.height]
    return [frame[low:high] for low, high in pairwise(bounds)]


def crashes(steps: int, *, most: int = 3) -> SearchStrategy[frozenset[int]]:
    """After which of so many steps all that is in memory is lost."""
    if steps == 0:
        return st.just(frozenset())
    return st.frozensets(st.integers(0, steps - 1), max_size=most)


def _columns(
    columns: Schema | Mapping[str, pl.DataType], time: str | None, nullable: Collection[str] | None
) -> tuple[dict[str, pl.DataType], str, set[str]]:
    if isinstance(columns, Schema):
        optional = {field.name for field in columns.fields if field.nullable} if nullable is None else set(nullable)
        return columns.columns, time or columns.time, optional
    if time is None or time not in columns:
        raise ConfigError(f"expected time= to name the event-time column among {list(columns)}, found {time!r}")
    return dict(columns), time, set(nullable or ())


def _instance(dtype: Any) -> pl.DataType:
    made: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return made


__all__ = ["MAX_FLOAT", "MAX_INT", "START", "crashes", "cut", "cuts", "events", "times", "values"]
