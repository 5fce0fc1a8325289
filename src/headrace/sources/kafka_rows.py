"""A frame of a stream's columns as JSON objects, one a row: what decodes to the same rows again.

Times are ISO 8601 in UTC to the microsecond, nulls are written, and objects have the keys that the model reads. JSON
has no number that is not finite, and no place for bytes that are not UTF-8: such rows are refused, not changed.
"""

from __future__ import annotations

import polars as pl

from headrace.errors import InputError
from headrace.fields import Field
from headrace.schema import Schema


def to_json(schema: Schema, frame: pl.DataFrame) -> list[bytes]:
    """The rows as JSON objects.

    Raises:
        InputError: A value that JSON cannot hold.
    """
    if frame.is_empty():
        return []
    columns = []
    for field in schema.fields:
        _check(frame[field.name], field.name)
        columns.append(_written(pl.col(field.name), field).alias(field.key))
    return frame.select(columns).write_ndjson().encode().rstrip(b"\n").split(b"\n")


def to_keys(values: pl.Series) -> list[bytes | None]:
    """A column as message keys: its text."""
    if values.dtype == pl.Binary:
        return values.to_list()
    return [None if value is None else value.encode() for value in values.cast(pl.String).to_list()]


def _written(value: pl.Expr, field: Field) -> pl.Expr:
    """A column, or a part of one, as it is to be written."""
    if field.kind == "bytes":
        return value.cast(pl.String)
    if field.kind == "list":
        return value.list.eval(_written(pl.element(), field.inner[0]))
    if field.kind == "struct":
        parts = [_written(value.struct.field(inner.name), inner).alias(inner.key) for inner in field.inner]
        return pl.when(value.is_not_null()).then(pl.struct(parts))
    return value


def _check(values: pl.Series, where: str) -> None:
    """Finds what JSON cannot hold, at any depth."""
    if values.dtype.is_float():
        if not values.is_finite().all():
            raise InputError(f"{where}: expected finite numbers, which JSON can hold, found one that is not")
    elif values.dtype == pl.Binary:
        try:
            values.cast(pl.String)
        except pl.exceptions.PolarsError:
            raise InputError(f"{where}: expected bytes that are UTF-8, which JSON can hold, found others") from None
    elif isinstance(values.dtype, pl.Struct):
        for part in values.dtype.fields:
            _check(values.struct.field(part.name), f"{where}.{part.name}")
    elif isinstance(values.dtype, pl.List):
        _check(values.explode().drop_nulls(), where)
