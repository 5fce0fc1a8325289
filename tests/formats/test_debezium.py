"""Debezium's messages as changes: envelopes as its documentation shows them, for Postgres, MySQL and MongoDB."""

from __future__ import annotations

import base64
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from headrace.cdc import Change
from headrace.document import Document, TableSchema
from headrace.errors import ConfigError, DecodeError
from headrace.formats.debezium import change_decoder
from headrace.formats.debezium_values import UNAVAILABLE, value_of


class Customer(Document):
    id: int
    name: str = ""
    notes: str | None = None


class Note(Document):
    id: str
    text: str = ""


CUSTOMERS = TableSchema.of("customers", [Customer], key="id")
NOTES = TableSchema.of("notes", [Note], key="id")
PAIRS = TableSchema.of("pairs", [type("Pair", (Document,), {"__annotations__": {"a": int, "b": str}})], key=["a", "b"])
AT = 1_720_000_000_123

POSTGRES = {
    "version": "3.6.3.Final", "connector": "postgresql", "name": "news", "ts_ms": AT, "ts_us": AT * 1000 + 456,
    "snapshot": "false", "db": "news", "sequence": '["23","24"]', "schema": "public", "table": "customers",
    "txId": 571, "lsn": 24023128, "xmin": None,
}  # fmt: skip
MYSQL = {
    "version": "3.6.3.Final", "connector": "mysql", "name": "news", "ts_ms": AT, "snapshot": "false", "db": "shop",
    "table": "customers", "server_id": 223344, "gtid": None, "file": "mysql-bin.000003", "pos": 484, "row": 0,
    "thread": 7, "query": None,
}  # fmt: skip
MONGO = {
    "version": "3.6.3.Final", "connector": "mongodb", "name": "news", "ts_ms": AT, "snapshot": "false", "db": "shop",
    "rs": "rs0", "collection": "notes", "ord": 1, "lsid": None, "txnNumber": None, "wallTime": AT,
}  # fmt: skip


def told(
    value: Any,
    key: Any = None,
    schema: TableSchema = CUSTOMERS,
    format: str = "debezium",
    headers: Any = (),
    **options: Any,
) -> list[Change]:
    """The changes of one message; dicts are written as JSON."""
    data, name = (json.dumps(each).encode() if isinstance(each, dict | list) else each for each in (value, key))
    return list(change_decoder(schema, format, **options)(name, data, headers))


def envelope(op: str, before: Any, after: Any, source: dict[str, Any] = POSTGRES, **more: Any) -> dict[str, Any]:
    return {"before": before, "after": after, "source": source, "op": op, "ts_ms": AT + 5, "transaction": None} | more


def struct(*fields: dict[str, Any], name: str | None = None, field: str | None = None) -> dict[str, Any]:
    found = {"type": "struct", "fields": list(fields), "optional": True}
    return found | ({"name": name} if name else {}) | ({"field": field} if field else {})


ROW = [
    {"type": "int32", "optional": False, "field": "id"},
    {"type": "string", "optional": False, "field": "name"},
]


def with_schema(payload: Any) -> dict[str, Any]:
    fields = [struct(*ROW, name="Value", field=side) for side in ("before", "after")]
    return {"schema": struct(*fields, name="news.public.customers.Envelope"), "payload": payload}


ANN, BEN = {"id": 1, "name": "Ann"}, {"id": 1, "name": "Ben"}


@pytest.mark.parametrize("source", [POSTGRES, MYSQL])
@pytest.mark.parametrize("wrapped", [with_schema, lambda payload: payload])
def test_envelopes_with_and_without_a_schema(source: dict[str, Any], wrapped: Any) -> None:
    at = source.get("ts_us", AT * 1000)
    assert [
        told(wrapped(envelope("r", None, ANN, source))),
        told(wrapped(envelope("c", None, ANN, source))),
        told(wrapped(envelope("u", None, BEN, source))),
        told(wrapped(envelope("u", ANN, BEN, source))),
        told(wrapped(envelope("d", ANN, None, source))),
        told(wrapped(envelope("d", None, None, source)), {"id": 1}),
        told(wrapped(envelope("t", None, None, source))),
        told(wrapped({"op": "m", "ts_ms": AT, "source": source, "message": {"prefix": "p", "content": ""}})),
    ] == [
        [Change("upsert", ANN, at=at)],
        [Change("upsert", ANN, at=at)],
        [Change("upsert", BEN, at=at)],
        [Change("upsert", BEN, at=at)],
        [Change("delete", key={"id": 1}, at=at)],
        [Change("delete", key={"id": 1}, at=at)],
        [Change("truncate", at=at)],
        [],
    ]


