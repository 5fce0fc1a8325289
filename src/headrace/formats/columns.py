"""A frame of any column types as the schema's columns, with the rows that a column could not answer for.

Two things come out: the typed frame, and a mask of suspects. A row that is not a suspect is one that
Pydantic would accept with exactly these values; a suspect may be anything, and is left to Pydantic. So
every rule here may only err towards suspicion, and a pair of types without a rule makes every value of it a
suspect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto
from functools import lru_cache, partial
from typing import Any

import polars as pl

from headrace.fields import COMPUTED, REQUIRED, Field
from headrace.schema import Schema
from headrace.timestamps import EXACT_FLOAT, TIME, numbers_to_time, text_to_event_time, text_to_time
from headrace.units import MAX_TIME, MIN_TIME
from headrace.values import MAX_INT, store

_SURE_QUOTIENT = 2**40


class Null(Enum):
    """What a null in a column stands for in the input."""

    UNKNOWN = auto()  # a missing key or an explicit null: the decoder did not keep which
    ABSENT = auto()  # a missing key
    EXPLICIT = auto()  # a null that was written
    CELL = auto()  # a cell of a table: None where the field takes it, else as if it were missing


@dataclass(frozen=True)
class _Column:
    """The typed value, an expression that is true of suspects, and whether the value is the source itself."""

    value: pl.Expr
    bad: pl.Expr | None
    same: bool


def typed(
    schema: Schema, frame: pl.DataFrame, nulls: Mapping[str, Null], otherwise: Null
) -> tuple[pl.DataFrame, pl.Series | None]:
    """The schema's columns out of `frame`, and a mask of its suspects (None if there are none).

    Args:
        frame: Columns under the fields' keys; those that are not there are read as null.
        nulls: What a null means, by key; `otherwise` for the other keys.
    """
    meanings = tuple(sorted(nulls.items(), key=lambda item: item[0]))
    frame = frame.with_columns(
        _moments(frame[field.key], field).alias(_READ + field.key)
        for field in schema.fields
        if field.kind in ("event_time", "datetime") and frame.schema.get(field.key) == pl.String
    )
    out = frame.select(_expressions(schema, tuple(frame.schema.items()), meanings, otherwise))
    suspects = out.to_series(-1)
    return out.drop(suspects.name), suspects if suspects.any() else None


# Text read as time, once for the value and its checks: Polars would run a Python function for each.
_READ = "\0read "


# Building the expressions takes longer than a small batch takes to run through them.
@lru_cache(maxsize=256)
def _expressions(
    schema: Schema,
    source: tuple[tuple[str, pl.DataType], ...],
    meanings: tuple[tuple[str, Null], ...],
    otherwise: Null,
) -> list[pl.Expr]:
    types, nulls = dict(source), dict(meanings)
    # An array of the frame's height keeps literals from making a frame of one row.
    expressions, suspect = [], [pl.repeat(False, pl.len())]
    for field in schema.fields:
        there = pl.col(field.key) if field.key in types else pl.lit(None)
        ready = pl.col(_READ + field.key) if _READ + field.key in types else None
        column = _column(there, types.get(field.key, pl.Null()), field, nulls, otherwise, ready)
        expressions.append(column.value.alias(field.name))
        if column.bad is not None:
            suspect.append(column.bad)
    return [*expressions, pl.any_horizontal(suspect).alias("\0suspect")]


def _column(
    source: pl.Expr,
    dtype: pl.DataType,
    field: Field,
    nulls: Mapping[str, Null],
    otherwise: Null,
    ready: pl.Expr | None = None,
) -> _Column:
    if dtype == pl.Null:
        bad: list[pl.Expr] = []
        value, same = pl.lit(None, dtype=field.dtype), False
    elif ready is not None:
        value, bad, same = ready, [], False
    elif field.kind == "struct":
        value, bad, same = _struct(source, dtype, field, nulls, otherwise)
    elif field.kind == "list":
        value, bad, same = _list(source, dtype, field, nulls, otherwise)
    else:
        value, bad, same = _scalar(source, dtype, field)
    if not same and dtype != pl.Null:
        bad.append(value.is_null() & source.is_not_null())
    bad += _limits(value, field) + [_violated(value, field, name, limit) for name, limit in field.checks]
    fill = _null_rule(field, nulls.get(field.key, otherwise))
    if fill is _SUSPECT:
        bad.append(source.is_null())
    elif fill is not None:
        value, same = value.fill_null(pl.lit(pl.Series([fill], dtype=field.dtype)).first()), False
    return _Column(value, pl.any_horizontal(bad).fill_null(False) if bad else None, same)


_SUSPECT = object()


def _null_rule(field: Field, null: Null) -> Any:
    """What a null becomes: `_SUSPECT`, None (it stays), or the default."""
    written = None if field.nullable else _SUSPECT
    if field.default is REQUIRED or field.default is COMPUTED:
        missing: Any = _SUSPECT
    else:
        missing = store(field.default, field)
    if null is Null.EXPLICIT:
        return written
    if null is Null.ABSENT:
        return missing
    if null is Null.CELL:
        return None if field.nullable else missing
    return None if written is None and missing is None else _SUSPECT


def _struct(
    source: pl.Expr, dtype: pl.DataType, field: Field, nulls: Mapping[str, Null], otherwise: Null
) -> tuple[pl.Expr, list[pl.Expr], bool]:
    if not isinstance(dtype, pl.Struct):
        return _unknown(source, field)
    there = {part.name: part.dtype for part in dtype.fields}
    parts = []
    for inner in field.inner:
        part = source.struct.field(inner.key) if inner.key in there else pl.lit(None)
        part_type = there.get(inner.key, pl.Null())
        parts.append((inner, _column(part, _instance(part_type), inner, nulls, otherwise)))
    bad = [column.bad & source.is_not_null() for _, column in parts if column.bad is not None]
    if all(column.same for _, column in parts) and dtype == field.dtype:
        return source, bad, True
    whole = pl.struct(*(column.value.alias(inner.name) for inner, column in parts))
    return pl.when(source.is_not_null()).then(whole), bad, False


def _list(
    source: pl.Expr, dtype: pl.DataType, field: Field, nulls: Mapping[str, Null], otherwise: Null
) -> tuple[pl.Expr, list[pl.Expr], bool]:
    if isinstance(dtype, pl.Array):
        source, dtype = source.arr.to_list(), pl.List(dtype.inner)
    if not isinstance(dtype, pl.List):
        return _unknown(source, field)
    element = field.inner[0]
    # An element is there or it is not: a null among them was written.
    inside = {**nulls, element.key: Null.EXPLICIT}
    inner = _column(pl.element(), _instance(dtype.inner), element, inside, otherwise)
    bad = [] if inner.bad is None else [source.list.eval(inner.bad).list.any()]
    if inner.same and dtype == field.dtype:
        return source, bad, True
    return source.list.eval(inner.value), bad, False


def _scalar(source: pl.Expr, dtype: pl.DataType, field: Field) -> tuple[pl.Expr, list[pl.Expr], bool]:
    if isinstance(dtype, pl.Categorical | pl.Enum):
        source, dtype = source.cast(pl.String), pl.String()
    if field.kind == "event_time" and field.time is not None and not dtype.is_temporal():
        if dtype.is_integer() or dtype.is_float():
            return numbers_to_time(source, dtype, field.time.scale), [], False
        if dtype == pl.String:
            return source.map_batches(partial(_moments, field=field), return_dtype=TIME), [], False
    convert = _CONVERT.get(field.kind)
    if convert is not None:
        found = convert(source, dtype)
        if found is not None:
            return found
    if dtype == field.dtype and field.kind != "uuid":
        return source, [], True
    return _unknown(source, field)


def _unknown(source: pl.Expr, field: Field) -> tuple[pl.Expr, list[pl.Expr], bool]:
    """No rule for this pair of types: every value is a suspect."""
    return pl.when(source.is_null()).then(pl.lit(None, dtype=field.dtype)), [source.is_not_null()], False


_Found = tuple[pl.Expr, list[pl.Expr], bool] | None


def _to_int(source: pl.Expr, dtype: pl.DataType) -> _Found:
    if dtype == pl.Int64:
        return source, [], True
    if dtype.is_integer():
        return source.cast(pl.Int64, strict=False), [], False
    if dtype.is_float():
        value = source.cast(pl.Int64, strict=False)
        return value, [(value.cast(pl.Float64) != source) | (source.abs() > EXACT_FLOAT)], False
    if dtype == pl.String:
        return _plain_text(source, r"^-?[0-9]{1,18}$").cast(pl.Int64, strict=False), [], False
    return None


def _to_float(source: pl.Expr, dtype: pl.DataType) -> _Found:
    if dtype == pl.Float64:
        return source, [], True
    if dtype.is_numeric():
        return source.cast(pl.Float64, strict=False), [], False
    if dtype == pl.String:
        shape = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
        return _plain_text(source, shape).cast(pl.Float64, strict=False), [], False
    return None


def _to_bool(source: pl.Expr, dtype: pl.DataType) -> _Found:
    if dtype == pl.String:
        words = {"true": True, "True": True, "false": False, "False": False}
        return source.replace_strict(words, default=None, return_dtype=pl.Boolean), [], False
    return None


def _to_moment(source: pl.Expr, dtype: pl.DataType) -> _Found:
    if dtype == TIME:
        return source, [], True
    if isinstance(dtype, pl.Datetime):
        utc = source.dt.replace_time_zone("UTC") if dtype.time_zone is None else source.dt.convert_time_zone("UTC")
        return utc.cast(TIME, strict=False), [], False
    if dtype == pl.Date:
        return source.cast(pl.Datetime("us"), strict=False).dt.replace_time_zone("UTC"), [], False
    if dtype == pl.String:
        return source.map_batches(text_to_time, return_dtype=TIME), [], False
    return None


def _moments(text: pl.Series, field: Field) -> pl.Series:
    return text_to_time(text) if field.time is None else text_to_event_time(text, field.time.scale)


def _to_date(source: pl.Expr, dtype: pl.DataType) -> _Found:
    if dtype == pl.String:
        text = _plain_text(source, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")
        return text.str.to_date("%Y-%m-%d", strict=False), [], False
    return None


def _to_time(source: pl.Expr, dtype: pl.DataType) -> _Found:
    if dtype == pl.String:
        text = _plain_text(source, r"^[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,6})?$")
        return text.str.to_time("%H:%M:%S%.f", strict=False), [], False
    return None


def _to_uuid(source: pl.Expr, dtype: pl.DataType) -> _Found:
    if dtype == pl.String:
        shape = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
        return source, [~source.str.contains(shape)], True
    return None


def _to_bytes(source: pl.Expr, dtype: pl.DataType) -> _Found:
    return (source.cast(pl.Binary), [], False) if dtype == pl.String else None


_CONVERT: dict[str, Callable[[pl.Expr, pl.DataType], _Found]] = {
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "datetime": _to_moment,
    "event_time": _to_moment,
    "date": _to_date,
    "time": _to_time,
    "uuid": _to_uuid,
    "bytes": _to_bytes,
}


def _plain_text(text: pl.Expr, shape: str) -> pl.Expr:
    """Text of the shape on which Polars and Pydantic agree; null elsewhere."""
    return pl.when(text.str.contains(shape)).then(text)


def _limits(value: pl.Expr, field: Field) -> list[pl.Expr]:
    """What a column asks beyond Pydantic; the same rules as `values.store`."""
    if field.kind == "float":
        return [~value.is_finite()]
    if field.kind == "int":
        return [~value.is_between(-MAX_INT, MAX_INT)]
    if field.kind in ("datetime", "event_time"):
        return [~value.to_physical().is_between(MIN_TIME, MAX_TIME)]
    if field.kind == "date":
        return [~value.to_physical().is_between(MIN_TIME // 86_400_000_000, MAX_TIME // 86_400_000_000)]
    return []


def _violated(value: pl.Expr, field: Field, name: str, limit: Any) -> pl.Expr:
    """True where a stated constraint may not hold."""
    if name in ("min_length", "max_length"):
        return _length_violated(value, field, name, limit)
    if name == "pattern":
        return ~value.str.contains(limit)
    if name == "is_in":
        return ~value.is_in(list(limit))
    if isinstance(limit, Decimal):
        limit = float(limit)
    if isinstance(limit, datetime) and limit.tzinfo is None:
        return value.is_not_null()  # Python will not compare it with a moment in UTC: Pydantic shall say so
    if name == "multiple_of":
        return _not_a_multiple(value, field, limit)
    bound = pl.lit(limit)
    return {"gt": value <= bound, "ge": value < bound, "lt": value >= bound, "le": value > bound}[name]


def _length_violated(value: pl.Expr, field: Field, name: str, limit: int) -> pl.Expr:
    if field.kind == "list":
        length = value.list.len()
    elif field.kind == "bytes":
        length = value.bin.size()
    else:
        length = value.str.len_chars()
    return length < limit if name == "min_length" else length > limit


def _not_a_multiple(value: pl.Expr, field: Field, step: float) -> pl.Expr:
    if field.kind == "int" and isinstance(step, int):
        return value % step != 0
    # Pydantic's tolerance for floats differs by version; a quotient that leads back exactly is within any of them.
    quotient = (value / step).round()
    return (quotient * step != value) | (quotient.abs() >= _SURE_QUOTIENT)


def _instance(dtype: Any) -> pl.DataType:
    """Polars lets a nested type be given as a class; the rules want an instance."""
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance
