"""Values in Debezium's envelopes: what a schema of Kafka Connect says a number or a text stands for, as Python has it.

Without a schema a value is what it is: numbers stay numbers. A connector without schemas should therefore be told
`decimal.handling.mode=string` and `time.precision.mode=isostring`.

MongoDB's documents are texts in them, in MongoDB's extended JSON, which says its types itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from headrace.errors import DecodeError

Json = Mapping[str, Any]

UNAVAILABLE = "__debezium_unavailable_value"
_EPOCH = datetime(1970, 1, 1)


class Missing(Exception):  # noqa: N818 - a sign, not an error
    """The value was not told: a long text that its update left alone."""


def _time(unit: int) -> Callable[[Any, Json], time]:
    """A time of day as a number of units of which a second has so many."""
    return lambda value, _: (_EPOCH + timedelta(microseconds=value * 1_000_000 // unit)).time()


def _moment(unit: int) -> Callable[[Any, Json], datetime]:
    """A time without a zone, as units since 1970."""
    return lambda value, _: _EPOCH + timedelta(microseconds=value * 1_000_000 // unit)


def _decimal(value: Any, schema: Json) -> Decimal:
    if not isinstance(value, str):
        return Decimal(str(value))  # a converter with decimal.format=NUMERIC
    return _scaled(value, int((schema.get("parameters") or {}).get("scale", 0)))


def _scaled(text: str, scale: int) -> Decimal:
    unscaled = int.from_bytes(base64.b64decode(text, validate=True), signed=True)
    # Not by a division, which would round to the context's 28 digits.
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))


_BY_NAME: dict[str, Callable[[Any, Json], Any]] = {
    "io.debezium.time.Date": lambda value, _: date(1970, 1, 1) + timedelta(days=value),
    "org.apache.kafka.connect.data.Date": lambda value, _: date(1970, 1, 1) + timedelta(days=value),
    "io.debezium.time.Time": _time(1_000),
    "io.debezium.time.MicroTime": _time(1_000_000),
    "io.debezium.time.NanoTime": _time(1_000_000_000),
    "org.apache.kafka.connect.data.Time": _time(1_000),
    "io.debezium.time.Timestamp": _moment(1_000),
    "io.debezium.time.MicroTimestamp": _moment(1_000_000),
    "io.debezium.time.NanoTimestamp": _moment(1_000_000_000),
    "org.apache.kafka.connect.data.Timestamp": _moment(1_000),
    "io.debezium.time.ZonedTimestamp": lambda value, _: datetime.fromisoformat(value),
    "io.debezium.time.MicroDuration": lambda value, _: timedelta(microseconds=value),
    "org.apache.kafka.connect.data.Decimal": _decimal,
    "io.debezium.data.VariableScaleDecimal": lambda value, _: _scaled(value["value"], value["scale"]),
    "io.debezium.data.Json": lambda value, _: msgspec.json.decode(value),
}


def value_of(value: Any, schema: Json | None, unavailable: str = UNAVAILABLE) -> Any:
    """A value as its schema says; as it is, if there is none.

    Raises:
        Missing: It was not told.
    """
    if _unavailable(value, unavailable):
        raise Missing
    if value is None or schema is None:
        return value
    named = _BY_NAME.get(schema.get("name") or "")
    try:
        if named is not None:
            return named(value, schema)
        return _by_type(value, schema, unavailable)
    except (ValueError, TypeError, KeyError, ArithmeticError, binascii.Error, msgspec.DecodeError):
        return value  # out of Python's range, as the year 12000: the model says what it thinks of it


def _by_type(value: Any, schema: Json, unavailable: str) -> Any:
    match schema.get("type"):
        case "bytes":
            return base64.b64decode(value, validate=True)
        case "array":
            return [value_of(each, schema.get("items"), unavailable) for each in value]
        case "map" if isinstance(value, Mapping):
            return {name: value_of(each, schema.get("values"), unavailable) for name, each in value.items()}
        case "struct":
            return struct_of(value, schema, unavailable)[0]
    return value


def _unavailable(value: Any, unavailable: str) -> bool:
    """The placeholder, in each of the forms that it has for texts, bytes, arrays and maps."""
    if isinstance(value, str):
        return value == unavailable or value == base64.b64encode(unavailable.encode()).decode()
    if isinstance(value, list):
        return (len(value) == 1 and _unavailable(value[0], unavailable)) or value == list(unavailable.encode())
    return isinstance(value, dict) and len(value) == 1 and value == {unavailable: unavailable}


def struct_of(values: Json, schema: Json | None, unavailable: str = UNAVAILABLE) -> tuple[dict[str, Any], set[str]]:
    """A row, and the names of its columns that were not told."""
    fields = {field["field"]: field for field in (schema or {}).get("fields") or ()}
    row: dict[str, Any] = {}
    missing: set[str] = set()
    for name, value in values.items():
        try:
            row[name] = value_of(value, fields.get(name), unavailable)
        except Missing:
            missing.add(name)
    return row, missing


def field_of(schema: Json | None, name: str) -> Json | None:
    """A part of a struct's schema."""
    return next((each for each in (schema or {}).get("fields") or () if each.get("field") == name), None)


# MongoDB's extended JSON.


def document_of(text: str) -> dict[str, Any]:
    """A document of MongoDB's extended JSON, canonical or relaxed.

    Raises:
        DecodeError: It is not one.
    """
    try:
        found = extended(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise DecodeError(f"expected a document in MongoDB's extended JSON, found {text[:80]!r} ({error})") from None
    if not isinstance(found, dict):
        raise DecodeError(f"expected a document in MongoDB's extended JSON, found {text[:80]!r}")
    return found


def extended(value: Any) -> Any:
    """A value of MongoDB's extended JSON as Python has it; an object id as its 24 digits."""
    if isinstance(value, list):
        return [extended(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value and all(name.startswith("$") for name in value):
        name, inner = next(iter(value.items()))
        convert = _EXTENDED.get(name)
        if convert is not None:
            return convert(inner)
    return {name: extended(each) for name, each in value.items()}


def _date(value: Any) -> datetime:
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    millis = int(extended(value))
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)


def _binary(value: Any) -> Any:
    kind = value["subType"] if isinstance(value, dict) else "00"
    data = base64.b64decode(value["base64"] if isinstance(value, dict) else value)
    return str(UUID(bytes=data)) if kind in ("4", "04") and len(data) == 16 else data


_EXTENDED: dict[str, Callable[[Any], Any]] = {
    "$oid": str,
    "$date": _date,
    "$numberInt": int,
    "$numberLong": int,
    "$numberDouble": float,
    "$numberDecimal": Decimal,
    "$binary": _binary,
    "$uuid": str,
    "$symbol": str,
    "$code": str,
    "$undefined": lambda _: None,
    "$timestamp": lambda value: datetime.fromtimestamp(int(value["t"]), UTC),
    "$regularExpression": lambda value: value["pattern"],
}
