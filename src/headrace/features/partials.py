"""A batch's events as partials: grouped by key and tile, one row each."""

from __future__ import annotations

import numpy as np
import polars as pl

from headrace.features import bags, slots
from headrace.features.layout import REDUCED, Bag, Blocks, TableLayout

PAIR, VALUE, COUNT = "__pair", "__value", "__count"


def aggregations(layout: TableLayout) -> list[pl.Expr]:
    """What Polars is to compute of each group of events with the same key and tile."""
    exprs = [
        expr.alias(f"{block}.{number}")
        for block, columns in layout.columns.items()
        for number, expr in enumerate(columns)
    ]
    for number, group in enumerate(layout.slots):
        exprs += slots.partials(number, group)
    return exprs


def collected(layout: TableLayout, grouped: pl.DataFrame) -> Blocks:
    """The blocks of what was computed, a row a group; bags are not among them."""
    blocks: Blocks = {}
    for block, columns in layout.columns.items():
        if columns:
            dtype = np.float64 if block == "m2" else REDUCED[block][0]
            values = np.empty((grouped.height, len(columns)), dtype)
            for number in range(len(columns)):
                values[:, number] = grouped[f"{block}.{number}"].to_numpy()
            blocks[block] = values
    for number, group in enumerate(layout.slots):
        blocks |= slots.collect(number, group, grouped)
    return blocks


def counted(inputs: pl.DataFrame, grouped: pl.DataFrame, by: list[str], bag: Bag) -> pl.DataFrame:
    """How often each value occurs in each row of `grouped`, which is by key and tile: (pair, value, count)."""
    pairs = grouped.lazy().select(by).with_row_index(PAIR)
    counted = (
        inputs.lazy()
        .filter(pl.col(bag.column).is_not_null())
        .group_by(*by, pl.col(bag.column).alias(VALUE))
        .agg(pl.len().cast(pl.Int64).alias(COUNT))
        .join(pairs, on=by, how="inner")
        .select(pl.col(PAIR).cast(pl.Int64).alias("pair"), pl.col(VALUE).alias("value"), pl.col(COUNT).alias("count"))
        .collect()
    )
    return counted.with_columns(value=bags.stored(bag, counted["value"]))
