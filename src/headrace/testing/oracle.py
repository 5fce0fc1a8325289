"""What a view must answer, computed the slow and simple way: from the whole log of events, by the contract's words.

    from headrace.testing import oracle

    assert oracle.disagreements(Spending, events, now, "u1", row.to_dict()) == []

It shares no code with the engine: no tiles that are merged, no partials, no sketches. At `now`, a trailing aggregate
covers the events in every tile that starts after `now - over` and not after `now`; a tile starts at a multiple of
`every`. The events are taken in order of arrival, each once, and every aggregate is a few lines of Polars.

Floating-point sums depend on the order of addition, and a tile is an order of its own. What can be asked of a sum is
that its error is small against the sum of the magnitudes that were added (Higham, "The accuracy of floating point
summation", 1993): 1e16 + 1 - 1e16 may well come out as 0. So each expected value carries a `scale`, and agrees with a
value within 1e-9 of that.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import polars as pl

from headrace.errors import InputError
from headrace.features.spec import Aggregate, Derived, Feature
from headrace.features.view import View

TOLERANCE = 1e-9
_AT = "__oracle_at"
_VALUE = "__oracle_value"


@dataclass(frozen=True)
class Expected:
    """A value, and the magnitude that the error of a float is relative to."""

    value: Any
    scale: float = 0.0

    def agrees(self, actual: Any, tolerance: float = TOLERANCE) -> bool:
        """Whether a value is this one: floats within `tolerance` times the scale, all else exactly."""
        if isinstance(self.value, float) and isinstance(actual, float):
            if self.value == actual or (math.isnan(self.value) and math.isnan(actual)):
                return True
            return abs(self.value - actual) <= tolerance * max(abs(self.value), self.scale)
        if self.value is None and self.scale == math.inf:
            return actual is None or isinstance(actual, float)  # a quotient whose divisor is rounding alone
        return type(self.value) is type(actual) and bool(self.value == actual)


def answer(view: View, events: pl.DataFrame, now: int, key: Any) -> dict[str, Any]:
    """One key's features at `now`, and `as_of`: the event time in microseconds of the newest event in them.

    Args:
        view: What is asked.
        events: All events of the view's stream in order of arrival.
        now: Microseconds since the Unix epoch.
        key: A value, or a tuple for several key columns.
    """
    return {label: each.value for label, each in expected(view, events, now, key).items()}


def answers(view: View, events: pl.DataFrame, now: int, keys: Sequence[Any]) -> list[dict[str, Any]]:
    """As `answer`, for several keys in their order."""
    return [answer(view, events, now, key) for key in keys]


def expected(view: View, events: pl.DataFrame, now: int, key: Any) -> dict[str, Expected]:
    """As `answer`, with the scale of each value."""
    mine = _of_key(view, events, key)
    found = {label: _feature(feature, mine, now) for label, feature in view.features.items()}
    return {**found, "as_of": Expected(_as_of(view, mine, now))}


def disagreements(
    view: View, events: pl.DataFrame, now: int, key: Any, actual: Mapping[str, Any], tolerance: float = TOLERANCE
) -> list[str]:
    """What is wrong with values that were read; empty if they agree with the oracle.

    Args:
        actual: Features by name, and `as_of` as microseconds or a datetime. What is not in it is not compared.
    """
    wrong = []
    for label, wanted in expected(view, events, now, key).items():
        if label not in actual:
            continue
        found = actual[label]
        if label == "as_of" and isinstance(found, datetime):
            found = (found - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
        if not wanted.agrees(found, tolerance):
            wrong.append(f"{label} of {key!r} at {now}: expected {wanted.value!r}, found {found!r}")
    return wrong


def event_times(events: pl.DataFrame, time: str) -> pl.Series:
    """The event times of a frame in microseconds."""
    return events[time].cast(pl.Datetime("us", "UTC")).to_physical()


def leaves(feature: Feature | float) -> list[Aggregate]:
    """The aggregates of a feature: itself, or those that its arithmetic computes with."""
    if isinstance(feature, Aggregate):
        return [feature]
    if isinstance(feature, Derived):
        return [*leaves(feature.left), *leaves(feature.right)]
    return []


_MICROSECOND = datetime.resolution


def _of_key(view: View, events: pl.DataFrame, key: Any) -> pl.DataFrame:
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) != len(view.keys):
        raise InputError(f"{view.name}: expected {len(view.keys)} key parts {view.keys}, found {key!r}")
    for column, part in zip(view.keys, parts, strict=True):
        events = events.filter(
            pl.Series([found is not None and found == part for found in events[column].to_list()], dtype=pl.Boolean)
        )
    return events.with_columns(event_times(events, view.time).alias(_AT))


def _window(mine: pl.DataFrame, over: int | None, every: int, now: int) -> pl.DataFrame:
    if over is None:
        return mine
    start = pl.col(_AT).floordiv(every) * every
    return mine.filter((start > now - over) & (start <= now))


def _as_of(view: View, mine: pl.DataFrame, now: int) -> int | None:
    """The newest event that any aggregate's window holds, whether or not its `where` counts it."""
    spans = {(leaf.over, leaf.every) for feature in view.features.values() for leaf in leaves(feature)}
    times: list[int] = [at for over, every in spans for at in _window(mine, over, every, now)[_AT].to_list()]
    return max(times, default=None)


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _feature(feature: Feature | float, mine: pl.DataFrame, now: int) -> Expected:
    if isinstance(feature, int | float):
        return Expected(feature)
    if isinstance(feature, Aggregate):
        return _aggregate(feature, _window(mine, feature.over, feature.every, now))
    assert isinstance(feature, Derived)
    return _arithmetic(feature.op, _feature(feature.left, mine, now), _feature(feature.right, mine, now))


