"""Stored rows written as the lines that they could have come in: what becomes a dead letter after it was decoded.

A line has the keys of the input, which may differ from the columns' names, and is read again by `decode`. Polars writes
NDJSON several times as fast, but knows no such keys and ends the whole process's call at a column of bytes; so it
writes only what needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import polars as pl

from headrace.fields import Field
from headrace.schema import Schema


def lines(schema: Schema, frame: pl.DataFrame) -> list[bytes]:
    """The rows of a frame of the schema's columns, each as a line of NDJSON; bytes that are no UTF-8 are escaped."""
    if all(_plain(field) for field in schema.fields):
        return frame.write_ndjson().encode().splitlines()
    encode = msgspec.json.Encoder().encode
    return [encode(_keyed(row, schema.fields)) for row in frame.iter_rows(named=True)]


def _plain(field: Field) -> bool:
    return field.key == field.name and field.kind != "bytes" and all(map(_plain, field.inner))


def _keyed(row: Mapping[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    return {field.key: _value(row[field.name], field) for field in fields}


def _value(value: Any, field: Field) -> Any:
    if value is None:
        return None
    if field.kind == "struct":
        return _keyed(value, field.inner)
    if field.kind == "list":
        return [_value(item, field.inner[0]) for item in value]
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
