"""Values picked from events: first, last and latest by event time (slots), distinct, quantile and top (bags)."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from headrace.errors import ConfigError
from headrace.features import bags, slots
from headrace.features.layout import Bag, Slots, TableLayout, fits_int64
from headrace.features.merged import Built, Inputs, Merged, number_type, only
from headrace.features.spec import Aggregate


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
        kinds.append("int" if fits_int64(dtype) or micro else "float" if dtype.is_float() else "object")
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
    numeric = dtype.is_float() or fits_int64(dtype)
    name = inputs.value(only(aggregate), aggregate.where, dtype if numeric else None)
    return table.add_bag(Bag(name, aggregate.kind, dtype))  # type: ignore[arg-type]  # kinds are purposes


def _distinct(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    number = _bag(aggregate, inputs, table, inputs.dtype(only(aggregate), label))

    def finish(merged: Merged) -> int:
        tiles = merged.bag(number)
        return bags.distinct([tile[0] for tile in tiles], [tile[2] for tile in tiles])

    return Built(finish, pl.Int64())


def _quantile(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    number_type(aggregate, inputs, label)
    number = _bag(aggregate, inputs, table, pl.Float64())
    q, interpolation = aggregate.params["q"], aggregate.params["interpolation"]

    def finish(merged: Merged) -> float | None:
        tiles = merged.bag(number)
        if not tiles:
            return None
        values, counts = (np.concatenate([tile[i] for tile in tiles]) for i in (0, 1))
        return bags.quantile(values, counts, q, interpolation)

    return Built(finish, pl.Float64())


def _top(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    dtype = inputs.dtype(only(aggregate), label)
    if dtype.is_nested():
        raise ConfigError(f"{label}: top needs a column of single values, found {dtype}")
    number, n = _bag(aggregate, inputs, table, dtype), aggregate.params["n"]
    coded = not (dtype.is_float() or fits_int64(dtype))

    def finish(merged: Merged) -> list[dict[str, Any]] | None:
        totals: dict[Any, int] = {}
        for values, counts, _, pool in merged.bag(number):
            named = [pool.values[code] for code in values.tolist()] if coded else values.tolist()
            for value, count in zip(named, counts.tolist(), strict=True):
                totals[value] = totals.get(value, 0) + count
        best = sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:n]
        return [{"value": value, "count": count} for value, count in best] or None

    return Built(finish, pl.List(pl.Struct({"value": dtype, "count": pl.Int64()})))


BUILDERS = {
    "first": _ordered,
    "last": _ordered,
    "latest": _latest,
    "distinct": _distinct,
    "quantile": _quantile,
    "top": _top,
}
