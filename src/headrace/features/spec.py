"""What a user writes: aggregates over a trailing window, and arithmetic between them, as frozen data.

An aggregate names a column (or a Polars expression), how far back it looks (`over`), the width of its tiles
(`every`) and which events count (`where`). It computes nothing; `plan` turns a class of them into tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal

import polars as pl

from headrace.errors import ConfigError
from headrace.units import duration, format_duration, round_tile

Column = str | pl.Expr
Length = str | timedelta | int | float
Interpolation = Literal["nearest", "linear", "lower", "higher", "midpoint"]
_SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


class Feature:
    """A value of a view: an aggregate, or arithmetic between features and numbers."""

    def __add__(self, other: Feature | float) -> Derived:
        return Derived("add", self, _operand(other))

    def __radd__(self, other: float) -> Derived:
        return Derived("add", _operand(other), self)

    def __sub__(self, other: Feature | float) -> Derived:
        return Derived("sub", self, _operand(other))

    def __rsub__(self, other: float) -> Derived:
        return Derived("sub", _operand(other), self)

    def __mul__(self, other: Feature | float) -> Derived:
        return Derived("mul", self, _operand(other))

    def __rmul__(self, other: float) -> Derived:
        return Derived("mul", _operand(other), self)

    def __truediv__(self, other: Feature | float) -> Derived:
        return Derived("div", self, _operand(other))

    def __rtruediv__(self, other: float) -> Derived:
        return Derived("div", _operand(other), self)

    def __neg__(self) -> Derived:
        return Derived("sub", 0, self)

    def describe(self) -> str:
        """One phrase that tells a model what the value is."""
        raise TypeError(f"{type(self).__name__} is not a feature that can be described")


@dataclass(frozen=True, eq=False)
class Derived(Feature):
    """Arithmetic between features; null where an operand is null, and where the divisor is 0."""

    op: Literal["add", "sub", "mul", "div"]
    left: Feature | float
    right: Feature | float

    def describe(self) -> str:
        sides = [f"({side.describe()})" if isinstance(side, Feature) else str(side) for side in self.operands]
        return f" {_SYMBOLS[self.op]} ".join(sides)

    @property
    def operands(self) -> tuple[Feature | float, Feature | float]:
        return self.left, self.right


@dataclass(frozen=True, eq=False)
class Aggregate(Feature):
    """One aggregate over a trailing window.

    Attributes:
        kind: "sum", "count", "mean", ….
        columns: What is aggregated, by output name; empty for a plain count.
        over: How far back it looks, in microseconds; None for all time.
        every: The width of its tiles, in microseconds; 0 for all time.
        where: Which events count; None for all.
        params: What else the kind needs: `n`, `q`, `bins`, ….
    """

    kind: str
    columns: dict[str, pl.Expr]
    over: int | None
    every: int
    where: pl.Expr | None
    params: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        what = ", ".join(self.columns)
        phrase = {
            "count": f"number of events with {what}" if what else "number of events",
            "rate": f"{what or 'events'} per {format_duration(self.params.get('per', 1_000_000))}",
            "std": f"sample standard deviation of {what}",
            "distinct": f"number of distinct values of {what}",
            "quantile": f"{self.params.get('q', 0):g}-quantile of {what}",
            "top": f"the {self.params.get('n')} most frequent values of {what}, with counts",
            "histogram": f"counts of {what} below, between and from the edges {self.params.get('bins')}",
            "latest": f"the latest {self.params.get('n')} events ({what}), newest first",
        }.get(self.kind, f"{self.kind} of {what}")
        span = f" over the last {format_duration(self.over)}" if self.over else ", of all time"
        return f"{phrase}{span}" + (f", where {readable(self.where)}" if self.where is not None else "")


def readable(expr: pl.Expr) -> str:
    """An expression as a person writes it: `kind == "sale" & amount > 10` for Polars' bracketed form."""
    text = re.sub(r'col\("([^"]*)"\)', r"\1", str(expr))
    text = re.sub(r"dyn (?:int|float|str): ", "", text)
    text = re.sub(r'\((-?[\w.]+|"[^"]*")\)', r"\1", text)
    text = re.sub(r"\(\[([^\[\]]*)\]\)", r"(\1)", text)
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _operand(value: Any) -> Feature | float:
    if isinstance(value, Feature) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ConfigError(f"features compute with features and numbers, found {value!r}")


def _columns(columns: Sequence[Any]) -> dict[str, pl.Expr]:
    named = {}
    for column in columns:
        if isinstance(column, str):
            named[column] = pl.col(column)
        elif isinstance(column, pl.Expr):
            named[column.meta.output_name(raise_if_undetermined=False) or str(column)] = column
        else:
            raise ConfigError(f"expected the name of a column or a Polars expression, found {column!r}")
    if len(named) != len(columns):
        raise ConfigError(f"the columns {list(named)} are named twice; give each its own .alias(…)")
    return named


def _aggregate(
    kind: str,
    columns: Sequence[Any],
    over: Length | None,
    every: Length | None,
    where: pl.Expr | None,
    **params: Any,
) -> Aggregate:
    if where is not None and not isinstance(where, pl.Expr):
        raise ConfigError(f'{kind}: where= takes a Polars expression such as pl.col("amount") > 0, found {where!r}')
    span = None if over is None else duration(over)
    if span is None:
        if every is not None:
            raise ConfigError(f"{kind}: every= is the tile of a window; give over= too, or leave both out")
        tile = 0
    else:
        tile = round_tile(span) if every is None else duration(every)
        if tile > span:
            raise ConfigError(
                f"{kind}: every ({format_duration(tile)}) must not be longer than over ({format_duration(span)}): "
                "the window would hold at most one tile"
            )
    return Aggregate(kind, _columns(columns), span, tile, where, params)


