"""Frames in hand, and Parquet: columns of any type converted to the schema's, doubtful rows by Pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import polars as pl

from headrace.errors import DecodeError
from headrace.fields import Field
from headrace.formats.columns import Null, typed
from headrace.formats.csv import by_cell, check_columns
from headrace.formats.verdicts import Row, as_json, judge_python, row_by_row, settle
from headrace.schema import Decoded, Schema


def decode_frame(schema: Schema, frame: pl.DataFrame) -> Decoded:
    """The events of a frame; columns that the schema does not name are ignored.

    Raises:
        DecodeError: A required column is missing.
    """
    check_columns(schema, frame.columns, "the frame")
    frame = frame.select(field.key for field in schema.fields if field.key in frame.columns)
    originals = FrameRows(schema, frame)
    if schema.per_row:
        return row_by_row(schema, frame.height, originals)
    absent = {field.key: Null.ABSENT for field in schema.fields if field.key not in frame.columns}
    values, suspects = typed(schema, frame, absent, Null.CELL)
    return settle(schema, values, suspects, originals)


def decode_parquet(schema: Schema, data: bytes) -> Decoded:
    """The events of a Parquet file.

    Raises:
        DecodeError: It is not Parquet, or a required column is missing.
    """
    try:
        frame = pl.read_parquet(BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DecodeError(f"expected a Parquet file, found {len(data):,} bytes that are not one: {first}") from None
    return decode_frame(schema, frame)


@dataclass
class FrameRows:
    schema: Schema
    frame: pl.DataFrame

    def judge(self, row: int) -> Row:
        cells = by_cell(self.schema, self.frame.row(row, named=True))
        return judge_python(
            self.schema,
            {field.key: _cells(cells[field.key], field) for field in self.schema.fields if field.key in cells},
        )

    def raw(self, row: int) -> bytes:
        return as_json(self.frame.row(row, named=True))


def _cells(value: Any, field: Field) -> Any:
    """A nested cell for Pydantic: a null is left out where its field does not take None, as in the table."""
    if value is None:
        return None
    if field.kind == "list" and isinstance(value, list):
        return [_cells(item, field.inner[0]) for item in value]
    if field.kind == "struct" and isinstance(value, dict):
        inner = {part.key: part for part in field.inner}
        return {
            key: _cells(item, inner[key]) if key in inner else item
            for key, item in value.items()
            if item is not None or key not in inner or inner[key].nullable
        }
    return value
