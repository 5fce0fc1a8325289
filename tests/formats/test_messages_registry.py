"""Messages whose schema is in a registry: what is asked of it, how often, and what happens when it cannot answer."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_models import Payment
from written_events import AT, EVENT, MANY, ROW, as_proto, avro_schema, avro_writer, proto_text, reasons

from headrace.errors import StorageError
from headrace.formats import schema_registry
from headrace.formats.messages import message_decoder
from headrace.schema import Decoded, Schema
from services.registry import Registry

PAYMENT = Schema.of(Payment)
JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "user_id": {"type": "string"},
        "amount": {"type": "number", "maximum": 10},
        "at": {"type": "string"},
    },
    "required": ["user_id", "amount", "at"],
}
Decode = Callable[[Sequence[bytes]], Decoded]


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as running:
        yield running


def head(number: int) -> bytes:
    return b"\0" + number.to_bytes(4, "big")


def decoder(registry: Registry | str, format: str = "avro", schema: Schema = PAYMENT, **options: str) -> Decode:
    url = registry if isinstance(registry, str) else registry.url
    return message_decoder(schema, format, registry=url, options={"registry.timeout": "0.3", **options})


def avro(registry: Registry, subject: str = "payments-value") -> bytes:
    """A message, its schema registered."""
    return avro_writer(avro_schema(Payment), head(registry.register(subject, avro_schema(Payment))))(EVENT)


def test_avro(registry: Registry) -> None:
    decoded = decoder(registry)([avro(registry)] * MANY)
    assert (decoded.frame.rows(), decoded.rejects) == ([ROW] * MANY, [])


def test_protobuf(registry: Registry) -> None:
    number = registry.register("payments-value", proto_text(Payment), "PROTOBUF")
    for prefix in (b"\x00", b"\x02\x00"):  # the first type, in short and at length
        decoded = decoder(registry, "protobuf")([head(number) + prefix + as_proto(Payment, EVENT)] * MANY)
        assert (decoded.frame.rows(), decoded.rejects) == ([ROW] * MANY, [])


def test_json_schema(registry: Registry) -> None:
    number = registry.register("payments-value", JSON_SCHEMA, "JSON")
    message = head(number) + json.dumps({**EVENT, "at": AT.isoformat()}, indent=1).encode()
    decoded = decoder(registry, "jsonschema")([message] * MANY)
    assert (decoded.frame.rows(), decoded.rejects) == ([ROW] * MANY, [])


def test_json_schema_validates_if_asked(registry: Registry) -> None:
    number = registry.register("payments-value", JSON_SCHEMA, "JSON")
    good, large = (
        head(number) + json.dumps({"user_id": "a", "amount": amount, "at": AT.isoformat()}).encode()
        for amount in (1.5, 11)
    )
    messages = [good, large, head(number) + b"{", good]
    assert decoder(registry, "jsonschema")(messages).frame.height == 3
    decoded = decoder(registry, "jsonschema", validate="true")(messages)
    assert decoded.frame.rows() == [ROW, ROW]
    assert reasons(decoded)[0] == (
        1,
        f"not valid under schema id {number}: $.amount: 11 is greater than the maximum of 10",
    )
    assert [(r.row, r.raw) for r in decoded.rejects] == [(1, large), (2, messages[2])]


def test_several_schemas_in_one_batch_keep_the_order(registry: Registry) -> None:
    other = avro_schema(Payment) | {"name": "Other"}
    one = avro(registry)
    two = avro_writer(other, head(registry.register("other-value", other)))({**EVENT, "user_id": "b"})
    messages = [one, two, b"", two, one, head(99), b"{}", one, b"\0\0"] * 40
    decoded = decoder(registry)(messages)
    assert decoded.frame["user_id"].to_list() == ["a", "b", "b", "a", "a"] * 40
    assert [place for place in range(len(messages)) if place % 9 in (2, 5, 6, 8)] == [r.row for r in decoded.rejects]
    assert [messages[reject.row] for reject in decoded.rejects] == [reject.raw for reject in decoded.rejects]


def test_each_schema_is_asked_for_once(registry: Registry) -> None:
    message, decode = avro(registry), decoder(registry)
    for _ in range(5):
        decode([message] * 3)
        decode([message, head(99)])
    assert (registry.asked["/schemas/ids/1"], registry.asked["/schemas/ids/99"]) == (1, 1)


def test_an_unknown_schema_is_asked_for_again_later(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.formats.wire.UNKNOWN_FOR", 0.0)
    decode, message = decoder(registry), avro_writer(avro_schema(Payment), head(1))(EVENT)
    assert reasons(decode([message])) == [(0, "schema id 1 is not in the registry")]
    assert avro(registry) == message
    assert decode([message]).frame.rows() == [ROW]


def test_what_is_not_of_the_wire_format(registry: Registry) -> None:
    expected = "expected a 0 byte and a schema id of 4 bytes, as messages from a schema registry begin with"
    found = [
        (b"", "found 0 bytes"),
        (b"\0\0\0", "found 3 bytes (00 00 00)"),
        (b'{"user_id": 1}', "found the first byte 0x7b, which looks like JSON"),
        (b"\x01aaaaaaa", "found the first byte 0x01"),
    ]
    decoded = decoder(registry)([message for message, _ in found])
    assert [(n, f"{expected}; {what}") for n, (_, what) in enumerate(found)] == reasons(decoded)
    assert registry.asked == {}


def test_numbers_of_a_protobuf_type(registry: Registry) -> None:
    text = """syntax = "proto3";
        message Other { message Inner { string user_id = 1; double amount = 2; int64 at = 3; } }
        message Payment { string user_id = 1; double amount = 2; int64 at = 3; }"""
    number = registry.register("p-value", text, "PROTOBUF")
    body = b"\x0a\x01a\x11\x00\x00\x00\x00\x00\x00\xf8\x3f\x18\x05"
    messages = [
        head(number) + prefix + body
        for prefix in (b"\x02\x02", b"\x04\x00\x00", b"\x02\x08", b"\x00", b"\x01", b"\xff")
    ]
    decoded = decoder(registry, "protobuf")([*messages, head(number)])
    assert decoded.frame["amount"].to_list() == [1.5, 1.5]
    assert reasons(decoded) == [
        (2, "schema id 1 cannot be read as Payment: expected one of its 2 message types, found the number 4"),
        (
            3,
            "schema id 1 cannot be read as Payment: user_id: expected str, which the model requires, found no such "
            "field; amount: expected float, which the model requires, found no such field; at: expected an event time "
            "(a timestamp, a number or text), which the model requires, found no such field",
        ),
        (4, "expected 1 to 64 numbers after the schema id, found -1"),
        (5, "expected 1 to 64 numbers after the schema id, found -704"),
        (
            6,
            "expected the numbers that say which type of its .proto a message is, after the schema id; found nothing",
        ),
    ]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_registry_in_trouble_is_asked_again_and_nothing_is_lost(registry: Registry, status: int) -> None:
    message, decode = avro(registry), decoder(registry)
    registry.failing = status
    expected = rf"the schema registry at {registry.url} cannot be asked for schema id 1: it answered {status}"
    with pytest.raises(StorageError, match=expected):
        decode([message, b""])
    assert registry.asked["/schemas/ids/1"] > 1
    registry.failing = None
    assert (decoded := decode([message, b""])).frame.rows() == [ROW]
    assert [reject.row for reject in decoded.rejects] == [1]


def test_a_registry_that_is_away_and_comes_back(registry: Registry) -> None:
    message = avro(registry)
    url, port = registry.url, registry.port
    registry.close()
    decode = decoder(url)
    with pytest.raises(StorageError, match="cannot be asked for schema id 1: ConnectError"):
        decode([message])
    with Registry(port) as again:
        assert avro(again) == message
        assert decode([message]).frame.rows() == [ROW]


def test_a_registry_that_does_not_answer(registry: Registry) -> None:
    message = avro(registry)
    registry.hanging.clear()
    with pytest.raises(StorageError, match="cannot be asked for schema id 1: ReadTimeout"):
        decoder(registry)([message])


def test_a_schema_that_is_known_needs_no_registry(registry: Registry) -> None:
    message, decode = avro(registry), decoder(registry)
    decode([message])
    registry.failing = 500
    assert decode([message] * 3).frame.height == 3


@pytest.mark.parametrize("path", ["/wrong", "/schemas"])
def test_an_address_that_is_no_registry_pauses_and_sets_nothing_aside(registry: Registry, path: str) -> None:
    message = avro(registry)
    with pytest.raises(StorageError, match=r"found status 404 .*is it the address of a schema registry's API\?"):
        decoder(registry.url + path)([message])


def test_a_registry_below_a_path(registry: Registry) -> None:
    registry.prefix = "/apis/ccompat/v7"
    assert decoder(registry.url + "/")([avro(registry)]).frame.rows() == [ROW]


def test_a_password_in_the_url_or_in_the_environment_and_in_no_message(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = avro(registry)
    registry.userinfo = "reader:hush@home"
    hidden = "expected schema id 1 from the schema registry at"
    for url in (registry.url, registry.url.replace("//", "//reader:wrong-hush@")):
        with pytest.raises(
            StorageError, match=rf"{hidden} {registry.url}, found status 401 .*HEADRACE_REGISTRY_AUTH"
        ) as error:
            decoder(url)([message])
        assert "wrong-hush" not in repr(error.value) + repr(error.value.__cause__)
    assert decoder(registry.url.replace("//", "//reader:hush%40home@"))([message]).frame.rows() == [ROW]
    monkeypatch.setenv("HEADRACE_REGISTRY_AUTH", "reader:hush@home")
    assert decoder(registry)([message]).frame.rows() == [ROW]


def test_a_redirect_to_another_host_is_not_followed(registry: Registry) -> None:
    message = avro(registry)
    with Registry() as other:
        registry.elsewhere = other.url
        with pytest.raises(StorageError, match=r"redirects to 127\.0\.0\.1, which is not followed"):
            decoder(registry)([message])
        assert other.asked == {}
    registry.elsewhere = registry.url
    with pytest.raises(StorageError, match="redirects more than 3 times"):
        decoder(registry)([message])


def test_a_huge_schema(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_registry, "MAX_ANSWER", 20_000)
    huge = avro_schema(Payment) | {"doc": "x" * 20_000}
    number = registry.register("huge-value", huge)
    decoded = decoder(registry)([head(number), avro(registry)])
    expected = (
        "schema id 1 cannot be read as Payment: expected a schema of at most 20,000 bytes, the registry sends a longer"
    )
    assert reasons(decoded) == [(0, f"{expected} one")]
    assert decoded.frame.rows() == [ROW]


def test_a_schema_of_another_kind(registry: Registry) -> None:
    number = registry.register("p-value", proto_text(Payment), "PROTOBUF")
    expected = "schema id 1 cannot be read as Payment: expected a schema of the type AVRO, found PROTOBUF"
    assert reasons(decoder(registry)([head(number)])) == [(0, expected)]


def test_references_of_avro(registry: Registry) -> None:
    money = {"type": "record", "name": "shop.Money", "fields": [{"name": "cents", "type": "long"}]}
    user = {"type": "record", "name": "shop.User", "fields": [{"name": "owes", "type": "shop.Money"}]}
    registry.register("money", money)
    reference = {"name": "shop.Money", "subject": "money", "version": 1}
    registry.register("user", user, references=[reference])
    fields = [
        *avro_schema(Payment)["fields"],
        {"name": "user", "type": "shop.User"},
        {"name": "tip", "type": "shop.Money"},
    ]
    number = registry.register(
        "payment",
        avro_schema(Payment) | {"fields": fields},
        references=[{"name": "shop.User", "subject": "user", "version": 1}, reference],
    )
    message = avro_writer(avro_schema(Payment), head(number))(EVENT) + b"\x04\x06"
    assert decoder(registry)([message] * MANY).frame.rows() == [ROW] * MANY
    assert registry.asked["/subjects/money/versions/1"] == 1


def test_references_of_protobuf(registry: Registry) -> None:
    registry.register("who", 'syntax = "proto3"; package w; message Who { string name = 1; }', "PROTOBUF")
    text = """syntax = "proto3"; import "shop/who.proto"; import "google/protobuf/timestamp.proto";
        import "confluent/meta.proto";
        message Payment { string user_id = 1; double amount = 2; google.protobuf.Timestamp at = 3; w.Who who = 4
        [(confluent.field_meta).doc = "who it was"]; }"""
    reference = {"name": "shop/who.proto", "subject": "who", "version": 1}
    number = registry.register("payment", text, "PROTOBUF", references=[reference])
    assert decoder(registry, "protobuf")([head(number) + b"\0" + as_proto(Payment, EVENT)]).frame.rows() == [ROW]


def test_references_of_json_schema(registry: Registry) -> None:
    registry.register("amount", {"type": "string"}, "JSON")
    schema = {"properties": {**JSON_SCHEMA["properties"], "amount": {"$ref": "amount.json"}}, "type": "object"}
    reference = {"name": "amount.json", "subject": "amount", "version": 1}
    number = registry.register("payment", schema, "JSON", references=[reference])
    expected = [(0, f"schema id {number} cannot be read as Payment: amount: expected float, found string")]
    assert reasons(decoder(registry, "jsonschema")([head(number) + b"{}"])) == expected


@pytest.mark.parametrize("name", ["../../evil.proto", "/tmp/evil.proto", "a/../../evil.proto"])
def test_a_reference_that_would_leave_its_folder(registry: Registry, name: str) -> None:
    registry.register("evil", 'syntax = "proto3"; message Evil {}', "PROTOBUF")
    reference = {"name": name, "subject": "evil", "version": 1}
    number = registry.register("payment", proto_text(Payment), "PROTOBUF", references=[reference])
    expected = f"schema id 2 cannot be read as Payment: expected an import such as 'shop/money.proto', found {name!r}"
    assert reasons(decoder(registry, "protobuf")([head(number) + b"\0"])) == [(0, expected)]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ('"string"', "expected a record, found string"),
        ("[]", "expected a record, found a union of "),
        ("{}", "expected an Avro schema, found one that cannot be read: "),
        (
            '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "Nowhere"}]}',
            "found one that cannot be read: ",
        ),
        ("[" * 5000 + "]" * 5000, "found one that cannot be read: RecursionError"),
        (
            '{"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]}',
            "the Avro type R holds itself: how deep it goes cannot be known, so it is not read",
        ),
        (
            '{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}]}',
            "an Avro array of null has items of no bytes",
        ),
    ],
)
def test_schemas_that_are_none(registry: Registry, schema: str, reason: str) -> None:
    number = registry.register("strange", schema)
    ((row, found),) = reasons(decoder(registry)([head(number) + b"\0"]))
    assert (row, reason in found) == (0, True), found


def test_an_avro_schema_that_is_small_and_means_a_large_one(registry: Registry) -> None:
    types: Any = "int"
    for level in range(6):
        parts = [{"name": f"f{n}", "type": types if n == 0 else f"R{level - 1}" if level else "int"} for n in range(10)]
        types = {"type": "record", "name": f"R{level}", "fields": parts}
    ((_, reason),) = reasons(decoder(registry)([head(registry.register("large", types)) + b"\0"]))
    assert "expected an Avro schema of at most 20,000 types, found a larger one" in reason


def test_a_proto_that_does_not_compile(registry: Registry) -> None:
    number = registry.register("broken", 'syntax = "proto3"; message {', "PROTOBUF")
    ((_, reason),) = reasons(decoder(registry, "protobuf")([head(number) + b"\0"]))
    assert "schema id 1 cannot be read as Payment: expected a .proto that compiles, protoc says: " in reason


@pytest.mark.parametrize("format", ["avro", "protobuf", "jsonschema"])
@given(data=st.data())
def test_any_bytes_have_one_verdict_each(format: str, data: st.DataObject) -> None:
    with Registry() as registry:
        numbers = [
            registry.register("a", avro_schema(Payment)),
            registry.register("p", proto_text(Payment), "PROTOBUF"),
            registry.register("j", JSON_SCHEMA, "JSON"),
            registry.register("e", avro_schema(Payment) | {"fields": []}),
        ]
        known = st.builds(lambda n, body: head(n) + body, st.sampled_from([*numbers, 77]), st.binary(max_size=30))
        messages = data.draw(st.lists(known | st.binary(max_size=12), max_size=20)) * data.draw(st.sampled_from([1, 5]))
        decoded = decoder(registry, format)(messages)
    assert len(messages) == decoded.frame.height + len(decoded.rejects)
    assert [messages[reject.row] for reject in decoded.rejects] == [reject.raw for reject in decoded.rejects]
    assert all(reject.reason for reject in decoded.rejects)


def test_tls_with_a_certificate_authority_of_ones_own(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run([*command.split(), *names], check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not installed, so there is no certificate to test with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    body = json.dumps({"schema": json.dumps(avro_schema(Payment))}).encode()
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                try:
                    with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                        connection.recv(65536)
                        connection.sendall(answer)
                except ssl.SSLError:
                    pass  # the client that does not know the authority

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        message = avro_writer(avro_schema(Payment), head(1))(EVENT)
        assert decoder(url, **{"registry.ca": str(certificate), "registry.timeout": "5"})([message]).frame.rows() == [
            ROW
        ]
        with pytest.raises(StorageError, match="CERTIFICATE_VERIFY_FAILED"):
            decoder(url, **{"registry.timeout": "0.1"})([message])
        thread.join(30)
