"""Bags: how often each value occurred in a tile, sorted by value, for distinct, quantile and top.

All bags of a table lie in one arena of (value, count) pairs; a tile holds offset, length and whether it is still
exact. A changed bag is written anew at the arena's end, so that what a reader sees never changes under it.

A bag is exact up to LIMIT distinct values. Past that, what remains is a function of the set of values alone, so that
neither the order nor the cutting of the input shows in it:

- distinct keeps the LIMIT smallest 64-bit hashes and estimates the rest from how densely they lie
  (Bar-Yossef et al., "Counting distinct elements in a data stream", 2002; relative standard error 1 / sqrt(LIMIT - 2));
- quantile keeps each value to the middle of its logarithmic bucket, 0.5 % wide on either side
  (Masson et al., "DDSketch", VLDB 2019);
- top stays exact: its memory is what the values need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from headrace.features.layout import Array, Bag, fits_int64
from headrace.hashing import hash64

LIMIT = 4096
RELATIVE = 0.005
_GAMMA = (1 + RELATIVE) / (1 - RELATIVE)
_LOG_GAMMA = math.log(_GAMMA)


class Pool:
    """Text and other values as int64 codes, for bags whose values are asked for again."""

    def __init__(self) -> None:
        self.codes: dict[object, int] = {}
        self.values: list[object] = []

    def encode(self, values: pl.Series) -> Array:
        """The codes of values; new values get the next ones."""
        given = values.to_list()
        codes = [self.codes.get(value, -1) for value in given]
        if -1 in codes:
            for position, value in enumerate(given):
                if codes[position] < 0:
                    code = self.codes.setdefault(value, len(self.values))
                    if code == len(self.values):
                        self.values.append(value)
                    codes[position] = code
        return np.array(codes, np.int64)


@dataclass
class Arena:
    """The (value, count) pairs of one bag column; `tail` is where free room begins."""

    bag: Bag
    values: Array
    counts: Array
    tail: int
    pool: Pool

    @classmethod
    def make(cls, bag: Bag, capacity: int, pool: Pool) -> Arena:
        return cls(bag, np.empty(capacity, value_dtype(bag)), np.empty(capacity, np.int64), 0, pool)

    def write(self, values: Array, counts: Array) -> int:
        """Appends pairs and says at which offset; there must be room."""
        offset = self.tail
        self.tail += len(values)
        self.values[offset : self.tail] = values
        self.counts[offset : self.tail] = counts
        return offset


def value_dtype(bag: Bag) -> type[np.generic]:
    if bag.purpose == "distinct":
        return np.uint64
    if bag.purpose == "quantile" or bag.dtype.is_float():
        return np.float64
    return np.int64


def stored(bag: Bag, values: pl.Series) -> pl.Series:
    """Values as they are kept and journalled: hashes for distinct, numbers for quantile, themselves for top."""
    if bag.purpose == "distinct":
        return pl.Series(values.name, hash64(values), pl.UInt64)
    if bag.purpose == "quantile" or bag.dtype.is_float():
        # -0.0 equals 0.0 and must sort with it; adding 0.0 makes it so.
        return values.cast(pl.Float64) + 0.0
    return values.cast(pl.Int64) if fits_int64(bag.dtype) else values


def encode(bag: Bag, values: pl.Series, pool: Pool) -> Array:
    """Stored values as the arena's numbers; what is not a number goes through the pool."""
    if bag.purpose == "top" and not (bag.dtype.is_float() or fits_int64(bag.dtype)):
        return pool.encode(values)
    numbers: Array = values.to_numpy()
    return numbers


def columns(number: int, arena: Arena, block: Array) -> dict[str, pl.Series]:
    """The bags of some rows as columns: lists of stored values, of counts, and whether they are rough."""
    held = ragged(block[:, 0], block[:, 1])
    values: Any = arena.values[held]
    if arena.pool.values:
        values = [arena.pool.values[code] for code in values.tolist()]
    row = np.repeat(np.arange(len(block)), block[:, 1])
    dtype = {"distinct": pl.UInt64(), "quantile": pl.Float64()}.get(arena.bag.purpose, arena.bag.dtype)
    pairs = pl.DataFrame({"row": row, "value": pl.Series(values, dtype=dtype), "count": arena.counts[held]})
    lists = pairs.group_by("row", maintain_order=True).agg("value", "count")
    every = pl.DataFrame({"row": np.arange(len(block))}).join(lists, on="row", how="left", maintain_order="left")
    return {
        f"b{number}.value": every["value"],
        f"b{number}.count": every["count"],
        f"b{number}.rough": pl.Series(block[:, 2] > 0),
    }