def test_a_key_that_changed_is_a_delete_and_an_insert() -> None:
    moved = {"id": 2, "name": "Ann"}
    messages = [(envelope("d", ANN, None), {"id": 1}), (None, {"id": 1}), (envelope("c", None, moved), {"id": 2})]
    found = [change for value, key in messages for change in told(value, key)]
    assert [(change.op, change.key, change.row) for change in found] == [
        ("delete", {"id": 1}, None),
        ("delete", {"id": 1}, None),
        ("upsert", None, moved),
    ]
    # A connector that tells it as an update, with what was before.
    assert [change.key for change in told(envelope("u", ANN, moved))] == [{"id": 1}]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ({"id": 1}, {"id": 1}),
        ({"schema": struct(ROW[0], name="Key"), "payload": {"id": 1}}, {"id": 1}),
        (b"1", "1"),
        (b'"1"', "1"),
        (b"one", "one"),
        (b"1e5", "1e5"),
        ({"schema": {"type": "string", "optional": False}, "payload": "one"}, "one"),
        ({"id": '{"$oid": "596e275826f08b2730779e1f"}'}, {"id": "596e275826f08b2730779e1f"}),
        ({"id": '"abc"'}, {"id": "abc"}),
    ],
)
def test_tombstones_delete_by_their_key(key: Any, expected: Any) -> None:
    assert told(None, key) == told(b"null", key) == [Change("delete", key=expected)]


def test_keys_of_several_columns() -> None:
    assert told(None, {"a": 1, "b": "x", "c": 0}, PAIRS) == [Change("delete", key={"a": 1, "b": "x"})]
    assert told(None, b'[1, "x"]', PAIRS, "json") == [Change("delete", key={"a": 1, "b": "x"})]


@pytest.mark.parametrize("key", [None, {"other": 1}, b"\xff"])
def test_a_delete_without_a_key_is_refused(key: Any) -> None:
    with pytest.raises(DecodeError, match="key"):
        told(None, key, PAIRS)


# Values.


def decimal(scale: int) -> dict[str, Any]:
    name = "org.apache.kafka.connect.data.Decimal"
    return {"type": "bytes", "name": name, "parameters": {"scale": str(scale)}}


