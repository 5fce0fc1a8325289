"""Rows that are Python objects: dicts or events, gathered into columns when their types are plainly right.

Polars would turn True into 1.0 and cut 1.5 to 1 without a word, so a column is built only from values whose
Python type leaves nothing to convert; a row with any other value is a suspect, and Pydantic's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from operator import itemgetter
from typing import Any

import polars as pl
from pydantic import BaseModel

from headrace.fields import Field
from headrace.formats.columns import Null, typed
from headrace.formats.pieces import LEAF
from headrace.formats.verdicts import RefusedError, Row, as_json, judge_python, row_by_row, settle
from headrace.schema import Decoded, Event, Schema
from headrace.timestamps import TIME


class _Missing:
    """The type of what stands for a key that is not there."""


_MISSING = _Missing()
# What Polars raises for a value that does not fit a column.
_UNFIT = (OverflowError, UnicodeEncodeError, TypeError, ValueError, pl.exceptions.PolarsError)
# The types that a column takes without converting, and the column's type on the way.
_PLAIN: dict[str, tuple[frozenset[type], pl.DataType]] = {
    "str": (frozenset((str,)), pl.String()),
    "int": (frozenset((int,)), pl.Int64()),
    "float": (frozenset((float, int)), pl.Float64()),
    "bool": (frozenset((bool,)), pl.Boolean()),
    "datetime": (frozenset((datetime,)), TIME),
    "date": (frozenset((date,)), pl.Date()),
    "time": (frozenset((time,)), pl.Time()),
    "bytes": (frozenset((bytes,)), pl.Binary()),
}


def decode_rows(schema: Schema, rows: Sequence[Mapping[str, Any] | Event], *, leaf: int = LEAF) -> Decoded:
    """The events of dicts (keys as the input calls them) and of events.

    Args:
        leaf: Up to how many rows are validated one by one.
    """
    rows = rows if isinstance(rows, list) else list(rows)
    originals = _Objects(schema, rows)
    if schema.per_row or len(rows) <= leaf:
        return row_by_row(schema, len(rows), originals)
    kinds = set(map(type, rows))
    plain = {dict, schema.model}
    suspects = set() if kinds <= plain else {place for place, row in enumerate(rows) if type(row) not in plain}
    columns, nulls = [], {}
    for field in schema.fields:
        values = _values(rows, field, suspects, kinds == {dict})
        column, nulls[field.key] = _column(values, field, suspects)
        columns.append(column)
    frame = pl.DataFrame(columns)
    out, doubtful = typed(schema, frame, nulls, Null.UNKNOWN)
    if suspects:
        strange = pl.Series([False]).new_from_index(0, len(rows)).scatter(sorted(suspects), True)
        doubtful = strange if doubtful is None else doubtful | strange
    return settle(schema, out, doubtful, originals)


def _values(rows: list[Any], field: Field, suspects: set[int], all_dicts: bool) -> list[Any]:
    if all_dicts:
        try:
            return list(map(itemgetter(field.key), rows))
        except KeyError:
            return [row.get(field.key, _MISSING) for row in rows]
    return [
        None
        if place in suspects
        else row.get(field.key, _MISSING)
        if type(row) is dict
        else row.__dict__.get(field.name, _MISSING)
        for place, row in enumerate(rows)
    ]


def _column(values: list[Any], field: Field, suspects: set[int]) -> tuple[pl.Series, Null]:
    """The column of these values, and what its nulls mean.

    A value that needs converting leaves a null and makes its row a suspect.
    """
    allowed, dtype = _plain_types(field, values)
    found = set(map(type, values))
    meaning = Null.EXPLICIT
    if _Missing in found:
        # A row that is a suspect already may stand here as None; what it says is asked of it alone.
        written = None in values and any(value is None and row not in suspects for row, value in enumerate(values))
        meaning = Null.UNKNOWN if written else Null.ABSENT
    if not found <= allowed | {type(None)}:
        for place, value in enumerate(values):
            if value is not None and type(value) not in allowed:
                values[place] = None
                if value is not _MISSING:
                    suspects.add(place)
    try:
        return pl.Series(field.key, values, dtype=dtype), meaning
    except _UNFIT:
        fitting = [_single(value, dtype, place, suspects) for place, value in enumerate(values)]
        return pl.Series(field.key, fitting, dtype=dtype), meaning


def _plain_types(field: Field, values: list[Any]) -> tuple[frozenset[type], pl.DataType]:
    if field.kind == "event_time":
        first = next((value for value in values if value is not None and value is not _MISSING), None)
        if type(first) in (int, float):
            exact = field.time is not None and field.time.unit == "us" and type(first) is int
            return (frozenset((int,)), pl.Int64()) if exact else _PLAIN["float"]
        return _PLAIN["str"] if type(first) is str else _PLAIN["datetime"]
    # Lists, nested models and UUIDs are built by Pydantic, row by row.
    return _PLAIN.get(field.kind, (frozenset(), field.dtype))


def _single(value: Any, dtype: pl.DataType, place: int, suspects: set[int]) -> Any:
    """`value` if a column can hold it."""
    try:
        pl.Series([value], dtype=dtype)
    except _UNFIT:
        suspects.add(place)
        return None
    return value


@dataclass
class _Objects:
    schema: Schema
    rows: list[Any]

    def judge(self, row: int) -> Row:
        value = self.rows[row]
        if isinstance(value, self.schema.model):
            value = {field.key: item for field in self.schema.fields if (item := _given(value, field)) is not _MISSING}
        elif not isinstance(value, Mapping):
            expected = self.schema.model.__name__
            raise RefusedError(f"expected a dict or a {expected}, found {type(value).__name__}")
        return judge_python(self.schema, dict(value))

    def raw(self, row: int) -> bytes:
        return as_json(self.rows[row])


def _given(event: BaseModel, field: Field) -> Any:
    """A field of an event, nested models as dicts, so that Pydantic looks at their values again."""
    return _opened(event.__dict__.get(field.name, _MISSING), field)


def _opened(value: Any, field: Field) -> Any:
    if isinstance(value, BaseModel):
        items = ((inner.key, _given(value, inner)) for inner in field.inner)
        return {key: item for key, item in items if item is not _MISSING}
    if field.kind == "list" and isinstance(value, list):
        return [_opened(item, field.inner[0]) for item in value]
    return value