def sum(column: Column, *, over: Length, every: Length | None = None, where: pl.Expr | None = None) -> Aggregate:
    """The sum of a column; integers exactly, 0 without events."""
    return _aggregate("sum", [column], over, every, where)


def count(
    column: Column | None = None, *, over: Length, every: Length | None = None, where: pl.Expr | None = None
) -> Aggregate:
    """The number of events, or of those in which `column` is not null."""
    return _aggregate("count", [] if column is None else [column], over, every, where)


def mean(column: Column, *, over: Length, every: Length | None = None, where: pl.Expr | None = None) -> Aggregate:
    """The mean of a column; null without a value."""
    return _aggregate("mean", [column], over, every, where)


def min(column: Column, *, over: Length, every: Length | None = None, where: pl.Expr | None = None) -> Aggregate:
    """The least value of a number or time column; null without a value."""
    return _aggregate("min", [column], over, every, where)


def max(column: Column, *, over: Length, every: Length | None = None, where: pl.Expr | None = None) -> Aggregate:
    """The greatest value of a number or time column; null without a value."""
    return _aggregate("max", [column], over, every, where)


def std(column: Column, *, over: Length, every: Length | None = None, where: pl.Expr | None = None) -> Aggregate:
    """The sample standard deviation of a column; null below two values."""
    return _aggregate("std", [column], over, every, where)


def first(
    column: Column, *, over: Length | None = None, every: Length | None = None, where: pl.Expr | None = None
) -> Aggregate:
    """The column's value in the earliest event by event time, ties by arrival."""
    return _aggregate("first", [column], over, every, where)


def last(
    column: Column, *, over: Length | None = None, every: Length | None = None, where: pl.Expr | None = None
) -> Aggregate:
    """The column's value in the latest event by event time, ties by arrival."""
    return _aggregate("last", [column], over, every, where)


def rate(
    column: Column | None = None,
    *,
    over: Length,
    every: Length | None = None,
    where: pl.Expr | None = None,
    per: Length = "1s",
) -> Aggregate:
    """Events (or the column's sum) per `per` of the window's length: a count divided by `over`."""
    return _aggregate("rate", [] if column is None else [column], over, every, where, per=duration(per))


def distinct(column: Column, *, over: Length, every: Length | None = None, where: pl.Expr | None = None) -> Aggregate:
    """The number of distinct values, nulls not counted.

    Exact up to 4,096 distinct values in a tile; past that, estimated from the tile's 4,096 smallest hashes
    with a relative standard error of 1.6 %.
    """
    return _aggregate("distinct", [column], over, every, where)


def quantile(
    column: Column | float,
    q: float | Column = 0.5,
    *,
    over: Length,
    every: Length | None = None,
    where: pl.Expr | None = None,
    interpolation: Interpolation = "nearest",
) -> Aggregate:
    """The q-quantile of a number column, by Polars' interpolations; null without a value.

    Exact up to 4,096 distinct values in a tile; past that, the tile's values are kept to 0.5 % each.
    """
    if isinstance(column, int | float):
        column, q = q, column  # hr.quantile(0.9, "amount") reads as well
    if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:
        raise ConfigError(f"quantile: q must be a number from 0 to 1, found {q!r}")
    if interpolation not in ("nearest", "linear", "lower", "higher", "midpoint"):
        raise ConfigError(f"quantile: unknown interpolation {interpolation!r}; take nearest or linear")
    return _aggregate("quantile", [column], over, every, where, q=float(q), interpolation=interpolation)


def top(
    column: Column | int,
    n: int | Column = 5,
    *,
    over: Length,
    every: Length | None = None,
    where: pl.Expr | None = None,
) -> Aggregate:
    """The n most frequent values with their counts, ties by value; null without a value. Exact."""
    if isinstance(column, int):
        column, n = n, column  # hr.top(3, "merchant") reads as well
    return _aggregate("top", [column], over, every, where, n=_positive("top", n))


def histogram(
    column: Column,
    bins: Sequence[float],
    *,
    over: Length,
    every: Length | None = None,
    where: pl.Expr | None = None,
) -> Aggregate:
    """Counts of a number column between edges: len(bins) + 1 of them, the two open ends included.

    The i-th count is of the values v with bins[i - 1] <= v < bins[i].
    """
    edges = [float(edge) for edge in bins]
    if not edges or any(a >= b for a, b in pairwise(edges)):
        raise ConfigError(f"histogram: bins must be edges in increasing order, found {bins!r}")
    return _aggregate("histogram", [column], over, every, where, bins=edges)


def latest(
    n: int,
    *columns: Column,
    over: Length | None = None,
    every: Length | None = None,
    where: pl.Expr | None = None,
) -> Aggregate:
    """The last n events by event time, newest first, as dicts of the columns (all of them if none is named)."""
    return _aggregate("latest", columns, over, every, where, n=_positive("latest", n))


def _positive(kind: str, n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 1000:
        raise ConfigError(f"{kind}: n must be a whole number from 1 to 1000, found {n!r}")
    return n
