"""Protobuf's well-known types: messages that mean one value (a timestamp, a wrapped number, a decimal)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from operator import attrgetter
from typing import Any

import numpy as np
import polars as pl

from headrace.fields import Field
from headrace.formats.wire import Mask, RefusedError, Rows
from headrace.timestamps import TIME
from headrace.units import MAX_TIME, MIN_TIME, SECOND, from_micros

Many = Callable[[Sequence[Any], Mask], pl.Series]
One = Callable[[Any], Any]

_BILLION = 10**9
_LONGEST_DECIMAL = 64
_WRAPPED: dict[str, tuple[str, pl.DataType]] = {
    "DoubleValue": ("float", pl.Float64()),
    "FloatValue": ("float", pl.Float64()),
    "Int64Value": ("int", pl.Int64()),
    "UInt64Value": ("int", pl.UInt64()),
    "Int32Value": ("int", pl.Int64()),
    "UInt32Value": ("int", pl.Int64()),
    "BoolValue": ("bool", pl.Boolean()),
    "StringValue": ("text", pl.String()),
    "BytesValue": ("bytes", pl.Binary()),
}
# Read in other words than a nested record's; "opaque" has no meaning that a field could take.
KINDS = {
    "google.protobuf.Timestamp": "moment",
    "google.protobuf.Duration": "duration",
    "google.type.Date": "day",
    "google.type.TimeOfDay": "clock",
    "confluent.type.Decimal": "decimal",
    **{f"google.protobuf.{name}": kind for name, (kind, _) in _WRAPPED.items()},
    **dict.fromkeys(("google.protobuf.Any", "google.protobuf.Struct", "google.protobuf.Value"), "opaque"),
}


def _timestamps(_: Field) -> tuple[Many, One]:
    return _timestamp_column, _timestamp


def _parts(values: Sequence[Any]) -> tuple[Rows, Rows]:
    seconds = np.fromiter(map(attrgetter("seconds"), values), np.int64, len(values))
    return seconds, np.fromiter(map(attrgetter("nanos"), values), np.int64, len(values))


def _timestamp_column(values: Sequence[Any], bad: Mask) -> pl.Series:
    seconds, nanos = _parts(values)
    outside = (seconds < MIN_TIME // SECOND) | (seconds > MAX_TIME // SECOND) | (nanos < 0) | (nanos >= _BILLION)
    bad |= outside
    return pl.Series(np.where(outside, 0, seconds * SECOND + nanos // 1000)).cast(TIME)


def _timestamp(value: Any) -> datetime:
    micros = value.seconds * SECOND + value.nanos // 1000
    if not (MIN_TIME <= micros <= MAX_TIME and 0 <= value.nanos < _BILLION):
        raise RefusedError(
            f"expected a timestamp within the years 1 to 9999, found {value.seconds} s and {value.nanos} ns since 1970"
        )
    return from_micros(micros)


def _durations(_: Field) -> tuple[Many, One]:
    def many(values: Sequence[Any], __: Mask) -> pl.Series:
        seconds, nanos = _parts(values)
        return pl.Series(seconds + nanos / _BILLION)

    return many, lambda value: value.seconds + value.nanos / _BILLION


def _dates(_: Field) -> tuple[Many, One]:
    def one(value: Any) -> date:
        try:
            return date(value.year, value.month, value.day)
        except ValueError:
            raise RefusedError(
                f"expected a whole date, found year {value.year}, month {value.month}, day {value.day}"
            ) from None

    return _each(one, pl.Date()), one


def _times(_: Field) -> tuple[Many, One]:
    def one(value: Any) -> time:
        try:
            return time(value.hours, value.minutes, value.seconds, value.nanos // 1000)
        except ValueError:
            raise RefusedError(
                f"expected a time of day, found {value.hours} h, {value.minutes} min, {value.seconds} s"
            ) from None

    return _each(one, pl.Time()), one


def _decimals(_: Field) -> tuple[Many, One]:
    def one(value: Any) -> Decimal:
        if len(value.value) > _LONGEST_DECIMAL:
            raise RefusedError(f"expected a decimal of at most {_LONGEST_DECIMAL} bytes, found {len(value.value)}")
        return Decimal(f"{int.from_bytes(value.value, 'big', signed=True)}e{-value.scale}")

    return _each(lambda value: float(one(value)), pl.Float64()), one


def _each(one: One, dtype: pl.DataType) -> Many:
    """A column made value by value."""

    def many(values: Sequence[Any], bad: Mask) -> pl.Series:
        found = []
        for place, value in enumerate(values):
            try:
                found.append(one(value))
            except RefusedError:
                bad[place] = True
                found.append(None)
        return pl.Series(found, dtype=dtype)

    return many


def _wrapper(kind: str, dtype: pl.DataType) -> Callable[[Field], tuple[Many, One]]:
    get = attrgetter("value")

    def readers(field: Field) -> tuple[Many, One]:
        if kind == "bytes" and field.kind == "str":
            return _each(_utf8, pl.String()), get
        return lambda values, _: pl.Series(list(map(get, values)), dtype=dtype), get

    return readers


def _utf8(value: Any) -> str:
    try:
        text: str = value.value.decode()
    except UnicodeDecodeError:
        raise RefusedError("expected UTF-8, found other bytes") from None
    return text


READERS: dict[str, Callable[[Field], tuple[Many, One]]] = {
    "google.protobuf.Timestamp": _timestamps,
    "google.protobuf.Duration": _durations,
    "google.type.Date": _dates,
    "google.type.TimeOfDay": _times,
    "confluent.type.Decimal": _decimals,
    **{f"google.protobuf.{name}": _wrapper(kind, dtype) for name, (kind, dtype) in _WRAPPED.items()},
}
