"""Messages as changes, and URLs: without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mongo_and_rabbit import SCHEMA, Article

from headrace.cdc import Change
from headrace.document import MOST_BYTES, Document, TableSchema
from headrace.errors import ConfigError
from headrace.sources.base import Letter
from headrace.sources.rabbitmq import RabbitSource
from headrace.sources.rabbitmq_messages import Decoder, Message
from headrace.sources.rabbitmq_reader import offset_of
from headrace.sources.rabbitmq_url import FORMATS, RabbitUrl

URL = "rabbitmq://host/?queue=articles"


def told(body: bytes | Any, url: str = URL, schema: TableSchema = SCHEMA, **parts: Any) -> Any:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    decoder = Decoder(RabbitUrl.parse(url, {}), schema)
    found = decoder.told(Message(1, body, parts.pop("headers", {}), **parts))
    if isinstance(found, Letter):
        return found
    (change,) = found
    return change


def test_a_json_object_is_a_row() -> None:
    change = told({"id": "a", "text": "t"}, id="m1", sent=datetime(2026, 1, 1, tzinfo=UTC))
    assert (change.op, change.row, change.origin) == ("upsert", {"id": "a", "text": "t"}, "articles#m1")
    assert change.at == 1_767_225_600_000_000
    assert told({}, headers={"timestamp_in_ms": 1_767_225_600_123}).at == 1_767_225_600_123_000


def test_deletes_tell_their_key_in_one_of_three_places() -> None:
    delete = {"op": "delete"}
    assert told({"id": "a", "text": "t"}, headers=delete).key == {"id": "a"}
    assert told(b'"a"', headers=delete).key == "a"
    assert told(b"", headers={**delete, "key": "b"}).key == "b"
    assert told(b"", headers={"op": b"delete", "key": b"b"}).key == "b"
    assert told(b"", headers=delete, id="c").key == "c"
    assert told({"id": "a"}, type="delete").op == "delete"
    assert told({"id": "a"}, headers={"type": "DELETE"}).op == "delete"


def test_no_body_is_a_tombstone() -> None:
    for body in (b"", b" ", b"null", b" null\n"):
        change = told(body, headers={"key": "a"})
        assert (change.op, change.key) == ("delete", "a")
        assert told(body, id="a").key == "a"
        assert isinstance(told(body), Letter)


def test_a_table_may_be_truncated_and_a_type_is_the_applications() -> None:
    assert told(b"", headers={"op": "truncate"}).op == "truncate"
    assert told({"id": "a"}, type="article.created").op == "upsert"
    assert "header op" in told({"id": "a"}, headers={"op": "frobnicate"}).reason


def test_keys_of_several_columns() -> None:
    class Page(Document):
        site: str
        path: str

    schema = TableSchema.of("pages", [Page], ["site", "path"])
    key = {"site": "s", "path": "p"}
    for found in (
        told(b"", schema=schema, headers={"op": "delete", "key": '{"site": "s", "path": "p"}'}),
        told({**key, "more": 1}, schema=schema, headers={"op": "delete"}),
    ):
        assert schema.key_text(found.key) == schema.key_text(key)
    assert isinstance(told({"site": "s"}, schema=schema, headers={"op": "delete"}), Letter)


def test_versions() -> None:
    schema = TableSchema.of("articles", [Article], "id", version="rev")
    assert told({"id": "a", "rev": 7}, schema=schema).version == 7
    assert told({"id": "a", "rev": "2026-01-01T00:00:00Z"}, schema=schema).version == 1_767_225_600_000_000
    named = URL + "&version=v"
    for value in (7, "7", b"7"):
        assert told({"id": "a"}, named, headers={"v": value}).version == 7
        assert told(b"", named, headers={"v": value, "key": "a"}).version == 7
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert told({"id": "a"}, named, headers={"v": at}).version == 1_767_225_600_000_000
    for wrong in ("x", 1.5, True, [1], 2**70, "9" * 40):
        assert isinstance(told({"id": "a"}, named, headers={"v": wrong}), Letter)
    assert "the header v" in told({"id": "a"}, named).reason


def test_changes_told_in_the_body() -> None:
    url = URL + "&format=change"
    upsert = {"op": "upsert", "key": "old", "row": {"id": "a"}, "version": 3, "at": "2026-01-01T00:00:00Z"}
    change = told(upsert, url)
    assert (change.op, change.key, change.row, change.version) == ("upsert", "old", {"id": "a"}, 3)
    assert change.at == told({**upsert, "at": 1_767_225_600_000_000}, url).at == 1_767_225_600_000_000
    assert told({"op": "delete", "key": {"id": "a"}}, url).key == {"id": "a"}
    assert told({"op": "truncate"}, url).op == "truncate"
    for wrong in (
        {},
        {"op": "upsert"},
        {"op": "delete"},
        {"op": "x", "row": {}},
        [],
        {"op": "delete", "key": 1, "at": 2**62},
    ):
        assert isinstance(told(wrong, url), Letter)


def test_envelopes_of_debezium() -> None:
    url = URL + "&format=debezium"
    envelope = {"op": "c", "before": None, "after": {"id": "a", "text": "t"}, "source": {}, "ts_ms": 1_767_225_600_000}
    change = told(envelope, url, id="m1")
    assert (change.op, dict(change.row), change.origin) == ("upsert", {"id": "a", "text": "t"}, "articles#m1")
    assert told({**envelope, "op": "d", "before": {"id": "a"}, "after": None}, url).op == "delete"
    assert isinstance(told(b"garbage", url), Letter)


def test_a_message_that_is_too_large_is_a_letter_and_whole() -> None:
    letter = told(b'"' + b"x" * MOST_BYTES + b'"', id="m")
    assert isinstance(letter, Letter)
    assert (len(letter.trace.raw), letter.trace.key) == (MOST_BYTES + 2, b"m")


@given(
    st.sampled_from(FORMATS),
    st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b"1e999", b"\xff", b'{"id": NaN}', b'"\\ud800"', b"{}"]),
    st.dictionaries(
        st.sampled_from(["op", "key", "type", "v"]),
        st.none() | st.integers() | st.binary(max_size=9) | st.text(max_size=9) | st.floats() | st.lists(st.integers()),
    ),
)
def test_whatever_comes_is_a_change_or_a_letter(format: str, body: bytes, headers: dict[str, Any]) -> None:
    decoder = Decoder(RabbitUrl.parse(f"{URL}&format={format}&version=v", {}), SCHEMA)
    found = decoder.told(Message(1, body, headers))
    assert isinstance(found, Letter) or all(isinstance(change, Change) for change in found)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://h/", "a queue"),
        ("http://h/?queue=a", "scheme 'http'"),
        ("amqp://h/?queue=a&prefetch=0", "prefetch"),
        ("amqp://h/?queue=a&prefetch=many", "prefetch"),
        ("amqp://h/?queue=a&bytes=2TB", "bytes"),
        ("amqp://h/?queue=a&format=xml", "format"),
        ("amqp://h/?queue=a&type=lazy", "type"),
        ("amqp://h/?queue=a&start=yesterday", "start"),
        ("amqp://h/?queue=a&prefech=3", "did you mean 'prefetch'"),
        ("amqp://h/?queue=a&queue=b", "twice"),
        ("amqp://u:s3cr3t@x/y@h/?queue=a", "%2F"),
    ],
)
def test_urls_that_cannot_be_used_say_why_and_no_secret(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        RabbitSource(url)
    assert said in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "s/e:c@r?t")
    url = RabbitUrl.parse("rabbitmqs://u:${PW}@host:5671/my%2Fhost?queue=a b", {"prefetch": 7})
    assert url.uri.startswith("amqps://u:s%2Fe%3Ac%40r%3Ft@host:5671/my%2Fhost?")
    assert (url.name, url.prefetch) == ("rabbitmqs://host:5671/my/host/a b", 7)
    assert "s/e" not in repr(url)
    assert RabbitUrl.parse("amqp://h?queue=a", {}).uri.startswith("amqp://guest:guest@h/%2F?")


def test_positions_name_the_queue() -> None:
    url = RabbitUrl.parse(URL, {})
    assert offset_of({"rabbitmq": "/articles", "offset": 3}, url) == 3
    for wrong in ({"rabbitmq": "/others", "offset": 3}, {"rabbitmq": "/articles", "offset": -1}, None, [], {"x": 1}):
        with pytest.raises(ConfigError):
            offset_of(wrong, url)
