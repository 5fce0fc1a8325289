"""One validated Python value as a column holds it: the part of validity that is Headrace's own.

Pydantic says what a value means; a column then asks a little more: a float is finite, an integer leaves the
ends of int64 free (they mark nothing-yet in minima and maxima), a moment is in the years that a `datetime`
can hold, and text can be written as UTF-8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time
from enum import Enum
from typing import Any
from uuid import UUID

from headrace.fields import Field
from headrace.units import MAX_TIME, MIN_TIME, from_micros, to_micros

MAX_INT = 2**63 - 2


class NotStorableError(ValueError):
    """A value that Pydantic accepts and no column can hold; `where` is the path to it."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(message)
        self.where = where


def store(value: Any, field: Field) -> Any:
    """`value` of `field` as a Polars column takes it.

    Raises:
        NotStorableError: No column of the field's type can hold it.
    """
    if value is None:
        return None
    if isinstance(value, Enum):
        value = value.value
    try:
        return _STORE[field.kind](value, field)
    except NotStorableError as error:
        if field.kind == "struct":
            error.where = f"{field.key}.{error.where}"
        raise
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise NotStorableError(field.key, f"{error}") from error


def _text(value: Any, _: Field) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text that can be written as UTF-8, found half of a surrogate pair") from None
    return value


def _integer(value: Any, _: Field) -> int:
    number = int(value)
    if not -MAX_INT <= number <= MAX_INT:
        raise ValueError("expected an integer within ±(2**63 - 2), found one beyond")
    return number


def _float(value: Any, _: Field) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("expected a finite number, found one that is not")
    return number


def _moment(value: Any, _: Field) -> datetime:
    micros = to_micros(value)
    if not MIN_TIME <= micros <= MAX_TIME:
        raise ValueError("expected a time within the years 1 to 9999 in UTC, found one outside")
    return from_micros(micros)


def _date(value: Any, _: Field) -> date:
    if not isinstance(value, date):
        raise TypeError(f"expected a date, found {value!r}")
    return value


def _time(value: time, _: Field) -> time:
    if value.tzinfo is not None:
        raise ValueError("expected a time of day without an offset, found one with it")
    return value


def _uuid(value: Any, _: Field) -> str:
    return str(value if isinstance(value, UUID) else UUID(value))


def _list(value: Any, field: Field) -> list[Any]:
    return [store(item, field.inner[0]) for item in value]


def _struct(value: Any, field: Field) -> dict[str, Any]:
    return {inner.name: store(getattr(value, inner.name), inner) for inner in field.inner}


_STORE: dict[str, Callable[[Any, Field], Any]] = {
    "str": _text,
    "int": _integer,
    "float": _float,
    "bool": lambda value, _: bool(value),
    "datetime": _moment,
    "event_time": _moment,
    "date": _date,
    "time": _time,
    "uuid": _uuid,
    "bytes": lambda value, _: bytes(value),
    "list": _list,
    "struct": _struct,
}
