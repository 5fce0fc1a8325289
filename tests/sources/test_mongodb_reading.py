"""What is particular to collections: their life and death, transactions, tokens, and servers that cannot serve."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from mongo_and_rabbit import SCHEMA, Article, next_batch, nothing_left, read_until, texts

from headrace.document import TableSchema
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.sources.mongodb import MongoSource
from headrace.testing.tables import TableModel, batches, read_all
from services.kafka import free_ports
from services.mongodb import Mongo


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongo]:
    with Mongo(tmp_path_factory.mktemp("mongo"), "--oplog-max-entries", "1000") as server:
        yield server


@pytest.fixture
def collection(mongo: Mongo) -> Any:
    return mongo.collection()


def filled(collection: Any, count: int, size: int = 1) -> dict[str, str]:
    collection.insert_many([{"_id": f"k{number}", "text": "x" * size} for number in range(count)])
    return {f"k{number}": "x" * size for number in range(count)}


def test_a_snapshot_comes_in_bounded_batches(mongo: Mongo, collection: Any) -> None:
    expected = filled(collection, 2_600)
    found = read_all(MongoSource(mongo.url(collection.name)), SCHEMA)
    assert len(found) >= 3
    assert max(len(batch.changes) for batch in found) <= 1_000
    model = TableModel(SCHEMA)
    for batch in found:
        model.take(batch)
    assert texts(model) == expected


def test_large_documents_make_small_batches(mongo: Mongo, collection: Any) -> None:
    expected = filled(collection, 3, 7 << 20)
    found = read_all(MongoSource(mongo.url(collection.name)), SCHEMA)
    assert max(len(batch.changes) for batch in found) <= 2
    assert sum(len(batch.changes) for batch in found) == len(expected)


def test_a_transaction_is_not_cut(mongo: Mongo, collection: Any) -> None:
    with closing(MongoSource(mongo.url(collection.name)).open(None, SCHEMA)) as reader:
        list(batches(reader))
        with mongo.client.start_session() as session, session.start_transaction():
            for number in range(40):
                collection.insert_one({"_id": f"t{number}", "text": "t"}, session=session)
        assert len(next_batch(reader).changes) == 40


def test_a_dropped_collection_empties_the_table_and_one_made_again_fills_it(mongo: Mongo, collection: Any) -> None:
    model = TableModel(SCHEMA)
    with closing(MongoSource(mongo.url(collection.name)).open(None, SCHEMA)) as reader:
        read_until(reader, model, filled(collection, 3))
        collection.drop()
        read_until(reader, model, {})
        collection.insert_one({"_id": "again", "text": "x"})
        read_until(reader, model, {"again": "x"})


def test_another_collection_may_be_renamed_into_its_place(mongo: Mongo, collection: Any) -> None:
    model = TableModel(SCHEMA)
    other = mongo.collection()
    other.insert_one({"_id": "other", "text": "o"})
    with closing(MongoSource(mongo.url(collection.name)).open(None, SCHEMA)) as reader:
        read_until(reader, model, filled(collection, 3))
        other.rename(collection.name, dropTarget=True)
        read_until(reader, model, {"other": "o"})
        collection.rename(other.name)
        read_until(reader, model, {})


def test_a_collection_that_was_made_again_while_nobody_read_is_read_anew(mongo: Mongo, collection: Any) -> None:
    source, model = MongoSource(mongo.url(collection.name)), TableModel(SCHEMA)
    filled(collection, 3)
    for batch in read_all(source, SCHEMA):
        model.take(batch)
    collection.drop()
    collection.insert_one({"_id": "new", "text": "n"})
    position = batch.position
    for batch in read_all(source, SCHEMA, position):
        model.take(batch)
    assert texts(model) == {"new": "n"}


def test_a_token_that_is_too_old_makes_a_new_snapshot(mongo: Mongo, collection: Any) -> None:
    source, model = MongoSource(mongo.url(collection.name)), TableModel(SCHEMA)
    filled(collection, 3)
    for batch in read_all(source, SCHEMA):
        model.take(batch)
    collection.delete_one({"_id": "k1"})
    other = mongo.collection()  # whose writes push the delete out of the server's log
    other.insert_many([{"n": number} for number in range(3_000)])
    found = read_all(source, SCHEMA, batch.position)
    assert [found[0].begins, found[-1].complete] == [True, True]
    for batch in found:
        model.take(batch)
    assert texts(model) == {"k0": "x", "k2": "x"}


@pytest.mark.parametrize("token", [{"_data": "zz"}, {"_data": "8263"}, {"no": "token"}, {}])
def test_a_token_that_is_none_makes_a_new_snapshot(mongo: Mongo, collection: Any, token: Any) -> None:
    source = MongoSource(mongo.url(collection.name))
    expected = filled(collection, 2)
    position = {**read_all(source, SCHEMA)[-1].position, "token": token}
    model = TableModel(SCHEMA)
    for batch in read_all(source, SCHEMA, position):
        model.take(batch)
    assert texts(model) == expected


def test_deletes_are_told_by_another_key_if_the_server_tells_what_was_deleted(mongo: Mongo) -> None:
    collection = mongo.collection(changeStreamPreAndPostImages={"enabled": True})
    schema = TableSchema.of("articles", [Article], "text")
    model = TableModel(schema)
    with closing(MongoSource(mongo.url(collection.name)).open(None, schema)) as reader:
        collection.insert_one({"_id": "a", "text": "one"})
        collection.insert_one({"_id": "b", "text": "two"})
        read_until(reader, model, {"one": "one", "two": "two"})
        collection.update_one({"_id": "a"}, {"$set": {"text": "three"}})
        collection.delete_one({"_id": "b"})
        read_until(reader, model, {"three": "three"})


def test_a_key_that_a_delete_does_not_tell_is_refused(mongo: Mongo, collection: Any) -> None:
    source = MongoSource(mongo.url(collection.name))
    with pytest.raises(ConfigError, match="changeStreamPreAndPostImages"):
        source.open(None, TableSchema.of("articles", [Article], "text"))
    collection.insert_one({"_id": 1, "id": "mine", "text": "t"})
    with pytest.raises(ConfigError, match="changeStreamPreAndPostImages"):
        source.open(None, SCHEMA)


def test_a_collection_that_is_not_there(mongo: Mongo, collection: Any) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{collection.name}'"):
        MongoSource(mongo.url(collection.name[:-1])).open(None, SCHEMA)
    later = MongoSource(mongo.url(f"{collection.name}-later", must_exist="false"))
    with closing(later.open(None, SCHEMA)) as reader:
        model = TableModel(SCHEMA)
        for batch in batches(reader):
            model.take(batch)
        mongo.client["news"][f"{collection.name}-later"].insert_one({"_id": "a", "text": "t"})
        read_until(reader, model, {"a": "t"})


def test_a_server_that_is_away() -> None:
    (port,) = free_ports(1)
    url = f"mongodb://u:s3cr3t@127.0.0.1:{port}/news?collection=a&serverSelectionTimeoutMS=100"
    with nothing_left(), pytest.raises(StorageError) as raised:
        MongoSource(url).open(None, SCHEMA)
    assert "s3cr3t" not in str(raised.value)
    with nothing_left():
        reader = MongoSource(url).open({"mongodb": "news.a", "token": {"_data": "82"}}, SCHEMA)
        for _ in range(2):  # it tries again
            with pytest.raises(StorageError):
                reader.read(30)
        reader.close()


def test_nothing_is_left_behind(mongo: Mongo, collection: Any) -> None:
    source = MongoSource(mongo.url(collection.name))
    filled(collection, 3_000)
    with nothing_left():
        for _ in range(5):
            reader = source.open(None, SCHEMA)
            next_batch(reader)  # and not the rest: the thread waits for room
            reader.close()


def test_a_read_that_waits_ends_at_once(mongo: Mongo, collection: Any) -> None:
    reader = MongoSource(mongo.url(collection.name, wait="2s")).open(None, SCHEMA)
    next_batch(reader)
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(ClosedError):
            reader.read(60)
        ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    closer = threading.Thread(target=reader.close)
    closer.start()
    assert ended.wait(1)  # though the server holds the request for longer
    waiting.join()
    closer.join(20)
    assert not closer.is_alive()
