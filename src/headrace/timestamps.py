"""Event time as it arrives: ISO 8601 text, or a number in a stated unit, read alike by Python and by Polars.

A number is split at its point before it is scaled: the whole part becomes an integer and only the fraction
is rounded, so 1700000000.123 seconds is 1700000000123000 µs and no year is too far for exactness.
`EventTime.read` (one value) and `numbers_to_time` (a column) do the same IEEE operations in the same order:
a value means the same moment whichever path reads it. Text is parsed here only in the plain shape that both
parsers agree on; all else is left to Pydantic.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import polars as pl
from pydantic import Field as PydanticField
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from headrace.errors import SchemaError
from headrace.units import MAX_TIME, MICROSECOND, MILLISECOND, MIN_TIME, SECOND, from_micros

Unit = Literal["s", "ms", "us"]
TIME = pl.Datetime("us", "UTC")

_SCALE: dict[str, int] = {"s": SECOND, "ms": MILLISECOND, "us": MICROSECOND}
_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,30}\s*", re.ASCII)
_DECIMAL = re.compile(r"\s*[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?\s*", re.ASCII)
# The shape of ISO 8601 on which chrono (Polars) and Pydantic agree: no second 60, no offset of a day or more.
_ISO = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$"
)
_ZONED = r"(Z|[+-][0-9]{2}:[0-9]{2})$"
# From 2^53 a float skips integers: even 2^53 itself may have been written as 2^53 + 1.
EXACT_FLOAT = 2**53


@dataclass(frozen=True)
class EventTime:
    """Marks a model's event-time field, and teaches Pydantic to read numbers in the stated unit."""

    unit: Unit = "s"

    @property
    def scale(self) -> int:
        """Microseconds in one unit."""
        return _SCALE[self.unit]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def read(self, value: Any) -> Any:
        """The moment that a number (or a number's text) means; anything else is handed on to Pydantic."""
        if isinstance(value, bool):
            raise ValueError("expected ISO 8601 text or a number, not true or false")
        if isinstance(value, str):
            if _INTEGER.fullmatch(value):
                value = int(value)
            elif _DECIMAL.fullmatch(value):
                value = float(value)
        if isinstance(value, int):
            return self._moment(value, value * self.scale)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError("expected a finite number")
            whole = math.floor(value)
            return self._moment(value, whole * self.scale + round((value - whole) * self.scale))
        return value

    def _moment(self, value: float, micros: int) -> datetime:
        if MIN_TIME <= micros <= MAX_TIME:
            return from_micros(micros)
        raise ValueError(
            f"expected {_WORDS[self.unit]} since 1970 within the years 1 to 9999" + _likely_unit(value, self.unit)
        )


def event_time(*, unit: Unit = "s", **field: Any) -> Any:
    """Declares the field that holds an event's time: ISO 8601 text, a `datetime`, or a number.

    Args:
        unit: What a number counts since the Unix epoch: "s", "ms" or "us".
        field: Anything that `pydantic.Field` takes, such as `alias` or `description`.

    Raises:
        SchemaError: `unit` is none of the three.
    """
    if unit not in get_args(Unit):
        raise SchemaError(f'expected an event-time unit of "s", "ms" or "us", found {unit!r}')
    info = PydanticField(**field)
    info.metadata.append(EventTime(unit))
    return info


def _likely_unit(value: float, unit: str) -> str:
    """A hint for the commonest mistake: the same number in another unit is a date near our own."""
    for other, scale in _SCALE.items():
        if other != unit and 0 <= value * scale <= MAX_TIME // 4:
            return f"; if these are {_WORDS[other]}, declare hr.event_time(unit={other!r})"
    return ""


def numbers_to_time(numbers: pl.Expr, dtype: pl.DataType, scale: int) -> pl.Expr:
    """The moments of a numeric column; null where the number is not finite, not exact, or out of range."""
    low, high = MIN_TIME // scale, MAX_TIME // scale
    inside = numbers.is_between(low, high)
    if not dtype.is_float():
        return pl.when(inside).then(numbers).cast(pl.Int64, strict=False).mul(scale).cast(TIME)
    numbers = numbers.cast(pl.Float64)
    whole = numbers.floor()
    micros = whole.cast(pl.Int64, strict=False) * scale + (
        ((numbers - whole) * scale).round(mode="half_to_even").cast(pl.Int64, strict=False)
    )
    return pl.when(inside & (numbers.abs() < EXACT_FLOAT)).then(micros).cast(TIME)


def text_to_time(text: pl.Series) -> pl.Series:
    """The moments of ISO 8601 text, naive ones as UTC; null where it is not the plain shape."""
    plain = text.str.contains(_ISO).fill_null(False)
    if not plain.any():
        return pl.repeat(None, len(text), dtype=TIME, eager=True)
    # chrono's %+ wants a T and an offset; SQL and Python's str() write a space and none.
    naive = ~text.str.contains(_ZONED)
    value = pl.when(plain).then(text) if not plain.all() else pl.lit(text)
    if text.str.contains(" ", literal=True).any():
        value = value.str.replace(" ", "T", literal=True)
    if naive.any():
        value = pl.when(naive).then(value + "Z").otherwise(value)
    return pl.select(value.str.to_datetime("%+", time_unit="us", strict=False).cast(TIME)).to_series()


def text_to_event_time(text: pl.Series, scale: int) -> pl.Series:
    """The moments of ISO 8601 text, or of numbers written as text as CSV has them; else null."""
    moments = text_to_time(text)
    if moments.null_count() == text.null_count():
        return moments
    value = pl.lit(text)
    whole = pl.when(text.str.contains(r"^-?[0-9]{1,18}$")).then(value).cast(pl.Int64, strict=False)
    point = pl.when(text.str.contains(r"^-?[0-9]{1,18}\.[0-9]{1,18}$")).then(value).cast(pl.Float64, strict=False)
    numbers = [numbers_to_time(whole, pl.Int64(), scale), numbers_to_time(point, pl.Float64(), scale)]
    return pl.select(pl.coalesce(moments, *numbers)).to_series()
