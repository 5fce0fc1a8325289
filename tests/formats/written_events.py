"""Events as Python values, and how three writers put them: the same events in JSON, Avro and Protobuf.

The bytes of Avro come from fastavro's writer and those of Protobuf from the protobuf runtime: from other hands than
those that read them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

import fastavro
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sample_models import Limits, Nested, Payment, Rich, Typed

from headrace.formats.protobuf_schema import ProtoFile
from headrace.formats.verdicts import RefusedError, frame_of, judge_json
from headrace.schema import Decoded, Event, Schema

MANY = 60  # past this, messages are read by column
Row = dict[str, Any]
AT = datetime(2024, 1, 2, tzinfo=UTC)
EVENT: Row = {"user_id": "a", "amount": 1.5, "at": AT}
ROW = ("a", 1.5, AT)

TEXTS = st.sampled_from(["", "a", "b2", "é", "日本", "😀", "a,b", "l\nl", "x" * 30, "\x00", "red", "buy", "A1", "5"])
LONGS = st.integers(-9, 9) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**55, 2**56, -(2**62), 2**63 - 2])
FLOATS = st.floats(-9, 9) | st.floats() | st.sampled_from([0.3, 1e6, -10.0])
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
MILLIS = MOMENTS.map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


PARTS = st.fixed_dictionaries({"sku": TEXTS, "n": st.integers(-1, 9), "note": maybe(TEXTS)})
VALUES: dict[type[Event], dict[str, st.SearchStrategy[Any]]] = {
    Payment: {"user_id": TEXTS, "amount": FLOATS, "at": MOMENTS},
    Rich: {
        "_id": TEXTS,
        "n": LONGS,
        "x": FLOATS,
        "b": st.booleans(),
        "at": MILLIS,
        "note": TEXTS,
        "maybe": maybe(st.integers(-9, 9)),
        "other": maybe(FLOATS),
        "must": maybe(TEXTS),
    },
    Limits: {
        "code": TEXTS,
        "even": LONGS,
        "step": st.integers(-99, 99).map(lambda n: n / 20),
        "colour": st.sampled_from(["red", "blue", "green"]),
        "side": maybe(st.sampled_from(["buy", "sell", "hold"])),
        "level": st.integers(0, 3),
        "at": MOMENTS,
    },
    Typed: {
        "at": MOMENTS,
        "then": maybe(MOMENTS),
        "day": maybe(st.dates()),
        "clock": maybe(st.times()),
        "price": maybe(st.decimals(-(10**6), 10**9, places=3)),
        "uid": maybe(st.uuids()),
        "blob": maybe(TEXTS.map(str.encode)),
    },
    Nested: {
        "at": MOMENTS,
        "part": PARTS,
        "parts": st.lists(PARTS, max_size=3),
        "tags": st.lists(TEXTS, max_size=4),
        "sizes": st.lists(st.floats(-9, 9), max_size=3),
    },
}


def union(written: Any) -> list[Any]:
    return ["null", written]


def moment(unit: str) -> Row:
    return {"type": "long", "logicalType": f"timestamp-{unit}"}


AVRO_PART = {
    "type": "record",
    "name": "Part",
    "fields": [
        {"name": "sku", "type": "string"},
        {"name": "n", "type": "int"},
        {"name": "note", "type": union("string")},
    ],
}
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["red", "blue", "green"]}
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 3}
AVRO: dict[type[Event], dict[str, Any]] = {
    Payment: {"user_id": "string", "amount": "double", "at": moment("micros")},
    Rich: {
        "_id": "string",
        "n": "long",
        "x": "double",
        "b": "boolean",
        "at": moment("millis"),
        "note": "string",
        "maybe": union("int"),
        "other": union("double"),
        "must": union("string"),
    },
    Limits: {
        "code": "string",
        "even": "long",
        "step": "double",
        "colour": COLOUR,
        "side": union("string"),
        "level": "int",
        "at": moment("micros"),
    },
    Typed: {
        "at": moment("micros"),
        "then": union(moment("micros")),
        "day": union({"type": "int", "logicalType": "date"}),
        "clock": union({"type": "long", "logicalType": "time-micros"}),
        "price": union(PRICE),
        "uid": union({"type": "string", "logicalType": "uuid"}),
        "blob": union("bytes"),
    },
    Nested: {
        "at": moment("micros"),
        "part": AVRO_PART,
        "parts": {"type": "array", "items": "Part"},
        "tags": {"type": "array", "items": "string"},
        "sizes": {"type": "array", "items": "double"},
    },
}
PROTO: dict[type[Event], str] = {
    Payment: "string user_id = 1; double amount = 2; google.protobuf.Timestamp at = 3;",
    Rich: """string id = 1 [json_name = "_id"]; int64 n = 2; double x = 3; bool b = 4;
        google.protobuf.Timestamp at = 5; string note = 6; optional sint32 maybe = 7;
        google.protobuf.DoubleValue other = 8; optional string must = 9;""",
    Limits: """string code = 1; sfixed64 even = 2; double step = 3; Colour colour = 4; optional string side = 5;
        fixed32 level = 6; google.protobuf.Timestamp at = 7; enum Colour { red = 0; blue = 1; green = 2; }""",
    Typed: """google.protobuf.Timestamp at = 1; google.protobuf.Timestamp then = 2; google.type.Date day = 3;
        google.type.TimeOfDay clock = 4; confluent.type.Decimal price = 5; optional string uid = 6;
        google.protobuf.BytesValue blob = 7;""",
    Nested: """google.protobuf.Timestamp at = 1; Part part = 2; repeated Part parts = 3; repeated string tags = 4;
        repeated double sizes = 5; message Part { string sku = 1; int32 n = 2; optional string note = 3; }""",
}
IMPORTS = ["google/protobuf/timestamp", "google/protobuf/wrappers", "google/type/date", "google/type/timeofday"]
IMPORTS += ["confluent/type/decimal"]
# What Protobuf has no null for: there it is missing, and the model's default fills it.
DEFAULTS: Row = {"other": 2.5, "must": None, "maybe": None}


def events(model: type[Event], least: int = 0, most: int = 30) -> st.SearchStrategy[list[Row]]:
    return st.lists(st.fixed_dictionaries(VALUES[model]), min_size=least, max_size=most)


def plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    return value.decode() if isinstance(value, bytes) else value


def as_json(row: Row) -> bytes:
    return json.dumps(row, default=plain).encode()


def avro_schema(model: type[Event]) -> Row:
    fields = [{"name": name, "type": written} for name, written in AVRO[model].items()]
    return {"type": "record", "name": model.__name__, "namespace": "shop", "fields": fields}


def avro_writer(schema: Any, head: bytes = b"") -> Callable[[Any], bytes]:
    parsed = fastavro.parse_schema(schema)

    def write(row: Any) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, row)
        return head + out.getvalue()

    return write


def proto_text(model: type[Event]) -> str:
    imports = "".join(f'import "{name}.proto"; ' for name in IMPORTS)
    return f'syntax = "proto3"; package shop; {imports} message {model.__name__} {{ {PROTO[model]} }}'


@cache
def proto_class(model: type[Event]) -> type[Message]:
    return GetMessageClass(ProtoFile(proto_text(model), {}).at([0]))


def as_proto(model: type[Event], row: Row) -> bytes:
    message = proto_class(model)()
    for name, value in row.items():
        if value is not None:
            _set(message, "id" if name == "_id" else name, value)
    return message.SerializeToString()


def _set(message: Any, name: str, value: Any) -> None:
    part = getattr(message, name)
    if isinstance(value, datetime):
        since = value - datetime(1970, 1, 1, tzinfo=UTC)
        part.seconds, part.nanos = since // timedelta(seconds=1), since.microseconds * 1000
    elif isinstance(value, date):
        part.year, part.month, part.day = value.year, value.month, value.day
    elif isinstance(value, time):
        part.hours, part.minutes, part.seconds = value.hour, value.minute, value.second
        part.nanos = value.microsecond * 1000
        part.SetInParent()
    elif isinstance(value, Decimal):
        part.value, part.scale = int(value.scaleb(3)).to_bytes(12, "big", signed=True), 3
    elif isinstance(value, UUID):
        setattr(message, name, str(value))
    elif isinstance(value, dict):
        part.SetInParent()
        for key, item in value.items():
            if item is not None:
                setattr(part, key, item)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                part.add(**{key: one for key, one in item.items() if one is not None})
            else:
                part.append(item)
    elif name == "colour":
        setattr(message, name, ["red", "blue", "green"].index(value))
    elif name in ("other", "blob"):
        part.value = value
        part.SetInParent()
    else:
        setattr(message, name, value)


def verdicts(schema: Schema, messages: Sequence[bytes]) -> list[Any]:
    """Of each JSON message alone: its row, or None."""
    found: list[Any] = []
    for message in messages:
        try:
            found.append(judge_json(schema, message))
        except RefusedError:
            found.append(None)
    return found


def check(schema: Schema, expected: Sequence[Any], messages: Sequence[bytes], found: Decoded) -> None:
    """The same rows taken with the same values, each other message a reject with its bytes."""
    refused = [place for place, row in enumerate(expected) if row is None]
    assert refused == [reject.row for reject in found.rejects]
    assert [messages[place] for place in refused] == [reject.raw for reject in found.rejects]
    assert all(reject.reason for reject in found.rejects)
    assert_frame_equal(frame_of(schema, [row for row in expected if row is not None]), found.frame, check_exact=True)


def same(one: Decoded, other: Decoded) -> None:
    assert one.rejects == other.rejects
    assert_frame_equal(one.frame, other.frame, check_exact=True)


def reasons(decoded: Decoded) -> list[tuple[int, str]]:
    return [(reject.row, reject.reason) for reject in decoded.rejects]