def _arithmetic(op: str, left: Expected, right: Expected) -> Expected:
    """The operation on both values; its scale is what both sides' errors become."""
    a, b = left.value, right.value
    if a is None or b is None:
        # Null for certain if either side is; else as uncertain as the side that a doubtful divisor made null.
        certain = any(side.value is None and side.scale < math.inf for side in (left, right))
        return Expected(None, 0.0 if certain else math.inf)
    size_a, size_b = max(abs(a), left.scale), max(abs(b), right.scale)
    if op == "add":
        return Expected(float(a + b), float(size_a + size_b))
    if op == "sub":
        return Expected(float(a - b), float(size_a + size_b))
    if op == "mul":
        return Expected(float(a * b), float(size_a * size_b))
    if isinstance(b, float) and abs(b) <= TOLERANCE * right.scale:
        # A divisor that is nothing but rounding: it may be 0 or not, and the quotient null or any number.
        return Expected(None, math.inf)
    if b == 0:
        return Expected(None)
    return Expected(float(a / b), float(size_a / abs(b) * (size_b / abs(b))))


# -- aggregates --------------------------------------------------------------------------------------------------------


def _aggregate(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    if aggregate.where is not None:
        window = window.filter(window.select(aggregate.where.fill_null(False)).to_series())
    return _KINDS[aggregate.kind](aggregate, window)


def _values(aggregate: Aggregate, window: pl.DataFrame) -> pl.Series:
    """The only column's values that are not null; a computed number that is not finite is null."""
    (expr,) = aggregate.columns.values()
    values = window.select(expr.alias(_VALUE)).to_series()
    if values.dtype.is_float():
        values = values.filter(values.is_finite())
    return values.drop_nulls()


def _numbers(aggregate: Aggregate, window: pl.DataFrame) -> pl.Series:
    values = _values(aggregate, window)
    if values.dtype == pl.Boolean:
        return values.cast(pl.Int64)
    return values.cast(pl.Float64) if values.dtype.is_float() or values.dtype.is_decimal() else values


def _total(values: pl.Series) -> Expected:
    """The sum: of integers exactly, as Python's are; of floats with the sum of magnitudes as its scale."""
    if values.dtype.is_integer():
        return Expected(builtins.sum(values.to_list()))
    return Expected(float(values.sum()), float(values.abs().sum()))


def _divided(total: Expected, by: float) -> Expected:
    return Expected(total.value / by, total.scale / by)


def _sum(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    return _total(_numbers(aggregate, window))


def _count(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    if not aggregate.columns:
        return Expected(window.height)
    (expr,) = aggregate.columns.values()
    values = window.select(expr.alias(_VALUE)).to_series()
    if values.dtype.is_float():
        values = values.filter(values.is_finite())
    return Expected(values.len() - values.null_count())


def _mean(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    values = _numbers(aggregate, window)
    return _divided(_total(values), values.len()) if values.len() else Expected(None)


def _std(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    values = _numbers(aggregate, window).cast(pl.Float64)
    if values.len() < 2:
        return Expected(None)
    spread = values.std(ddof=1)
    # Each distance from the mean is known to about the rounding of the largest value: 1e-16 of it, not 1e-9.
    return Expected(spread, 1e-5 * float(values.abs().max()))  # type: ignore[arg-type]  # there are values


def _extreme(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    values = _values(aggregate, window)
    if values.dtype == pl.Boolean:
        values = values.cast(pl.Int64)
    return Expected(values.min() if aggregate.kind == "min" else values.max())


def _rate(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    total = _total(_numbers(aggregate, window)) if aggregate.columns else Expected(window.height)
    return _divided(total, (aggregate.over or 1) / aggregate.params["per"])


def _by_time(window: pl.DataFrame) -> pl.DataFrame:
    """Events by event time; the sort is stable, so ties are by arrival."""
    return window.sort(_AT, maintain_order=True)


def _first(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    values = _by_time(window).select(*aggregate.columns.values()).to_series().to_list()
    return Expected(_plain(values[0]) if values else None)


def _last(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    values = _by_time(window).select(*aggregate.columns.values()).to_series().to_list()
    return Expected(_plain(values[-1]) if values else None)


def _latest(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    columns = aggregate.columns or {name: pl.col(name) for name in window.columns if name != _AT}
    rows = _by_time(window).select(**columns).rows(named=True)
    newest = [{name: _plain(value) for name, value in row.items()} for row in rows[::-1][: aggregate.params["n"]]]
    return Expected(newest or None)


def _plain(value: Any) -> Any:
    """A value as it is answered: a computed number that is not finite is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _distinct(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    return Expected(_values(aggregate, window).n_unique())


def _quantile(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    values = _numbers(aggregate, window).cast(pl.Float64)
    if not values.len():
        return Expected(None)
    found = values.quantile(aggregate.params["q"], interpolation=aggregate.params["interpolation"])
    # Between two neighbours of opposite sign the interpolated value may be far smaller than either.
    between = aggregate.params["interpolation"] in ("linear", "midpoint")
    return Expected(found, float(values.abs().max()) if between else 0.0)  # type: ignore[arg-type]


def _top(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    counts: dict[Any, int] = {}
    for value in _values(aggregate, window).to_list():
        counts[value] = counts.get(value, 0) + 1
    best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: aggregate.params["n"]]
    return Expected([{"value": value, "count": count} for value, count in best] or None)


def _histogram(aggregate: Aggregate, window: pl.DataFrame) -> Expected:
    values = _numbers(aggregate, window)
    edges = [-math.inf, *aggregate.params["bins"], math.inf]
    return Expected(
        [int(((values >= low) & ((values < high) | (high == math.inf))).sum()) for low, high in pairwise(edges)]
    )


_KINDS: dict[str, Callable[[Aggregate, pl.DataFrame], Expected]] = {
    "sum": _sum,
    "count": _count,
    "mean": _mean,
    "std": _std,
    "min": _extreme,
    "max": _extreme,
    "rate": _rate,
    "first": _first,
    "last": _last,
    "latest": _latest,
    "distinct": _distinct,
    "quantile": _quantile,
    "top": _top,
    "histogram": _histogram,
}
