"""Slots: the n first or last events of a tile, newest (or earliest) first, in fixed columns.

Each slot has an order (event time) and a tie (arrival number); of two sets of slots the n greatest by (order, tie)
remain. For the earliest events both are stored negated, so there is one merge. An empty slot has the order NEVER.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from headrace.features.layout import AT, INT_NULL, NEVER, SEQ, Array, Blocks, Slots
from headrace.units import from_micros


def names(number: int, slots: Slots) -> list[str]:
    """The blocks of one group of slots: order, tie, then a block a column."""
    return [f"s{number}.order", f"s{number}.tie", *(f"s{number}.{i}" for i in range(len(slots.columns)))]


def partials(number: int, slots: Slots) -> list[pl.Expr]:
    """Aggregations that collect the slots of a group of events sorted by event time (stable: ties by arrival)."""
    chosen = []
    for name, column in zip(names(number, slots), (AT, SEQ, *slots.columns), strict=True):
        values = pl.col(column) if slots.where is None else pl.col(column).filter(pl.col(slots.where))
        if slots.n == 1:
            chosen.append((values.first() if slots.earliest else values.last()).alias(name))
        else:
            chosen.append((values.head(slots.n) if slots.earliest else values.tail(slots.n)).alias(name))
    return chosen


def collect(number: int, slots: Slots, frame: pl.DataFrame) -> Blocks:
    """The blocks of aggregated `partials`, each of shape (rows, n)."""
    group = names(number, slots)
    places, held = _places(slots, frame[group[0]])
    blocks: Blocks = {}
    for position, name in enumerate(group):
        kind = "time" if position < 2 else slots.kinds[position - 2]
        series = frame[name] if slots.n == 1 else frame[name].explode(empty_as_null=False)
        flat = _plain(series, kind)
        block = np.full(held.shape, _EMPTY[kind], flat.dtype)
        block[held] = flat[places[held]]
        if position < 2 and slots.earliest:
            block = np.where(block != NEVER, -block, NEVER)
        blocks[name] = block
    return blocks


def _places(slots: Slots, lists: pl.Series) -> tuple[Array, Array]:
    """Where each slot's value is among the exploded lists, and whether there is one; both of shape (rows, n).

    One filter makes all lists of a group, so they are equally long. They are in time order; slot 0 is the newest, or
    with `earliest` the first.
    """
    rows = len(lists)
    if slots.n == 1:
        return np.arange(rows)[:, None], np.ones((rows, 1), bool)
    lengths = lists.list.len().to_numpy().astype(np.int64)
    ends, steps = np.cumsum(lengths), np.arange(slots.n)
    places = (ends - lengths)[:, None] + steps if slots.earliest else ends[:, None] - 1 - steps
    return places, steps < lengths[:, None]


_EMPTY: dict[str, Any] = {"time": NEVER, "int": INT_NULL, "float": float("nan"), "object": None}


def _plain(series: pl.Series, kind: str) -> Array:
    if kind == "float":
        floats: Array = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return floats
    if kind != "object":
        integers: Array = series.to_physical().cast(pl.Int64).fill_null(_EMPTY[kind]).to_numpy()
        return integers
    values = np.empty(len(series), object)
    values[:] = series.to_list()
    return values


def merge(number: int, slots: Slots, old: Blocks, new: Blocks) -> Blocks:
    """Row by row, the n greatest of two sets of slots by (order, tie)."""
    both = {name: np.concatenate([old[name], new[name]], axis=1) for name in names(number, slots)}
    ranks = np.lexsort((-both[f"s{number}.tie"], -both[f"s{number}.order"]), axis=1)[:, : slots.n]
    return {name: np.take_along_axis(values, ranks, axis=1) for name, values in both.items()}


def newest(number: int, slots: Slots, rows: Blocks) -> list[tuple[Any, ...]]:
    """The slots of all `rows` together, best first: one tuple of Python values an event."""
    order = rows[f"s{number}.order"].ravel()
    ranks = np.lexsort((-rows[f"s{number}.tie"].ravel(), -order))[: slots.n]
    ranks = ranks[order[ranks] != NEVER]
    columns = [
        _values(rows[f"s{number}.{i}"].ravel()[ranks], kind, dtype)
        for i, (kind, dtype) in enumerate(zip(slots.kinds, slots.dtypes, strict=True))
    ]
    return list(zip(*columns, strict=True))


def _values(stored: Array, kind: str, dtype: pl.DataType) -> list[Any]:
    values: list[Any] = stored.tolist()
    if kind == "float":
        return [None if value != value else value for value in values]
    if kind == "int":
        if isinstance(dtype, pl.Datetime):
            return [None if value == INT_NULL else _datetime(value) for value in values]
        return [None if value == INT_NULL else value for value in values]
    return values


def _datetime(micros: int) -> datetime:
    return from_micros(micros).astimezone(UTC)
