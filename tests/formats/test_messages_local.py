"""Messages of one schema in a local file, and what is said where a package is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sample_models import Payment
from written_events import EVENT, ROW, as_proto, avro_schema, avro_writer, proto_text, reasons

from headrace.errors import SchemaError
from headrace.formats.messages import INSTALL, message_decoder
from headrace.schema import Schema

PAYMENT = Schema.of(Payment)


def test_a_local_avro_schema(tmp_path: Path) -> None:
    path = tmp_path / "payment.avsc"
    path.write_text(json.dumps(avro_schema(Payment)))
    decode = message_decoder(PAYMENT, "avro", options={"schema": str(path)})
    message = avro_writer(avro_schema(Payment))(EVENT)
    decoded = decode([message, message[:-1], message + b"!!", b""])
    assert decoded.frame.rows() == [ROW]
    assert reasons(decoded) == [
        (1, "at: expected a number, found the end of the message"),
        (2, "expected the end of the message, found 2 more bytes"),
        (3, "user_id: expected a number, found the end of the message"),
    ]


def test_a_local_proto_with_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "who.proto").write_text('syntax = "proto3"; message Who { string name = 1; }')
    path = tmp_path / "payment.proto"
    path.write_text(
        proto_text(Payment).replace("package shop;", 'package shop; import "who.proto";') + " message Second {}"
    )
    decode = message_decoder(PAYMENT, "protobuf", options={"schema": str(path), "message": "Payment"})
    decoded = decode([as_proto(Payment, EVENT), b"\x0a\xff"])
    assert decoded.frame.rows() == [ROW]
    ((row, reason),) = reasons(decoded)
    assert (row, reason.startswith("expected a shop.Payment, found 2 bytes: ")) == (1, True)
    for options in ({"message": "Payments"}, {}):
        with pytest.raises(
            SchemaError, match=r"expected message= with one of the message types Payment, Second, found "
        ):
            message_decoder(PAYMENT, "protobuf", options={"schema": str(path), **options})


def test_a_local_schema_that_is_not_the_models(tmp_path: Path) -> None:
    path = tmp_path / "payment.avsc"
    path.write_text(json.dumps(avro_schema(Payment)).replace("double", "string"))
    with pytest.raises(
        SchemaError, match=r"payment\.avsc cannot be read as Payment: amount: expected float, found string"
    ):
        message_decoder(PAYMENT, "avro", options={"schema": str(path)})


@pytest.mark.parametrize(
    ("format", "package", "validate"),
    [
        ("avro", "fastavro", "false"),
        ("protobuf", "google", "false"),
        ("protobuf", "grpc_tools", "false"),
        ("jsonschema", "jsonschema", "true"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_mends_it(format: str, package: str, validate: str) -> None:
    code = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Hidden())
from datetime import datetime
import headrace as hr
from headrace.formats.messages import message_decoder
from headrace.schema import Schema
class Payment(hr.Event):
    at: datetime = hr.event_time()
message_decoder(Schema.of(Payment), "json")
try:
    message_decoder(Schema.of(Payment), {format!r}, registry="http://h", options={{"validate": {validate!r}}})
except hr.MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(f"messages in {format} need the package {package!r}"), done.stdout + done.stderr
    assert done.stdout.strip().endswith(INSTALL)
