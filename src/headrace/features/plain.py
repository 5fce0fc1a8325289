"""Values of any column type as plain ones that MessagePack holds, and back again exactly.

Text, bytes, truth values, floats and integers of 64 bits are plain already. The others have one stable form each:
dates as days, times and durations as microseconds, moments as microseconds since the epoch, and decimals and wider
integers as text. Lists and structs are converted inside.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from headrace.errors import ConfigError

Convert = Callable[[Any], Any]
_PLAIN = (pl.String, pl.Boolean, pl.Binary, pl.Null, pl.Categorical, pl.Enum)
_WIDE = (pl.Int128, pl.UInt128)
_EPOCH = datetime(1970, 1, 1)
_MIDNIGHT = datetime.min
_MICROSECOND = timedelta(microseconds=1)


def converters(dtype: pl.DataType) -> tuple[Convert, Convert] | None:
    """What makes a value of a type plain and what makes it itself again; None if it is plain as it is.

    Raises:
        ConfigError: Values of the type cannot be kept outside the process.
    """
    if isinstance(dtype, _WIDE):
        return _or_none(str), _or_none(int)
    if dtype.is_float() or dtype.is_integer() or isinstance(dtype, _PLAIN):
        return None
    if isinstance(dtype, pl.List | pl.Array):
        return _list(converters(_instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        return _struct([(field.name, converters(_instance(field.dtype))) for field in dtype.fields])
    if isinstance(dtype, pl.Datetime):
        return _datetime(dtype.time_zone)
    for kind, there, back in _SIMPLE:
        if isinstance(dtype, kind):
            return _or_none(there), _or_none(back)
    raise ConfigError(
        f"values of type {dtype} can be kept in this process only; cast the column to another type, or use the "
        'online store "memory:"'
    )


def _instance(dtype: Any) -> pl.DataType:
    made: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return made


def _or_none(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _list(inner: tuple[Convert, Convert] | None) -> tuple[Convert, Convert] | None:
    if inner is None:
        return None
    there, back = inner
    return (
        _or_none(lambda values: [there(value) for value in values]),
        _or_none(lambda values: [back(value) for value in values]),
    )


def _struct(fields: list[tuple[str, tuple[Convert, Convert] | None]]) -> tuple[Convert, Convert]:
    """Structs as the values of their fields: the names are the type's."""

    def there(value: Any) -> list[Any]:
        return [value[name] if inner is None else inner[0](value[name]) for name, inner in fields]

    def back(values: Any) -> dict[str, Any]:
        pairs = zip(fields, values, strict=True)
        return {name: value if inner is None else inner[1](value) for (name, inner), value in pairs}

    return _or_none(there), _or_none(back)


def _datetime(zone: str | None) -> tuple[Convert, Convert]:
    local = None if zone is None else ZoneInfo(zone)

    def there(value: datetime) -> int:
        return ((value if local is None else value.astimezone(UTC).replace(tzinfo=None)) - _EPOCH) // _MICROSECOND

    def back(micros: int) -> datetime:
        moment = _EPOCH + timedelta(microseconds=micros)
        return moment if local is None else moment.replace(tzinfo=UTC).astimezone(local)

    return _or_none(there), _or_none(back)


def _micros_of_day(value: time) -> int:
    return (datetime.combine(_MIDNIGHT, value) - _MIDNIGHT) // _MICROSECOND


_SIMPLE: tuple[tuple[Any, Convert, Convert], ...] = (
    (pl.Date, date.toordinal, date.fromordinal),
    (pl.Time, _micros_of_day, lambda micros: (_MIDNIGHT + timedelta(microseconds=micros)).time()),
    (pl.Duration, lambda value: value // _MICROSECOND, lambda micros: timedelta(microseconds=micros)),
    (pl.Decimal, str, Decimal),
)