UNSCALED = base64.b64encode((123456789012345678901234567890123).to_bytes(16, signed=True)).decode()
ZONED = {"type": "string", "name": "io.debezium.time.ZonedTimestamp"}
DATE = {"type": "int32", "name": "io.debezium.time.Date"}
VARIABLE = {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal"}
TYPES = [
    (DATE, 19849, date(2024, 5, 6)),
    ({"type": "int32", "name": "org.apache.kafka.connect.data.Date"}, -1, date(1969, 12, 31)),
    ({"type": "int64", "name": "io.debezium.time.Timestamp"}, 1714979289123, datetime(2024, 5, 6, 7, 8, 9, 123000)),
    ({"type": "int64", "name": "io.debezium.time.MicroTimestamp"}, -1, datetime(1969, 12, 31, 23, 59, 59, 999999)),
    ({"type": "int64", "name": "io.debezium.time.NanoTimestamp"}, 1500, datetime(1970, 1, 1, 0, 0, 0, 1)),
    ({"type": "int64", "name": "org.apache.kafka.connect.data.Timestamp"}, 1000, datetime(1970, 1, 1, 0, 0, 1)),
    (ZONED, "2024-05-06T07:08:09Z", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
    ({"type": "int32", "name": "io.debezium.time.Time"}, 3_723_004, time(1, 2, 3, 4000)),
    ({"type": "int64", "name": "io.debezium.time.MicroTime"}, 3_723_000_004, time(1, 2, 3, 4)),
    ({"type": "int64", "name": "io.debezium.time.MicroDuration"}, 1_500_000, timedelta(seconds=1.5)),
    ({"type": "int64", "name": "io.debezium.time.MicroTimestamp"}, 1 << 62, 1 << 62),
    (decimal(2), "AN4=", Decimal("2.22")),
    (decimal(0), "/w==", Decimal(-1)),
    (
        decimal(30),
        UNSCALED,
        Decimal("123.456789012345678901234567890123"),
    ),
    (decimal(2), 2.22, Decimal("2.22")),
    (VARIABLE, {"scale": 1, "value": "Dw=="}, Decimal("1.5")),
    ({"type": "string"}, "2.22", "2.22"),
    ({"type": "double"}, 2.22, 2.22),
    ({"type": "bytes"}, "AP8=", b"\x00\xff"),
    ({"type": "string", "name": "io.debezium.data.Json"}, '{"a": [1]}', {"a": [1]}),
    ({"type": "string", "name": "io.debezium.data.Uuid"}, "0b1f", "0b1f"),
    ({"type": "array", "items": DATE}, [0, None], [date(1970, 1, 1), None]),
    ({"type": "map", "values": {"type": "bytes"}}, {"a": "AA=="}, {"a": b"\x00"}),
    (struct({"field": "x", "type": "bytes"}), {"x": "AA==", "y": 1}, {"x": b"\x00", "y": 1}),
    ({"type": "int32", "name": "io.debezium.time.Date"}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "value", "expected"), TYPES)
def test_what_a_schema_says_of_values(schema: dict[str, Any], value: Any, expected: Any) -> None:
    assert value_of(value, schema) == expected


def test_a_schema_is_applied_to_rows_and_keys() -> None:
    day = {"type": "int32", "name": "io.debezium.time.Date", "field": "id"}
    message = {
        "schema": struct(struct(day, field="before"), struct(day, field="after")),
        "payload": envelope("c", None, {"id": 1}),
    }
    assert told(message)[0].row == {"id": date(1970, 1, 2)}
    assert told(None, {"schema": struct(day), "payload": {"id": 1}})[0].key == {"id": date(1970, 1, 2)}


# What was not told.


@pytest.mark.parametrize("untold", [UNAVAILABLE, base64.b64encode(UNAVAILABLE.encode()).decode(), [UNAVAILABLE]])
def test_a_value_that_was_not_told_never_overwrites(untold: Any) -> None:
    with pytest.raises(DecodeError, match="no value of notes, which the update left alone"):
        told(envelope("u", None, ANN | {"notes": untold}))
    full = envelope("u", ANN | {"notes": "long"}, BEN | {"notes": untold})
    assert told(full)[0].row == BEN | {"notes": "long"}
    assert told(envelope("u", None, ANN | {"no_field_of_the_model": untold}))[0].row == ANN
    with pytest.raises(DecodeError, match="notes"):
        told(ANN | {"notes": untold})


def test_the_placeholder_may_be_another() -> None:
    assert told(envelope("u", None, ANN | {"notes": UNAVAILABLE}), unavailable="?")[0].row == ANN | {
        "notes": UNAVAILABLE
    }
    with pytest.raises(DecodeError, match="notes"):
        told(envelope("u", None, ANN | {"notes": "?"}), unavailable="?")


# MongoDB.

OID = "596e275826f08b2730779e1f"
MONGO_KEY = {"id": json.dumps({"$oid": OID})}


def mongo(op: str, after: Any, **more: Any) -> dict[str, Any]:
    return envelope(op, None, None if after is None else json.dumps(after), MONGO, **more)


def test_documents_of_mongodb() -> None:
    document = {
        "_id": {"$oid": OID}, "text": "t", "long": {"$numberLong": "9223372036854775807"}, "int": {"$numberInt": "1"},
        "double": {"$numberDouble": "1.5"}, "decimal": {"$numberDecimal": "1.10"}, "when": {"$date": 1720000000123},
        "then": {"$date": "2024-05-06T07:08:09Z"}, "later": {"$date": {"$numberLong": "-1"}},
        "raw": {"$binary": {"base64": "AP8=", "subType": "00"}}, "list": [{"$numberInt": "1"}, {"a": {"$oid": OID}}],
        "uuid": {"$binary": {"base64": "AAECAwQFBgcICQoLDA0ODw==", "subType": "04"}}, "nothing": None,
    }  # fmt: skip
    row = {
        "id": OID, "_id": OID, "text": "t", "long": 9223372036854775807, "int": 1, "double": 1.5,
        "decimal": Decimal("1.10"), "when": datetime(2024, 7, 3, 9, 46, 40, 123000, UTC),
        "then": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), "later": datetime(1969, 12, 31, 23, 59, 59, 999000, UTC),
        "raw": b"\x00\xff", "list": [1, {"a": OID}], "uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f", "nothing": None,
    }  # fmt: skip
    for op in ("r", "c", "u"):
        assert told(mongo(op, document), MONGO_KEY, NOTES) == [Change("upsert", row, at=AT * 1000)]
    assert told(mongo("d", None), MONGO_KEY, NOTES) == [Change("delete", key={"id": OID}, at=AT * 1000)]
    assert told(None, MONGO_KEY, NOTES) == [Change("delete", key={"id": OID})]


def test_updates_of_mongodb_that_are_not_whole_are_refused() -> None:
    update = {"updatedFields": '{"text": "new"}', "removedFields": None, "truncatedArrays": None}
    for more in ({"updateDescription": update}, {"patch": '{"$set": {"text": "new"}}'}):
        with pytest.raises(DecodeError, match="change_streams_update_full"):
            told(mongo("u", None, **more), MONGO_KEY, NOTES)
    replaced = mongo("u", None, patch=json.dumps({"_id": {"$oid": OID}, "text": "new"}))
    assert told(replaced, MONGO_KEY, NOTES)[0].row == {"id": OID, "_id": OID, "text": "new"}


# Flattened rows, rows under keys, outboxes.


@pytest.mark.parametrize("wrapped", [lambda row: {"schema": struct(*ROW), "payload": row}, lambda row: row])
def test_flattened_rows(wrapped: Any) -> None:
    meta = {"__op": "u", "__table": "customers", "__lsn": 5, "__source_ts_ms": AT}
    assert [
        told(wrapped(ANN)),
        told(wrapped(ANN | meta)),
        told(wrapped(ANN | {"__deleted": "false"})),
        told(wrapped({"id": 1, "name": None, "__deleted": "true"})),
        told(wrapped(ANN | {"__op": "d"})),
        told(None, {"id": 1}),
    ] == [
        [Change("upsert", ANN)],
        [Change("upsert", ANN, at=AT * 1000)],
        [Change("upsert", ANN)],
        [Change("delete", key={"id": 1})],
        [Change("delete", key={"id": 1})],
        [Change("delete", key={"id": 1})],
    ]


def test_rows_under_keys() -> None:
    assert told(ANN, b"1", format="json") == [Change("upsert", ANN)]
    assert told({"text": "t"}, b"a", NOTES, "json") == [Change("upsert", {"id": "a", "text": "t"})]
    assert told(None, b"1", format="json") == [Change("delete", key="1")]


@pytest.mark.parametrize("wrapped", [
    lambda payload: payload,
    json.dumps,
    lambda payload: {"schema": {"type": "string", "name": "io.debezium.data.Json"}, "payload": json.dumps(payload)},
    lambda payload: {"payload": json.dumps(payload), "eventType": "NoteWritten"},
])  # fmt: skip
def test_an_outbox(wrapped: Any) -> None:
    written = [("id", b"4d47e190"), ("eventType", b"NoteWritten")]
    payload = wrapped({"text": "t"})
    value = json.dumps(payload).encode()
    assert told(value, b"n1", NOTES, "outbox", written) == [Change("upsert", {"id": "n1", "text": "t"})]
    for event in (b"NoteDeleted", b'"NoteDeleted"', json.dumps(with_schema("NoteDeleted")).encode()):
        assert told(value, b"n1", NOTES, "outbox", [("eventType", event)]) == [Change("delete", key="n1")]
    withdrawn = [("eventType", b"NoteWithdrawn")]
    assert told(value, b"n1", NOTES, "outbox", withdrawn, deleted="Gone,Note*drawn") == [Change("delete", key="n1")]
    assert told(None, b"n1", NOTES, "outbox", written) == [Change("delete", key="n1")]


@pytest.mark.parametrize("format", ["debezium", "json", "outbox"])
@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b"", b"3", b"[" * 10_000, b"{", b'{"schema": {}, "payload": 3}', b"[1]"]
)
def test_noise_is_refused(format: str, value: bytes) -> None:
    if format == "json" and b"schema" in value:
        pytest.skip("a row that has these two columns")
    with pytest.raises(DecodeError):
        told(value, b"k", NOTES, format)


def test_formats_that_there_are_not() -> None:
    with pytest.raises(ConfigError, match="did you mean 'debezium'"):
        change_decoder(NOTES, "debesium")
