"""BSON as rows, and events as changes: without a server."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from mongo_and_rabbit import SCHEMA, Article

from headrace.cdc import Change
from headrace.document import TableSchema
from headrace.errors import ConfigError
from headrace.sources.base import Letter
from headrace.sources.mongodb import MongoSource
from headrace.sources.mongodb_feed import Place
from headrace.sources.mongodb_rows import Rows
from headrace.sources.mongodb_url import MongoUrl

CODEC: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
ROWS = Rows("news.articles", SCHEMA)
ID = ObjectId("65a1b2c3d4e5f60718293a4b")


def encoded(document: dict[str, Any]) -> bytes:
    return bytes(bson.encode(document, codec_options=CODEC))


def event(op: str, **fields: Any) -> bytes:
    base = {"_id": {"_data": "82"}, "operationType": op, "clusterTime": Timestamp(1_700_000_000, 3)}
    return encoded({**base, "ns": {"db": "news", "coll": "articles"}, "documentKey": {"_id": "a"}, **fields})


def told(op: str, rows: Rows = ROWS, **fields: Any) -> Any:
    return rows.event(event(op, **fields)).told


def test_every_bson_type_becomes_what_json_can_tell() -> None:
    name = uuid.UUID("12345678-1234-5678-1234-567812345678")
    document = {
        "_id": ID,
        "text": "naïve",
        "whole": Int64(2**53 + 1),
        "half": 0.5,
        "yes": True,
        "none": None,
        "price": Decimal128("12.50"),
        "when": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
        "far": DatetimeMS(2**60),
        "uuid": name,
        "bytes": b"\x00\xff",
        "stamp": Timestamp(0, 1),
        "regex": Regex("^a"),
        "code": Code("f()"),
        "most": MaxKey(),
        "ref": DBRef("others", ID),
        "nested": {"list": [Int64(1), {"deep": ID}]},
        "odd": Binary(b"x", 128),
    }
    change = ROWS.row(encoded(document))
    assert isinstance(change, Change)
    assert change.row == {
        "_id": str(ID),
        "id": str(ID),
        "text": "naïve",
        "whole": 2**53 + 1,
        "half": 0.5,
        "yes": True,
        "none": None,
        "price": "12.50",
        "when": "2026-01-02T03:04:05.678000+00:00",
        "far": 2**60,
        "uuid": str(name),
        "bytes": "AP8=",
        "stamp": "1970-01-01T00:00:00+00:00",
        "regex": "^a",
        "code": "f()",
        "most": "MaxKey",
        "ref": {"$ref": "others", "$id": str(ID)},
        "nested": {"list": [1, {"deep": str(ID)}]},
        "odd": "eA==",
    }
    assert json.loads(json.dumps(change.row)) == change.row
    assert {type(value) for value in (change.row["whole"], change.row["nested"]["list"][0])} == {int}


def test_text_that_is_not_utf8_is_a_letter_with_its_bytes() -> None:
    raw = encoded({"_id": "a", "text": "XX"}).replace(b"XX", b"\xff\xfe")
    letter = ROWS.row(raw)
    assert isinstance(letter, Letter)
    assert "UTF-8" in letter.reason
    assert (letter.trace.raw, letter.trace.origin) == (raw, "news.articles/a")
    inside = event("insert", fullDocument={"_id": "a", "text": "XX"}).replace(b"XX", b"\xff\xfe")
    found = ROWS.event(inside)
    assert isinstance(found.told, Letter)
    assert found.token == {"_data": "82"}


def test_events_are_changes() -> None:
    document = {"_id": "a", "text": "t"}
    at = 1_700_000_000_000_000
    row = {"_id": "a", "id": "a", "text": "t"}
    origin = "news.articles/a@1700000000.3"
    for op in ("insert", "replace", "update"):
        assert told(op, fullDocument=document) == Change("upsert", row=row, at=at, origin=origin)
    assert told("delete") == Change("delete", key={"id": "a"}, at=at, origin=origin)
    assert told("drop").op == told("dropDatabase").op == "truncate"
    assert (told("rename"), told("invalidate"), told("createIndexes")) == (None, None, None)


def test_the_servers_own_clock_is_finer_than_its_operation_time() -> None:
    wall = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    assert told("delete", wallTime=wall).at == 1_767_323_045_678_000


def test_an_update_whose_document_is_gone_is_its_delete() -> None:
    assert told("update", fullDocument=None).op == "delete"


def test_a_document_with_an_id_of_its_own_needs_the_server_to_tell_what_was_deleted() -> None:
    own = {"_id": "a", "id": "mine", "text": "t"}
    letter = told("insert", fullDocument=own)
    assert isinstance(letter, Letter)
    assert "changeStreamPreAndPostImages" in letter.reason
    rows = Rows("news.articles", SCHEMA, before=True)
    assert told("insert", rows, fullDocument=own).row["id"] == "mine"
    assert told("delete", rows, fullDocumentBeforeChange=own).key == {"id": "mine"}
    moved = told("replace", rows, fullDocument={**own, "id": "new"}, fullDocumentBeforeChange=own)
    assert (moved.row["id"], moved.key) == ("new", {"id": "mine"})
    same = told("update", rows, fullDocument=own, fullDocumentBeforeChange=own)
    assert same.key is None


def test_the_id_may_go_into_a_column_of_another_name() -> None:
    class Post(Article):
        mongo_id: str

    rows = Rows("news.articles", TableSchema.of("posts", [Post], "mongo_id"), "mongo_id")
    own = {"_id": ID, "id": "mine", "text": "t"}
    assert told("insert", rows, fullDocument=own).row["mongo_id"] == str(ID)
    assert told("delete", rows, documentKey={"_id": ID}).key == {"mongo_id": str(ID)}


def test_a_delete_that_does_not_tell_the_key_is_a_letter() -> None:
    rows = Rows("news.articles", TableSchema.of("articles", [Article], "text"))
    assert isinstance(told("delete", rows), Letter)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mongodb://h/news", "a collection"),
        ("mongodb://h/?collection=a", "a database"),
        ("http://h/news?collection=a", "scheme 'http'"),
        ("mongodb://h/news?collection=a&nonsense=1", "nonsense"),
        ("mongodb://h/news?collection=a&must_exist=maybe", "must_exist"),
        ("mongodb://h/news?collection=a&wait=1h", "wait"),
        ("mongodb://u:s3cr3t/x@h/news?collection=a", "%2F"),
        ("mongodb://u:s3cr3t@h:99999/news?collection=a", "ort"),
        ("mongodb://u:s3cr3t@h/news?collection=a&collection=b", "twice"),
    ],
)
def test_urls_that_cannot_be_used_say_why_and_no_secret(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        MongoSource(url)
    assert said in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_a_source_shows_no_secret() -> None:
    url = "mongodb://u:s3cr3t@x@h/news?collection=a"
    source = MongoSource(url)
    assert "u:s3cr3t%40x@h/" in MongoUrl.parse(url, {}).uri
    assert "s3cr3t" not in repr(source) + source.name + repr(MongoUrl.parse(url, {}))


def test_a_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "s/e:c@r?t")
    url = MongoUrl.parse("mongodb://u:${PW}@h:27017/news?collection=a&authSource=admin", {"id": "key"})
    assert "u:s%2Fe%3Ac%40r%3Ft@h:27017" in url.uri
    assert "authSource=admin" in url.uri
    assert (url.name, url.id) == ("mongodb://h:27017/news.a", "key")
    assert url.login.hide("no s/e:c@r?t, no s%2Fe%3Ac%40r%3Ft") == "no …, no …"


def test_tokens_of_any_bson_come_back_from_json() -> None:
    url = MongoUrl.parse("mongodb://h/news?collection=articles", {})
    for token in ({"_data": "82"}, {"_data": Binary(b"\x01"), "_typeBits": Binary(b"\x82")}):
        place = Place(url.namespace, token, "ab", "rs0")
        back = Place.read(json.loads(json.dumps(place.position())), url)
        assert (bson.encode(back.token or {}), back.position()) == (bson.encode(token), place.position())
