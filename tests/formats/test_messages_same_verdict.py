"""The same events written in Avro, in Protobuf and in JSON have the same verdict and the same values."""

from __future__ import annotations

import json

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from sample_models import MODELS, Rich
from written_events import (
    DEFAULTS,
    as_json,
    as_proto,
    avro_schema,
    avro_writer,
    check,
    events,
    proto_class,
    proto_text,
    same,
    verdicts,
)

from headrace.formats.avro import AvroWire, parse
from headrace.formats.protobuf import ProtobufWire
from headrace.formats.protobuf_schema import ProtoFile
from headrace.formats.wire import Wire, read_wire
from headrace.schema import Event, Schema

BY_ROW, BY_COLUMN = 10**6, 0
HEAD = b"\x00\x00\x00\x00\x07"
AVRO_WIRES = {m: AvroWire(Schema.of(m), parse(json.dumps(avro_schema(m))), len(HEAD)) for m in MODELS}
PROTO_WIRES = {m: ProtobufWire(Schema.of(m), ProtoFile(proto_text(m), {}).at([0]), len(HEAD)) for m in MODELS}


@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
def test_avro(model: type[Event], data: st.DataObject) -> None:
    schema, rows = Schema.of(model), data.draw(events(model))
    messages = [*map(avro_writer(avro_schema(model), HEAD), rows)]
    expected = verdicts(schema, [*map(as_json, rows)])
    for leaf in (BY_ROW, BY_COLUMN):
        check(schema, expected, messages, read_wire(schema, AVRO_WIRES[model], messages, leaf=leaf))


@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
def test_protobuf(model: type[Event], data: st.DataObject) -> None:
    schema, rows = Schema.of(model), data.draw(events(model))
    messages = [HEAD + as_proto(model, row) for row in rows]
    if model is Rich:  # what is not set is missing
        rows = [{key: DEFAULTS.get(key) if value is None else value for key, value in row.items()} for row in rows]
        rows = [{key: value for key, value in row.items() if key != "must" or value is not None} for row in rows]
    expected = verdicts(schema, [*map(as_json, rows)])
    for leaf in (BY_ROW, BY_COLUMN):
        check(schema, expected, messages, read_wire(schema, PROTO_WIRES[model], messages, leaf=leaf))


def spoil(data: st.DataObject, message: bytes) -> bytes:
    """The message with some of its bytes changed, missing or added."""
    how = data.draw(st.sampled_from(["none", "cut", "byte", "add", "random", "insert"]))
    body = bytearray(message[len(HEAD) :])
    if how == "cut":
        del body[data.draw(st.integers(0, len(body))) :]
    elif how == "byte" and body:
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    elif how == "add":
        body += data.draw(st.binary(min_size=1, max_size=12))
    elif how == "insert":
        at = data.draw(st.integers(0, len(body)))
        body[at:at] = data.draw(
            st.sampled_from([b"\xff" * 12, b"\x80" * 9 + b"\x01", b"\x01", b"\xfe\xff\xff\xff\x0f"])
        )
    elif how == "random":
        body[:] = data.draw(st.binary(max_size=40))
    return HEAD + bytes(body)


@pytest.mark.parametrize("wires", [AVRO_WIRES, PROTO_WIRES], ids=["avro", "protobuf"])
@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
def test_spoilt_messages_have_one_verdict_each_by_row_and_by_column(
    wires: dict[type[Event], Wire], model: type[Event], data: st.DataObject
) -> None:
    schema, rows = Schema.of(model), data.draw(events(model, most=12))
    write = avro_writer(avro_schema(model), HEAD) if wires is AVRO_WIRES else lambda row: HEAD + as_proto(model, row)
    messages = [spoil(data, write(row)) for row in rows]
    found = read_wire(schema, wires[model], messages, leaf=BY_COLUMN)
    same(read_wire(schema, wires[model], messages, leaf=BY_ROW), found)
    assert len(messages) == found.frame.height + len(found.rejects)
    assert [messages[reject.row] for reject in found.rejects] == [reject.raw for reject in found.rejects]


@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
def test_what_protobuf_refuses_is_refused(model: type[Event], data: st.DataObject) -> None:
    schema, message = Schema.of(model), HEAD + data.draw(st.binary(max_size=40))
    try:
        proto_class(model).FromString(message[len(HEAD) :])
    except DecodeError:
        assert [reject.row for reject in read_wire(schema, PROTO_WIRES[model], [message]).rejects] == [0]
