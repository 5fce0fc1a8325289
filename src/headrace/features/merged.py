"""What reading works on: a window's merged partials, of one key or of many, and how a feature is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from headrace.errors import ConfigError
from headrace.features import bags
from headrace.features.layout import Array, Blocks
from headrace.features.spec import Aggregate


@dataclass(slots=True)
class Merged:
    """One key's window: reduced blocks as lists, and its rows for what does not reduce by addition."""

    isum: list[int]
    fsum: list[float]
    imax: list[int]
    fmax: list[float]
    rows: Blocks
    arenas: list[bags.Arena]

    def bag(self, number: int) -> list[tuple[Array, Array, bool, bags.Pool]]:
        """The bags of the window's tiles that hold something: values, counts, whether rough, and the pool."""
        arena = self.arenas[number]
        return [
            (arena.values[off : off + n], arena.counts[off : off + n], rough > 0, arena.pool)
            for off, n, rough in self.rows[f"b{number}"].tolist()
            if n
        ]


@dataclass(slots=True)
class Columns:
    """Many keys' windows: reduced blocks as arrays of shape (columns, keys), and all rows with the key they are of."""

    isum: Array
    fsum: Array
    imax: Array
    fmax: Array
    rows: Blocks
    owner: Array


Finish = Callable[[Merged], Any]
FinishMany = Callable[[Columns], list[Any]]


class Inputs(Protocol):
    """Columns computed from the user's expressions, once a batch."""

    def value(self, expr: pl.Expr, where: pl.Expr | None, dtype: pl.DataType | None) -> str: ...

    def mask(self, where: pl.Expr) -> str: ...

    def dtype(self, expr: pl.Expr, what: str) -> pl.DataType: ...


@dataclass(frozen=True)
class Built:
    """How a feature is read.

    Attributes:
        finish: Its value from one key's merged partials.
        dtype: The column type of many values.
        many: The same values of many keys at once; None: `finish` for each.
        blocks: The blocks that it reads.
    """

    finish: Finish
    dtype: pl.DataType
    many: FinishMany | None = None
    blocks: frozenset[str] = frozenset()


def only(aggregate: Aggregate) -> pl.Expr:
    return next(iter(aggregate.columns.values()))


def number_type(aggregate: Aggregate, inputs: Inputs, label: str, *, times: bool = False) -> pl.DataType:
    """The type of the only column, which must be a number (or a time)."""
    dtype = inputs.dtype(only(aggregate), label)
    if dtype.is_numeric() or dtype == pl.Boolean:
        return pl.Float64() if dtype.is_float() or dtype.is_decimal() else pl.Int64()
    if times and isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", "UTC")
    wanted = "a number or a time" if times else "a number"
    raise ConfigError(
        f"{label}: {aggregate.kind} needs {wanted}, found the column {next(iter(aggregate.columns))!r} of type "
        f"{dtype}; take another column, or an expression such as pl.col(…).cast(pl.Float64)"
    )
