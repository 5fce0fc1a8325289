"""Each kind of aggregate: the partials that it asks a table for, and its value from merged ones.

A builder gets the aggregate, the resolved inputs and the table, and returns the function that finishes the value
from a window's merged partials (`Merged`). Finishing is scalar Python: it runs once a value that is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import polars as pl

from headrace.errors import ConfigError
from headrace.features import bags, slots
from headrace.features.layout import (
    AT,
    LOW,
    LOW_MASK,
    NO_FLOAT,
    NO_INT,
    Array,
    Bag,
    Blocks,
    Moment,
    Slots,
    TableLayout,
    means,
)
from headrace.features.spec import Aggregate
from headrace.units import from_micros


@dataclass(slots=True)
class Merged:
    """One key's window: reduced blocks as lists, and its rows for what does not reduce by addition."""

    isum: list[int]
    fsum: list[float]
    imax: list[int]
    fmax: list[float]
    rows: Blocks
    bag: Callable[[int, Array], list[tuple[Array, Array, bool, bags.Pool]]]


Finish = Callable[[Merged], Any]


class Inputs(Protocol):
    """Columns computed from the user's expressions, once a batch."""

    def value(self, expr: pl.Expr, where: pl.Expr | None, dtype: pl.DataType | None) -> str: ...

    def mask(self, where: pl.Expr) -> str: ...

    def dtype(self, expr: pl.Expr, what: str) -> pl.DataType: ...


@dataclass(frozen=True)
class Built:
    """How a feature is read: its value from merged partials, and the column type of many values."""

    finish: Finish
    dtype: pl.DataType