def pairs(number: int, part: pl.DataFrame) -> pl.DataFrame:
    """The inverse of `columns`: a frame (pair, value, count) of the rows of a part."""
    lists = part.select(pl.row_index("pair").cast(pl.Int64), value=f"b{number}.value", count=f"b{number}.count")
    return lists.filter(pl.col("value").is_not_null()).explode("value", "count")


def ragged(offsets: Array, lengths: Array) -> Array:
    """The indices offset, offset + 1, … of every run, one run after another."""
    total = int(lengths.sum())
    if total == 0:
        return np.empty(0, np.int64)
    starts = np.cumsum(lengths) - lengths
    indices: Array = np.arange(total) + np.repeat(offsets - starts, lengths)
    return indices


def combine(bag: Bag, owner: Array, values: Array, counts: Array, rough: Array) -> tuple[Array, Array, Array, Array]:
    """Pairs of many bags merged: equal values of an owner are added, bags past LIMIT made rough.

    Args:
        owner: Shape (pairs,), which bag each pair belongs to, 0 ≤ owner < len(rough).
        rough: Shape (bags,), whether a bag was no longer exact before.

    Returns:
        values, counts (both sorted by owner, then value), the length of each bag, and the new `rough`.
    """
    values, counts, lengths = _add(len(rough), owner, values, counts)
    if bag.purpose == "top":
        return values, counts, lengths, rough
    rough = rough | (lengths > LIMIT)
    if not rough.any():
        return values, counts, lengths, rough
    owner = np.repeat(np.arange(len(rough)), lengths)
    if bag.purpose == "quantile":
        chosen = rough[owner]
        values[chosen] = bucket_middle(values[chosen])
        values, counts, lengths = _add(len(rough), owner, values, counts)
    else:
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        kept = rank < LIMIT
        values, counts = values[kept], counts[kept]
        lengths = np.minimum(lengths, LIMIT)
    return values, counts, lengths, rough


def _add(bags: int, owner: Array, values: Array, counts: Array) -> tuple[Array, Array, Array]:
    if len(owner) == 0:
        return values, counts, np.zeros(bags, np.int64)
    order = np.lexsort((values, owner))
    owner, values, counts = owner[order], values[order], counts[order]
    fresh = np.empty(len(owner), bool)
    fresh[0] = True
    fresh[1:] = (owner[1:] != owner[:-1]) | (values[1:] != values[:-1])
    starts = np.flatnonzero(fresh)
    return values[starts], np.add.reduceat(counts, starts), np.bincount(owner[starts], minlength=bags)


def bucket_middle(values: Array) -> Array:
    """Each value moved to the middle of its logarithmic bucket; at most RELATIVE away."""
    size = np.abs(values)
    with np.errstate(divide="ignore", over="ignore"):
        number = np.ceil(np.log(size) / _LOG_GAMMA)
        middle = 2 * np.exp(number * _LOG_GAMMA) / (_GAMMA + 1)
    middle = np.where(np.isfinite(middle), middle, size)
    result: Array = np.where(size == 0, 0.0, np.copysign(middle, values))
    return result


def distinct(hashes: list[Array], rough: list[bool]) -> int:
    """Distinct values in several bags together; an estimate if any of them is rough."""
    if not hashes:
        return 0
    union = hashes[0] if len(hashes) == 1 else np.unique(np.concatenate(hashes))
    bounds = [float(tile[-1]) for tile, is_rough in zip(hashes, rough, strict=True) if is_rough]
    if not bounds:
        return len(union)
    threshold = min(bounds)
    return round(int((union < np.uint64(threshold)).sum()) / (threshold / 2.0**64))


def quantile(values: Array, counts: Array, q: float, interpolation: str) -> float | None:
    """The q-quantile of values that each occur `counts` times, by Polars' definition of the interpolations."""
    total = int(counts.sum())
    if total == 0:
        return None
    order = np.argsort(values, kind="stable")
    values, upto = values[order], np.cumsum(counts[order])
    exact = (total - 1) * q
    low, high = math.floor(exact), math.ceil(exact)
    if interpolation == "nearest":
        low = high = min(total - 1, math.floor(exact + 0.5))
    elif interpolation == "lower":
        high = low
    elif interpolation == "higher":
        low = high
    below, above = (float(values[np.searchsorted(upto, rank, side="right")]) for rank in (low, high))
    if low == high or below == above:
        return below
    return (below + above) / 2 if interpolation == "midpoint" else below + (above - below) * (exact - low)
