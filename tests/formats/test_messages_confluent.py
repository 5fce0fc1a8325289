"""Messages as Confluent's own serializers write them, from our small registry and from a real one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sample_models import Payment
from written_events import AT, EVENT, MANY, ROW, as_proto, avro_schema, avro_writer, proto_class, proto_text, reasons

from headrace.errors import StorageError
from headrace.formats.messages import message_decoder
from headrace.schema import Schema
from services.kafka import free_ports
from services.registry import Apicurio, Registry

PAYMENT = Schema.of(Payment)
JSON_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Payment",
    "type": "object",
    "properties": {"user_id": {"type": "string"}, "amount": {"type": "number"}, "at": {"type": "string"}},
}


@pytest.fixture(params=["ours", pytest.param("apicurio", marks=pytest.mark.services)], scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry | Apicurio]:
    if request.param == "ours":
        with Registry() as ours:
            yield ours
    else:
        with Apicurio(tmp_path_factory.mktemp("apicurio"), free_ports(1)[0]) as real:
            yield real


@contextmanager
def serializer(kind: str, url: str) -> Iterator[Callable[[Any], bytes]]:
    """Confluent's, with the client of its own; skipped where what it needs is not installed."""
    pytest.importorskip("authlib", reason="confluent-kafka[schemaregistry] is not installed", exc_type=ImportError)
    pytest.importorskip("cachetools", reason="confluent-kafka[schemaregistry] is not installed", exc_type=ImportError)
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.serialization import MessageField, SerializationContext

    with SchemaRegistryClient({"url": url}) as client:
        made = _made(kind, client)
        context = SerializationContext(f"payments-{kind}", MessageField.VALUE)
        yield lambda value: bytes(made(value, context))


def _made(kind: str, client: Any) -> Any:
    if kind == "avro":
        from confluent_kafka.schema_registry.avro import AvroSerializer

        return AvroSerializer(client, json.dumps(avro_schema(Payment)))
    if kind == "protobuf":
        pytest.importorskip("google.type", reason="confluent-kafka[protobuf] is not installed", exc_type=ImportError)
        from confluent_kafka.schema_registry.protobuf import ProtobufSerializer

        return ProtobufSerializer(proto_class(Payment), client, {"use.deprecated.format": False})
    from confluent_kafka.schema_registry.json_schema import JSONSerializer

    return JSONSerializer(json.dumps(JSON_SCHEMA), client)


@pytest.mark.parametrize("kind", ["avro", "protobuf", "json"])
def test_confluents_serializers(running: Registry | Apicurio, kind: str) -> None:
    value: Any = EVENT
    if kind == "protobuf":
        value = proto_class(Payment).FromString(as_proto(Payment, EVENT))
    elif kind == "json":
        value = {**EVENT, "at": AT.isoformat()}
    format = "jsonschema" if kind == "json" else kind
    with serializer(kind, running.url) as write:
        decoded = message_decoder(PAYMENT, format, registry=running.url)([write(value)] * MANY)
    assert (decoded.frame.rows(), decoded.rejects) == ([ROW] * MANY, [])


def test_all_that_is_asked_of_a_registry(running: Registry | Apicurio) -> None:
    money = {"type": "record", "name": "Money", "namespace": "shop", "fields": [{"name": "cents", "type": "long"}]}
    running.register("money", money)
    fields = [*avro_schema(Payment)["fields"], {"name": "tip", "type": "shop.Money"}]
    schema = avro_schema(Payment) | {"fields": fields}
    reference = {"name": "shop.Money", "subject": "money", "version": 1}
    numbers = [
        running.register("payments-value", schema, references=[reference]),
        running.register("old-value", avro_schema(Payment)),
        running.register("proto-value", proto_text(Payment), "PROTOBUF"),
    ]
    heads = [b"\0" + number.to_bytes(4, "big") for number in [*numbers, 123_456]]
    write = avro_writer(avro_schema(Payment))
    messages = [heads[0] + write(EVENT) + b"\x02", heads[1] + write(EVENT), heads[2], heads[3]]
    decoded = message_decoder(PAYMENT, "avro", registry=running.url)(messages)
    assert decoded.frame.rows() == [ROW, ROW]
    assert reasons(decoded) == [
        (2, f"schema id {numbers[2]} cannot be read as Payment: expected a schema of the type AVRO, found PROTOBUF"),
        (3, "schema id 123456 is not in the registry"),
    ]
    proto = message_decoder(PAYMENT, "protobuf", registry=running.url)([heads[2] + b"\0" + as_proto(Payment, EVENT)])
    assert proto.frame.rows() == [ROW]
    with pytest.raises(StorageError, match="is it the address of a schema registry's API"):
        message_decoder(PAYMENT, "avro", registry=running.url + "/wrong")(messages)


@pytest.mark.services
def test_a_real_registry_that_is_killed_and_started_again(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with Apicurio(tmp_path, port) as real:
        number = real.register("payments-value", avro_schema(Payment))
        url = real.url
    message = avro_writer(avro_schema(Payment), b"\0" + number.to_bytes(4, "big"))(EVENT)
    decode = message_decoder(PAYMENT, "avro", registry=url, options={"registry.timeout": "1"})
    with pytest.raises(StorageError, match="cannot be asked for schema id"):
        decode([message])
    with Apicurio(tmp_path, port) as again:
        assert number == again.register("payments-value", avro_schema(Payment))
        assert decode([message]).frame.rows() == [ROW]