def build(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    """Asks `table` for what the aggregate needs.

    Raises:
        ConfigError: The column's type does not suit the aggregate.
    """
    return _BUILDERS[aggregate.kind](aggregate, inputs, table, label)


def _one(aggregate: Aggregate) -> pl.Expr:
    return next(iter(aggregate.columns.values()))


def _number(aggregate: Aggregate, inputs: Inputs, label: str, *, times: bool = False) -> pl.DataType:
    """The type of the only column, which must be a number (or a time)."""
    dtype = inputs.dtype(_one(aggregate), label)
    if dtype.is_numeric() or dtype == pl.Boolean:
        return pl.Float64() if dtype.is_float() or dtype.is_decimal() else pl.Int64()
    if times and isinstance(dtype, pl.Datetime):
        return dtype
    wanted = "a number or a time" if times else "a number"
    raise ConfigError(
        f"{label}: {aggregate.kind} needs {wanted}, found the column {next(iter(aggregate.columns))!r} of type "
        f"{dtype}; take another column, or an expression such as pl.col(…).cast(pl.Float64)"
    )


def _events(aggregate: Aggregate, inputs: Inputs, table: TableLayout) -> int:
    """The isum column with the number of events that count."""
    if aggregate.where is None:
        return table.add("isum", "len", pl.len().cast(pl.Int64))
    mask = inputs.mask(aggregate.where)
    return table.add("isum", f"len {mask}", pl.col(mask).sum().cast(pl.Int64))


def _values(aggregate: Aggregate, inputs: Inputs, table: TableLayout, dtype: pl.DataType) -> tuple[str, int]:
    """The input column, and the isum column with the number of its values that are not null."""
    name = inputs.value(_one(aggregate), aggregate.where, dtype)
    return name, table.add("isum", f"n {name}", pl.col(name).count().cast(pl.Int64))


def _total(name: str, dtype: pl.DataType, table: TableLayout) -> tuple[Callable[[Merged], float], int, bool]:
    """A sum: how it is read, its column, and whether it is two halves."""
    if dtype.is_float():
        column = table.add("fsum", f"sum {name}", pl.col(name).sum())
        return lambda merged: merged.fsum[column], column, False
    high = table.add("isum", f"high {name}", (pl.col(name) // (1 << LOW)).sum())
    table.add("isum", f"low {name}", (pl.col(name) & LOW_MASK).sum())
    return lambda merged: (merged.isum[high] << LOW) + merged.isum[high + 1], high, True


def _sum(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = _number(aggregate, inputs, label)
    name = inputs.value(_one(aggregate), aggregate.where, dtype)
    return Built(_total(name, dtype, table)[0], dtype)


def _count(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    if aggregate.columns:
        expr = _one(aggregate)
        inputs.dtype(expr, label)
        name = inputs.value(expr, aggregate.where, None)
        column = table.add("isum", f"n {name}", pl.col(name).count().cast(pl.Int64))
    else:
        column = _events(aggregate, inputs, table)
    return Built(lambda merged: merged.isum[column], pl.Int64())


def _mean(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = _number(aggregate, inputs, label)
    name, count = _values(aggregate, inputs, table, dtype)
    total = _total(name, dtype, table)[0]

    def finish(merged: Merged) -> float | None:
        n = merged.isum[count]
        return total(merged) / n if n else None

    return Built(finish, pl.Float64())


def _rate(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    seconds = (aggregate.over or 1) / aggregate.params["per"]
    if not aggregate.columns:
        column = _events(aggregate, inputs, table)
        return Built(lambda merged: merged.isum[column] / seconds, pl.Float64())
    dtype = _number(aggregate, inputs, label)
    total = _total(inputs.value(_one(aggregate), aggregate.where, dtype), dtype, table)[0]
    return Built(lambda merged: total(merged) / seconds, pl.Float64())


def _std(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = _number(aggregate, inputs, label)
    name, count = _values(aggregate, inputs, table, dtype)
    _, total, halves = _total(name, dtype, table)
    spread = pl.col(name).var(ddof=0) * pl.col(name).count()
    moment = Moment(count, total, halves)
    column = table.add_moment(f"m2 {name}", spread.fill_null(0.0), moment)

    def finish(merged: Merged) -> float | None:
        n = merged.isum[count]
        if n < 2:
            return None
        if len(merged.rows["m2"]) == 1:
            return math.sqrt(merged.rows["m2"].item(0, column) / (n - 1))
        with np.errstate(over="ignore", invalid="ignore"):
            counts, tile_means = means(merged.rows, moment)
            centre = counts @ tile_means / n
            m2 = merged.rows["m2"][:, column].sum() + counts @ (tile_means - centre) ** 2
        return math.sqrt(m2 / (n - 1))

    return Built(finish, pl.Float64())


def _extreme(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = _number(aggregate, inputs, label, times=True)
    name = inputs.value(_one(aggregate), aggregate.where, dtype)
    sign = 1 if aggregate.kind == "max" else -1
    if dtype.is_float():
        values = pl.col(name) if sign > 0 else -pl.col(name)
        column = table.add("fmax", f"{aggregate.kind} {name}", values.max().fill_null(NO_FLOAT))

        def finish(merged: Merged) -> Any:
            value = merged.fmax[column]
            return None if value == NO_FLOAT else sign * value

        return Built(finish, dtype)
    values = pl.col(name).to_physical()
    greatest = values.max() if sign > 0 else -values.min()
    column = table.add("imax", f"{aggregate.kind} {name}", greatest.fill_null(NO_INT))

    def finish_int(merged: Merged) -> Any:
        value = merged.imax[column]
        if value == NO_INT:
            return None
        return from_micros(sign * value) if isinstance(dtype, pl.Datetime) else sign * value

    return Built(finish_int, dtype)


def _picked(
    aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str
) -> tuple[int, Slots, list[pl.DataType]]:
    """A group of slots with the aggregate's columns, and their types."""
    names, kinds, dtypes = [], [], []
    for expr in aggregate.columns.values():
        dtype = inputs.dtype(expr, label)
        micro = isinstance(dtype, pl.Datetime)
        stored: pl.DataType = pl.Datetime("us", "UTC") if micro else dtype
        names.append(inputs.value(expr, None, stored if micro else None))
        kinds.append("int" if dtype.is_integer() or micro else "float" if dtype.is_float() else "object")
        dtypes.append(stored)
    where = None if aggregate.where is None else inputs.mask(aggregate.where)
    group = Slots(
        aggregate.params.get("n", 1),
        aggregate.kind == "first",
        where,
        tuple(names),
        tuple(kinds),  # type: ignore[arg-type]  # a literal's tuple
        tuple(dtypes),
    )
    return table.add_slots(group), group, dtypes


def _ordered(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    number, group, dtypes = _picked(aggregate, inputs, table, label)

    def finish(merged: Merged) -> Any:
        found = slots.newest(number, group, merged.rows)
        return found[0][0] if found else None

    return Built(finish, dtypes[0])


def _latest(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    number, group, dtypes = _picked(aggregate, inputs, table, label)
    names = list(aggregate.columns)

    def finish(merged: Merged) -> list[dict[str, Any]] | None:
        found = slots.newest(number, group, merged.rows)
        return [dict(zip(names, values, strict=True)) for values in found] or None

    return Built(finish, pl.List(pl.Struct(dict(zip(names, dtypes, strict=True)))))


def _bag(aggregate: Aggregate, inputs: Inputs, table: TableLayout, dtype: pl.DataType) -> int:
    numeric = dtype.is_float() or dtype.is_integer()
    name = inputs.value(_one(aggregate), aggregate.where, dtype if numeric else None)
    return table.add_bag(Bag(name, aggregate.kind, dtype))  # type: ignore[arg-type]  # kinds are purposes


def _distinct(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    number = _bag(aggregate, inputs, table, inputs.dtype(_one(aggregate), label))

    def finish(merged: Merged) -> int:
        tiles = merged.bag(number, merged.rows[f"b{number}"])
        return bags.distinct([tile[0] for tile in tiles], [tile[2] for tile in tiles])

    return Built(finish, pl.Int64())


def _quantile(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    _number(aggregate, inputs, label)
    number = _bag(aggregate, inputs, table, pl.Float64())
    q, interpolation = aggregate.params["q"], aggregate.params["interpolation"]

    def finish(merged: Merged) -> float | None:
        tiles = merged.bag(number, merged.rows[f"b{number}"])
        if not tiles:
            return None
        values, counts = (np.concatenate([tile[i] for tile in tiles]) for i in (0, 1))
        return bags.quantile(values, counts, q, interpolation)

    return Built(finish, pl.Float64())


def _top(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = inputs.dtype(_one(aggregate), label)
    if dtype.is_nested():
        raise ConfigError(f"{label}: top needs a column of single values, found {dtype}")
    number, n = _bag(aggregate, inputs, table, dtype), aggregate.params["n"]
    coded = not (dtype.is_float() or dtype.is_integer())

    def finish(merged: Merged) -> list[dict[str, Any]] | None:
        totals: dict[Any, int] = {}
        for values, counts, _, pool in merged.bag(number, merged.rows[f"b{number}"]):
            named = [pool.values[code] for code in values.tolist()] if coded else values.tolist()
            for value, count in zip(named, counts.tolist(), strict=True):
                totals[value] = totals.get(value, 0) + count
        best = sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:n]
        return [{"value": value, "count": count} for value, count in best] or None

    return Built(finish, pl.List(pl.Struct({"value": dtype, "count": pl.Int64()})))


def _histogram(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = _number(aggregate, inputs, label)
    name = inputs.value(_one(aggregate), aggregate.where, dtype)
    edges = [-math.inf, *aggregate.params["bins"], math.inf]
    columns = []
    for low, high in pairwise(edges):
        inside = (pl.col(name) >= low) & (pl.col(name) < high)
        if high == math.inf:
            inside = pl.col(name) >= low
        columns.append(table.add("isum", f"in {low} {high} {name}", inside.sum().cast(pl.Int64)))
    return Built(lambda merged: [merged.isum[column] for column in columns], pl.List(pl.Int64()))


def newest_event(table: TableLayout) -> int:
    """The imax column with the newest event time of a tile, which every table keeps for `as_of`."""
    return table.add("imax", "newest", pl.col(AT).max())


def json_schema(dtype: pl.DataType, *, nullable: bool) -> dict[str, Any]:
    """The JSON schema of a feature's value."""
    schema: dict[str, Any]
    if isinstance(dtype, pl.List):
        schema = {"type": "array", "items": json_schema(_of(dtype.inner), nullable=True)}
    elif isinstance(dtype, pl.Struct):
        properties = {f.name: json_schema(_of(f.dtype), nullable=True) for f in dtype.fields}
        schema = {"type": "object", "properties": properties}
    elif dtype.is_integer():
        schema = {"type": "integer"}
    elif dtype.is_numeric():
        schema = {"type": "number"}
    elif dtype == pl.Boolean:
        schema = {"type": "boolean"}
    elif isinstance(dtype, pl.Datetime):
        schema = {"type": "string", "format": "date-time"}
    else:
        schema = {"type": "string"}
    if nullable:
        schema["type"] = [schema["type"], "null"]
    return schema


def _of(dtype: Any) -> pl.DataType:
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance


_BUILDERS: dict[str, Callable[[Aggregate, Inputs, TableLayout, str], Built]] = {
    "sum": _sum,
    "count": _count,
    "mean": _mean,
    "rate": _rate,
    "std": _std,
    "min": _extreme,
    "max": _extreme,
    "first": _ordered,
    "last": _ordered,
    "latest": _latest,
    "distinct": _distinct,
    "quantile": _quantile,
    "top": _top,
    "histogram": _histogram,
}
# What a key without events reads as 0 rather than null.
NEVER_NULL = frozenset({"sum", "count", "rate", "distinct", "histogram"})
