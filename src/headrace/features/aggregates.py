"""Each kind of aggregate: the partials that it asks a table for, and its value from merged ones.

A builder gets the aggregate, the resolved inputs and the table, and returns how the value is finished from a window's
merged partials. A new kind is a constructor in `spec` and a builder in `numeric` or `selected`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from headrace.features import numeric, selected
from headrace.features.layout import AT, TableLayout
from headrace.features.merged import Built, Inputs
from headrace.features.spec import Aggregate

BUILDERS = {**numeric.BUILDERS, **selected.BUILDERS}
# What a key without events reads as 0 rather than null.
NEVER_NULL = frozenset({"sum", "count", "rate", "distinct", "histogram"})


def build(aggregate: Aggregate, inputs: Inputs, table: TableLayout, label: str) -> Built:
    """Asks `table` for what the aggregate needs.

    Raises:
        ConfigError: The column's type does not suit the aggregate.
    """
    table.touched.clear()
    built = BUILDERS[aggregate.kind](aggregate, inputs, table, label)
    return replace(built, blocks=frozenset(table.touched))


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
    elif dtype == pl.Date:
        schema = {"type": "string", "format": "date"}
    else:
        schema = {"type": "string"}
    if nullable:
        schema["type"] = [schema["type"], "null"]
    return schema


def _of(dtype: Any) -> pl.DataType:
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance
