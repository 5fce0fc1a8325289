"""The columns that a view's tables keep: each aggregate asks for mergeable partials, equal ones are shared.

A partial is what a tile holds so that tiles can be merged: a sum and a count for a mean, never the mean. By how they
merge there are few kinds, and each is one 2-D array ("block") of a table:

    fsum         added           float sums, and counts (whole numbers are exact up to 2^53)
    isum         added           integer sums, as two 32-bit halves so that none overflows
    imax, fmax   the greater     maxima; a minimum is the maximum of the negated column
    m2           by Chan         sums of squared distances from the tile's own mean
    s0, s1, …    top n by time   slots: the n first or last events   (slots.py)
    b0, b1, …    counts added    bags: how often each value occurred (bags.py)

Source of the m2 merge: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]
Blocks = dict[str, Array]

AT, SEQ, TILE = "__at", "__seq", "__tile"
LOW = 32
LOW_MASK = (1 << LOW) - 1
# Past every event time and arrival number, and safe to negate.
NEVER = -(2**62)
INT_NULL = -(2**63)
# The identity of a maximum: a block's value where no event had one.
NO_INT = np.iinfo(np.int64).min
NO_FLOAT = -np.inf

REDUCED: dict[str, tuple[Any, Any, Any]] = {
    # name: (dtype, how two partials merge, the identity)
    "isum": (np.int64, np.add, 0),
    "fsum": (np.float64, np.add, 0.0),
    "imax": (np.int64, np.maximum, NO_INT),
    "fmax": (np.float64, np.maximum, NO_FLOAT),
}


@dataclass(frozen=True)
class Moment:
    """Where a sum of squared distances finds its count and its sum."""

    count: int
    sum: int
    halves: bool  # the sum is two columns of isum rather than one of fsum


@dataclass(frozen=True)
class Slots:
    """The `n` first or last events of a tile: which input columns, and how each is stored."""

    n: int
    earliest: bool
    where: str | None
    columns: tuple[str, ...]
    kinds: tuple[Literal["int", "float", "object"], ...]
    dtypes: tuple[pl.DataType, ...]


@dataclass(frozen=True)
class Bag:
    """How often each value of an input column occurred in a tile."""

    column: str
    purpose: Literal["distinct", "quantile", "top"]
    dtype: pl.DataType


@dataclass
class TableLayout:
    """One table of a view: all aggregates with the same tile."""

    every: int  # microseconds; 0 is one tile for all time
    keep: int | None  # the longest window, microseconds; None is for ever
    columns: dict[str, list[pl.Expr]] = field(default_factory=lambda: {name: [] for name in (*REDUCED, "m2")})
    moments: list[Moment] = field(default_factory=list)
    slots: list[Slots] = field(default_factory=list)
    bags: list[Bag] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)  # the blocks asked for since this was last cleared
    _known: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, block: str, key: str, expr: pl.Expr) -> int:
        """The number of a partial's column in its block; the same key gets the same column."""
        self.touched.add(block)
        if (block, key) not in self._known:
            self._known[block, key] = len(self.columns[block])
            self.columns[block].append(expr)
        return self._known[block, key]

    def add_moment(self, key: str, expr: pl.Expr, moment: Moment) -> int:
        number = self.add("m2", key, expr)
        if number == len(self.moments):
            self.moments.append(moment)
        return number

    def add_slots(self, slots: Slots) -> int:
        if slots not in self.slots:
            self.slots.append(slots)
        number = self.slots.index(slots)
        self.touched |= {f"s{number}.{column}" for column in ("order", "tie", *range(len(slots.columns)))}
        return number

    def add_bag(self, bag: Bag) -> int:
        if bag not in self.bags:
            self.bags.append(bag)
        self.touched.add(f"b{self.bags.index(bag)}")
        return self.bags.index(bag)

    def empty(self, rows: int) -> Blocks:
        """Blocks of `rows` rows that hold nothing: each merges with anything and leaves it as it was."""
        blocks: Blocks = {}
        for name, (dtype, _, identity) in REDUCED.items():
            if self.columns[name]:
                blocks[name] = np.full((rows, len(self.columns[name])), identity, dtype)
        if self.moments:
            blocks["m2"] = np.zeros((rows, len(self.moments)))
        for number, slots in enumerate(self.slots):
            blocks[f"s{number}.order"] = np.full((rows, slots.n), NEVER, np.int64)
            blocks[f"s{number}.tie"] = np.full((rows, slots.n), NEVER, np.int64)
            for column, kind in enumerate(slots.kinds):
                shape = (rows, slots.n)
                blocks[f"s{number}.{column}"] = (
                    np.full(shape, INT_NULL, np.int64)
                    if kind == "int"
                    else np.full(shape, np.nan)
                    if kind == "float"
                    else np.full(shape, None, object)
                )
        for number in range(len(self.bags)):
            blocks[f"b{number}"] = np.zeros((rows, 3), np.int64)  # offset, length, 1 if no longer exact
        return blocks

    def fingerprint(self) -> str:
        """Text that changes when stored partials could no longer be read as what they are now."""
        parts = [f"every={self.every}"]
        parts += [f"{block}:{key}={number}" for (block, key), number in self._known.items()]
        parts += [repr((s.n, s.earliest, s.where, s.columns, s.kinds)) for s in self.slots]
        parts += [repr((b.column, b.purpose, str(b.dtype))) for b in self.bags]
        return ";".join(parts)


def moment_rows(blocks: Blocks, moment: Moment) -> tuple[Array, Array]:
    """The counts and sums that a moment's rows stand on, each float64 of shape (rows,)."""
    count = blocks["fsum"][:, moment.count]
    if not moment.halves:
        return count, blocks["fsum"][:, moment.sum]
    high = np.ldexp(blocks["isum"][:, moment.sum].astype(np.float64), LOW)
    return count, high + blocks["isum"][:, moment.sum + 1]


def fits_int64(dtype: pl.DataType) -> bool:
    """Whether a column's values are whole numbers that an int64 array holds; the wider types are kept as objects."""
    return dtype.is_integer() and dtype not in (pl.UInt64, pl.Int128, pl.UInt128)


def means(blocks: Blocks, moment: Moment) -> tuple[Array, Array]:
    """The counts and means that a moment's rows stand on, each float64 of shape (rows,)."""
    count, total = moment_rows(blocks, moment)
    return count, np.divide(total, count, out=np.zeros_like(count), where=count > 0)


def merge_reduced(layout: TableLayout, old: Blocks, new: Blocks) -> Blocks:
    """Rows of `old` and `new` merged pairwise: every block but slots and bags."""
    merged: Blocks = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for name, (_, merge, _) in REDUCED.items():
            if name in old:
                merged[name] = merge(old[name], new[name])
        if layout.moments:
            merged["m2"] = old["m2"] + new["m2"]
            for column, moment in enumerate(layout.moments):
                n_old, mean_old = means(old, moment)
                n_new, mean_new = means(new, moment)
                both = n_old + n_new
                weight = np.divide(n_old * n_new, both, out=np.zeros_like(both), where=both > 0)
                merged["m2"][:, column] += weight * (mean_new - mean_old) ** 2
    return merged
