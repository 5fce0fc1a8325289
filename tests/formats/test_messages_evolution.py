"""A writer's schema that has changed: what goes through, and what is named as the difference."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from written_events import AT, EVENT, MANY, ROW, avro_schema, avro_writer, reasons

from headrace.formats.messages import message_decoder
from headrace.schema import Event, Schema, event_time
from services.registry import Registry

from sample_models import Payment  # isort: skip

PAYMENT = Schema.of(Payment)


class Home(BaseModel):
    city: str
    floor: int = 1
    note: str | None = "none"


class Everything(Event):
    at: datetime = event_time(unit="ms")
    text: str = "t"
    whole: int = 0
    real: float = 0.5
    flag: bool = False
    then: datetime | None = None
    day: date | None = None
    clock: time | None = None
    uid: UUID | None = None
    blob: bytes | None = None
    price: Decimal | None = None
    tags: list[str] = Field([])
    home: Home | None = None
    other: float | None = 2.5
    stamp: str = Field("s", alias="_stamp")
    made: list[int] = Field(default_factory=list)


EVERYTHING = Schema.of(Everything)
UID = UUID("12345678-1234-5678-1234-567812345678")


def logical(plain: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": plain, "logicalType": name, **more}


def fixed(size: int, name: str, **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": "F", "size": size, "logicalType": name, **more}


RED = {"type": "enum", "name": "E", "symbols": ["blue", "red"]}
HOME = {"type": "record", "name": "H", "fields": [{"name": "city", "type": "string"}]}
BECOMES: list[tuple[str, Any, Any, Any]] = [
    ("text", "string", "é", "é"),
    ("text", "bytes", b"abc", "abc"),
    ("text", RED, "red", "red"),
    ("text", ["null", "string"], None, "t"),
    ("text", fixed(16, "uuid"), UID.bytes, str(UID)),
    ("whole", "int", -3, -3),
    ("whole", "long", 2**40, 2**40),
    ("whole", logical("long", "timestamp-millis"), AT, 1704153600000),
    ("whole", ["null", "int", "long"], 5, 5),
    ("real", "int", 3, 3.0),
    ("real", "long", 2**53 + 1, float(2**53 + 1)),
    ("real", "float", 0.5, 0.5),
    ("real", "double", 0.1, 0.1),
    ("real", ["int", "double"], 0.1, 0.1),
    ("real", ["long", "double", "null"], 7, 7.0),
    ("real", logical("bytes", "decimal", precision=9, scale=2), Decimal("-3.25"), -3.25),
    ("flag", "boolean", True, True),
    ("then", logical("long", "timestamp-micros"), AT, AT),
    ("then", logical("long", "local-timestamp-millis"), datetime(2024, 1, 2), AT),
    ("then", "string", "2024-01-02T00:00:00Z", AT),
    ("then", logical("int", "date"), date(2024, 1, 2), AT),
    ("day", logical("int", "date"), date(1900, 2, 3), date(1900, 2, 3)),
    ("day", "string", "1900-02-03", date(1900, 2, 3)),
    ("clock", logical("int", "time-millis"), time(1, 2, 3, 4000), time(1, 2, 3, 4000)),
    ("clock", logical("long", "time-micros"), time(1, 2, 3, 4), time(1, 2, 3, 4)),
    ("uid", logical("string", "uuid"), UID, str(UID)),
    ("uid", fixed(16, "uuid"), UID.bytes, str(UID)),
    ("blob", "bytes", b"\xff\x00", b"\xff\x00"),
    ("blob", "string", "é", "é".encode()),
    ("blob", {"type": "fixed", "name": "F", "size": 2}, b"ab", b"ab"),
    (
        "price",
        logical("bytes", "decimal", precision=30, scale=4),
        Decimal("12345678901234567890.1234"),
        12345678901234567890.1234,
    ),
    ("price", fixed(3, "decimal", precision=6, scale=1), Decimal("-0.1"), -0.1),
    ("price", "double", 1.5, 1.5),
    ("tags", {"type": "array", "items": "string"}, ["a", "", "c"], ["a", "", "c"]),
    ("tags", {"type": "array", "items": RED}, [], []),
    ("home", ["null", HOME], {"city": "Ghent"}, {"city": "Ghent", "floor": 1, "note": "none"}),
    (
        "home",
        {"type": "map", "values": "string"},
        {"city": "Ghent", "zz": "x"},
        {"city": "Ghent", "floor": 1, "note": "none"},
    ),
    (
        "home",
        {"type": "map", "values": ["null", "string"]},
        {"city": "a", "note": None},
        {"city": "a", "floor": 1, "note": None},
    ),
    ("at", "double", 1704153600000.0, AT),
    ("at", "string", "2024-01-02", AT),
]


@pytest.mark.parametrize("copies", [1, MANY])
@pytest.mark.parametrize(("field", "written", "value", "expected"), BECOMES)
def test_a_type_that_may_become_the_models(field: str, written: Any, value: Any, expected: Any, copies: int) -> None:
    fields = [{"name": field, "type": written}]
    fields += [] if field == "at" else [{"name": "at", "type": "long"}]
    schema = {"type": "record", "name": "R", "fields": fields}
    with Registry() as registry:
        number = registry.register("r", schema)
        message = avro_writer(schema, b"\0" + number.to_bytes(4, "big"))({"at": 0, field: value})
        decoded = message_decoder(EVERYTHING, "avro", registry=registry.url)([message] * copies)
    assert decoded.rejects == []
    assert [expected] * copies == decoded.frame[field].to_list()
    assert [2.5] * copies == decoded.frame["other"].to_list()


NO_AMOUNT = "amount: expected float, which the model requires, found no such field"
TIME = "at: expected an event time (a timestamp, a number or text)"
CHANGES: list[tuple[str, dict[str, Any], str | None]] = [
    ("an optional field more", {"coupon": ["null", "string"]}, None),
    ("a record more", {"home": HOME}, None),
    ("a union of many more", {"any": ["null", "int", HOME, {"type": "map", "values": "long"}]}, None),
    ("a wider type", {"amount": "float"}, None),
    ("a type that may be null", {"amount": ["null", "double"]}, None),
    ("a field less", {"amount": None}, NO_AMOUNT),
    (
        "two fields less",
        {"amount": None, "at": None},
        f"{NO_AMOUNT}; {TIME}, which the model requires, found no such field",
    ),
    ("text for a number", {"amount": "string"}, "amount: expected float, found string"),
    ("a number for text", {"user_id": "long"}, "user_id: expected str, found long"),
    ("true or false", {"amount": "boolean"}, "amount: expected float, found boolean"),
    ("always null", {"amount": "null"}, "amount: expected float, found null"),
    (
        "a choice of others",
        {"amount": ["null", "string", "boolean"]},
        "amount: expected float, found a union of null, string, boolean",
    ),
    ("a record for text", {"user_id": HOME}, "user_id: expected str, found record shop.H"),
    ("a list for text", {"user_id": {"type": "array", "items": "string"}}, "user_id: expected str, found array"),
    ("bytes for a time", {"at": "bytes"}, f"{TIME}, found bytes"),
    ("an enum for a number", {"amount": RED}, "amount: expected float, found enum shop.E"),
]


def changed(change: dict[str, Any]) -> dict[str, Any]:
    fields = {each["name"]: each["type"] for each in avro_schema(Payment)["fields"]} | change
    listed = [{"name": name, "type": written} for name, written in fields.items() if written is not None]
    return avro_schema(Payment) | {"fields": listed}


MORE = {"coupon": "x", "home": {"city": "c"}, "any": {"a": 1}}


@pytest.mark.parametrize(("name", "change", "difference"), CHANGES)
def test_a_change_of_schema_among_messages_of_the_old_one(
    name: str, change: dict[str, Any], difference: str | None
) -> None:
    with Registry() as registry:
        old, new = (registry.register("p", changed(each)) for each in ({}, change))
        before = avro_writer(changed({}), b"\0" + old.to_bytes(4, "big"))(EVENT)
        body = b"" if difference else avro_writer(changed(change))({**MORE, **EVENT})
        after = b"\0" + new.to_bytes(4, "big") + body
        decode = message_decoder(PAYMENT, "avro", registry=registry.url)
        decoded = [decode([before, after] * MANY), decode([after, before])]
        assert registry.asked[f"/schemas/ids/{new}"] == 1
    if difference is None:
        assert decoded[0].frame.rows() == [ROW] * (2 * MANY)
        assert [each.rejects for each in decoded] == [[], []]
    else:
        reason = f"schema id {new} cannot be read as Payment: {difference}"
        assert (decoded[0].frame.rows(), decoded[1].frame.rows()) == ([ROW] * MANY, [ROW])
        assert [(row, reason) for row in range(1, 2 * MANY, 2)] == reasons(decoded[0])
        assert reasons(decoded[1]) == [(0, reason)]


def test_an_alias_of_the_writer_and_one_of_the_model() -> None:
    schema = {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "at", "type": "long"},
            {"name": "label", "type": "string", "aliases": ["text"]},
            {"name": "_stamp", "type": "string"},
        ],
    }
    with Registry() as registry:
        head = b"\0" + registry.register("r", schema).to_bytes(4, "big")
        message = avro_writer(schema, head)({"at": 0, "label": "l", "_stamp": "x"})
        decoded = message_decoder(EVERYTHING, "avro", registry=registry.url)([message])
    assert decoded.frame.select("text", "stamp").rows() == [("l", "x")]


def test_a_value_that_cannot_be_the_fields_refuses_its_row_only() -> None:
    schema = changed({"amount": ["double", "string"], "at": "string"})
    rows = [
        {**EVENT, "amount": amount, "at": at}
        for amount, at in ((1.5, "2024-01-02"), ("x", "2024-01-02"), (2.5, "soon"))
    ]
    with Registry() as registry:
        head = b"\0" + registry.register("p", schema).to_bytes(4, "big")
        messages = [*map(avro_writer(schema, head), rows)] * MANY
        decoded = message_decoder(PAYMENT, "avro", registry=registry.url)(messages)
    assert decoded.frame.rows() == [ROW] * MANY
    assert reasons(decoded)[:2] == [
        (1, 'amount: expected a valid number, unable to parse string as a number, found "x"'),
        (2, 'at: expected a valid datetime or date, input is too short, found "soon"'),
    ]


OPEN = {"type": "object", "properties": {"user_id": {"type": "string"}}}
PROPERTIES: dict[str, Any] = {"user_id": {"type": "string"}, "amount": {"type": "number"}, "at": {"type": "string"}}


@pytest.mark.parametrize(
    ("schema", "difference"),
    [
        ({}, None),
        (True, None),
        (OPEN, None),
        ({"properties": PROPERTIES, "additionalProperties": False}, None),
        ({"properties": {**PROPERTIES, "amount": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}}, None),
        ({"properties": {**PROPERTIES, "amount": {"type": ["null", "integer"]}}}, None),
        ({"$ref": "#/$defs/p", "$defs": {"p": {"properties": PROPERTIES, "type": "object"}}}, None),
        (
            {**OPEN, "additionalProperties": False},
            f"{NO_AMOUNT}; {TIME}, which the model requires, found no such field",
        ),
        ({"type": "array"}, "expected a record, found array"),
        ({"properties": {**PROPERTIES, "amount": {"type": "string"}}}, "amount: expected float, found string"),
        (
            {
                "properties": {**PROPERTIES, "amount": {"$ref": "#/definitions/m"}},
                "definitions": {"m": {"type": ["null", "boolean"]}},
            },
            "amount: expected float, found one of null, boolean",
        ),
    ],
)
def test_json_schemas(schema: Any, difference: str | None) -> None:
    with Registry() as registry:
        number = registry.register("p", schema, "JSON")
        message = b"\0" + number.to_bytes(4, "big") + json.dumps({**EVENT, "at": AT.isoformat()}).encode()
        decoded = message_decoder(PAYMENT, "jsonschema", registry=registry.url)([message])
    if difference is None:
        assert decoded.frame.rows() == [ROW]
    else:
        assert reasons(decoded) == [(0, f"schema id {number} cannot be read as Payment: {difference}")]


GOOD = "string user_id = 1; double amount = 2; int64 at = 3;"


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        (GOOD, None),
        (GOOD + " repeated string tags = 4; oneof more { bool yes = 5; Payment inner = 6; } reserved 9;", None),
        (GOOD.replace("double", "float").replace("int64", "fixed32"), None),
        (GOOD.replace("double", "string"), "amount: expected float, found string"),
        (GOOD.replace("double", "repeated double"), "amount: expected float, found repeated double"),
        (GOOD.replace("double", "map<string, double>"), "amount: expected float, found a map of double"),
        (GOOD.replace("double amount = 2;", ""), NO_AMOUNT),
        (GOOD.replace("string", "Payment"), "user_id: expected str, found Payment"),
        (GOOD.replace("string", "bool"), "user_id: expected str, found bool"),
    ],
)
def test_protobuf_schemas(fields: str, difference: str | None) -> None:
    with Registry() as registry:
        number = registry.register("p", f'syntax = "proto3"; message Payment {{ {fields} }}', "PROTOBUF")
        head = b"\0" + number.to_bytes(4, "big") + b"\0"
        decoded = message_decoder(PAYMENT, "protobuf", registry=registry.url)([head + b"\x0a\x01a"])
    if difference is None:
        assert decoded.frame.rows() == [("a", 0.0, datetime(1970, 1, 1, tzinfo=UTC))]
    else:
        assert reasons(decoded) == [(0, f"schema id {number} cannot be read as Payment: {difference}")]


PROTO = """syntax = "proto3"; import "google/protobuf/wrappers.proto"; import "google/protobuf/duration.proto";
message R { int64 at = 1; E text = 2; E whole = 3; google.protobuf.Duration real = 4; bytes blob = 5;
  repeated E tags = 6; map<string, string> home = 7; optional double other = 8; uint64 big = 9;
  enum E { zero = 0; one = 1; } }"""


@pytest.mark.parametrize("copies", [1, MANY, 1500])
def test_protobuf_types(copies: int) -> None:
    from google.protobuf.message_factory import GetMessageClass

    from headrace.formats.protobuf_schema import ProtoFile

    made = GetMessageClass(ProtoFile(PROTO, {}).at([0]))
    values: Any = made(at=5, text=1, whole=1, blob=b"\xff", tags=[1, 0, 7], home={"city": "Ghent", "zz": "x"})
    values.real.FromMicroseconds(1_500_000)
    with Registry() as registry:
        head = b"\0" + registry.register("p", PROTO, "PROTOBUF").to_bytes(4, "big") + b"\0"
        messages = [head + values.SerializeToString(), head] * copies
        decoded = message_decoder(EVERYTHING, "protobuf", registry=registry.url)(messages)
    assert decoded.rejects == []
    columns = ["text", "whole", "real", "blob", "tags", "home", "other"]
    home = {"city": "Ghent", "floor": 1, "note": "none"}
    assert decoded.frame.select(columns).rows()[:1] == [("one", 1, 1.5, b"\xff", ["one", "zero", "7"], home, 2.5)]
