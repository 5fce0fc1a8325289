"""Counts, sums and what is made of them, extremes, and histograms: partials that reduce to one number a column.

Each builder asks the table for partials and returns how one value, and how many at once, are finished from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from headrace.features.layout import (
    LOW,
    LOW_MASK,
    NO_FLOAT,
    NO_INT,
    Array,
    Moment,
    TableLayout,
    means,
    moment_rows,
)
from headrace.features.merged import Built, Columns, Inputs, Merged, number_type, only
from headrace.features.spec import Aggregate
from headrace.units import from_micros


def _events(aggregate: Aggregate, inputs: Inputs, table: TableLayout) -> int:
    """The fsum column with the number of events that count."""
    if aggregate.where is None:
        return table.add("fsum", "len", pl.len().cast(pl.Float64))
    mask = inputs.mask(aggregate.where)
    return table.add("fsum", f"len {mask}", pl.col(mask).sum().cast(pl.Float64))


def _values(aggregate: Aggregate, inputs: Inputs, table: TableLayout, dtype: pl.DataType) -> tuple[str, int]:
    """The input column, and the fsum column with the number of its values that are not null."""
    name = inputs.value(only(aggregate), aggregate.where, dtype)
    return name, table.add("fsum", f"n {name}", pl.col(name).count().cast(pl.Float64))


@dataclass(frozen=True)
class _Total:
    """A sum: of one key, of many, its column, and whether it is two halves."""

    one: Callable[[Merged], Any]
    many: Callable[[Columns], Array]
    column: int
    halves: bool


def _total(name: str, dtype: pl.DataType, table: TableLayout) -> _Total:
    if dtype.is_float():
        column = table.add("fsum", f"sum {name}", pl.col(name).sum())
        return _Total(lambda merged: merged.fsum[column], lambda columns: columns.fsum[column], column, False)
    high = table.add("isum", f"high {name}", (pl.col(name) // (1 << LOW)).sum())
    table.add("isum", f"low {name}", (pl.col(name) & LOW_MASK).sum())
    return _Total(
        lambda merged: (merged.isum[high] << LOW) + merged.isum[high + 1],
        # Python's integers, which do not overflow.
        lambda columns: (columns.isum[high].astype(object) << LOW) + columns.isum[high + 1],
        high,
        True,
    )


def _or_null(values: Array, held: Array) -> list[Any]:
    listed: list[Any] = values.tolist()
    if held.all():
        return listed
    return [value if one else None for value, one in zip(listed, held.tolist(), strict=True)]


def _sum(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = number_type(aggregate, inputs, label)
    total = _total(inputs.value(only(aggregate), aggregate.where, dtype), dtype, table)
    return Built(total.one, dtype, lambda columns: total.many(columns).tolist())


def _count(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    if aggregate.columns:
        expr = only(aggregate)
        inputs.dtype(expr, label)
        name = inputs.value(expr, aggregate.where, None)
        column = table.add("fsum", f"n {name}", pl.col(name).count().cast(pl.Float64))
    else:
        column = _events(aggregate, inputs, table)
    return Built(
        lambda merged: int(merged.fsum[column]),
        pl.Int64(),
        lambda columns: columns.fsum[column].astype(np.int64).tolist(),
    )


def _mean(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = number_type(aggregate, inputs, label)
    name, count = _values(aggregate, inputs, table, dtype)
    total = _total(name, dtype, table)

    def finish(merged: Merged) -> float | None:
        n = merged.fsum[count]
        return total.one(merged) / n if n else None

    def many(columns: Columns) -> list[Any]:
        n = columns.fsum[count]
        return _or_null(total.many(columns) / np.maximum(n, 1), n > 0)

    return Built(finish, pl.Float64(), many)


def _rate(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    seconds = (aggregate.over or 1) / aggregate.params["per"]
    if not aggregate.columns:
        column = _events(aggregate, inputs, table)
        return Built(
            lambda merged: merged.fsum[column] / seconds,
            pl.Float64(),
            lambda columns: (columns.fsum[column] / seconds).tolist(),
        )
    dtype = number_type(aggregate, inputs, label)
    total = _total(inputs.value(only(aggregate), aggregate.where, dtype), dtype, table)
    return Built(
        lambda merged: total.one(merged) / seconds,
        pl.Float64(),
        lambda columns: (total.many(columns) / seconds).tolist(),
    )


# Up to this many tiles a loop over Python's numbers is quicker than the dozen array operations in its place.
_FEW_TILES = 24


def _std(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = number_type(aggregate, inputs, label)
    name, count = _values(aggregate, inputs, table, dtype)
    total = _total(name, dtype, table)
    spread = pl.col(name).var(ddof=0) * pl.col(name).count()
    moment = Moment(count, total.column, total.halves)
    column = table.add_moment(f"m2 {name}", spread.fill_null(0.0), moment)

    def finish(merged: Merged) -> float | None:
        n = merged.fsum[count]
        if n < 2:
            return None
        spreads = merged.rows["m2"]
        if len(spreads) == 1:
            return math.sqrt(spreads.item(0, column) / (n - 1))
        counts, sums = moment_rows(merged.rows, moment)
        centre = total.one(merged) / n
        if len(spreads) > _FEW_TILES:
            with np.errstate(over="ignore", invalid="ignore"):
                apart = np.divide(sums, counts, out=np.zeros_like(counts), where=counts > 0) - centre
                return math.sqrt((spreads[:, column].sum() + counts @ (apart * apart)) / (n - 1))
        m2 = 0.0
        for tile_n, tile_sum, tile_m2 in zip(counts.tolist(), sums.tolist(), spreads[:, column].tolist(), strict=True):
            if tile_n:
                apart_one = tile_sum / tile_n - centre
                m2 += tile_m2 + tile_n * apart_one * apart_one
        return math.sqrt(m2 / (n - 1))

    def many(columns: Columns) -> list[Any]:
        n = columns.fsum[count]
        with np.errstate(over="ignore", invalid="ignore"):
            centre = (total.many(columns) / np.maximum(n, 1)).astype(np.float64)
            counts, tile_means = means(columns.rows, moment)
            apart = tile_means - centre[columns.owner]
            m2 = columns.rows["m2"][:, column] + counts * apart * apart
            spread_all = np.bincount(columns.owner, weights=m2, minlength=len(n))
            return _or_null(np.sqrt(spread_all / np.maximum(n - 1, 1)), n > 1)

    return Built(finish, pl.Float64(), many)


def _extreme(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = number_type(aggregate, inputs, label, times=True)
    name = inputs.value(only(aggregate), aggregate.where, dtype)
    sign = 1 if aggregate.kind == "max" else -1
    if dtype.is_float():
        values = pl.col(name) if sign > 0 else -pl.col(name)
        column = table.add("fmax", f"{aggregate.kind} {name}", values.max().fill_null(NO_FLOAT))

        def finish(merged: Merged) -> Any:
            value = merged.fmax[column]
            return None if value == NO_FLOAT else sign * value

        def many(columns: Columns) -> list[Any]:
            found = columns.fmax[column]
            return _or_null(sign * found, found != NO_FLOAT)

        return Built(finish, dtype, many)
    values = pl.col(name).to_physical()
    greatest = values.max() if sign > 0 else -values.min()
    column = table.add("imax", f"{aggregate.kind} {name}", greatest.fill_null(NO_INT))

    def finish_int(merged: Merged) -> Any:
        value = merged.imax[column]
        if value == NO_INT:
            return None
        return from_micros(sign * value) if isinstance(dtype, pl.Datetime) else sign * value

    return Built(finish_int, dtype)


def _histogram(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = number_type(aggregate, inputs, label)
    name = inputs.value(only(aggregate), aggregate.where, dtype)
    edges = [-math.inf, *aggregate.params["bins"], math.inf]
    columns = []
    for low, high in pairwise(edges):
        inside = (pl.col(name) >= low) & (pl.col(name) < high)
        if high == math.inf:
            inside = pl.col(name) >= low
        columns.append(table.add("fsum", f"in {low} {high} {name}", inside.sum().cast(pl.Float64)))
    return Built(lambda merged: [int(merged.fsum[column]) for column in columns], pl.List(pl.Int64()))


BUILDERS = {
    "sum": _sum,
    "count": _count,
    "mean": _mean,
    "rate": _rate,
    "std": _std,
    "min": _extreme,
    "max": _extreme,
    "histogram": _histogram,
}
