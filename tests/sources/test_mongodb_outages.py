"""Collections whose server goes away, and readers that are killed: applying all changes always gives the collection."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mongo_and_rabbit import SCHEMA, failure, nothing_left, read_past_outages, read_until, texts

from headrace.errors import ConfigError, StorageError
from headrace.sources.mongodb import MongoSource
from headrace.sources.tables import TableReader
from headrace.testing.tables import TableModel
from services.mongodb import Mongo

pytestmark = pytest.mark.services
DURABLE = "--sync-on-commit"  # what it acknowledged outlives a kill


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongo]:
    with Mongo(tmp_path_factory.mktemp("mongo"), DURABLE) as server:
        yield server


def test_a_reader_outlives_its_server(tmp_path: Path) -> None:
    with Mongo(tmp_path, DURABLE) as mongo:
        name = mongo.collection().name
        model = TableModel(SCHEMA)
        source = MongoSource(mongo.url(name, serverSelectionTimeoutMS=300))
        with nothing_left(), closing(source.open(None, SCHEMA)) as reader:
            mongo.client["news"][name].insert_one({"_id": "a", "text": "1"})
            read_until(reader, model, {"a": "1"})
            mongo.kill()
            assert mongo.address in str(failure(reader))
            mongo.start()
            mongo.client["news"][name].insert_one({"_id": "b", "text": "2"})
            read_until(reader, model, {"a": "1", "b": "2"})
            mongo.client.close()


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    with Mongo(tmp_path, DURABLE) as mongo:
        name = mongo.collection().name
        source = MongoSource(mongo.url(name, serverSelectionTimeoutMS=300, socketTimeoutMS=500))
        with closing(source.open(None, SCHEMA)) as reader:
            mongo.client["news"][name].insert_one({"_id": "a", "text": "1"})
            read_until(reader, TableModel(SCHEMA), {"a": "1"})
            mongo.freeze()
            try:
                failure(reader)
            finally:
                mongo.thaw()
            read_until(reader, TableModel(SCHEMA), {})


def test_a_login_that_is_refused(tmp_path: Path) -> None:
    with Mongo(tmp_path, DURABLE) as mongo:
        mongo.client["admin"].command("createUser", "ada", pwd="s3cr3t", roles=["root"])
        mongo.client["news"]["a"].insert_one({"_id": "a", "text": "1"})
        mongo.kill()
    with Mongo(tmp_path, "--auth") as mongo:
        address = f"127.0.0.1:{mongo.port}/news?collection=a&authSource=admin&wait=20ms"
        with closing(MongoSource(f"mongodb://ada:s3cr3t@{address}").open(None, SCHEMA)) as reader:
            read_until(reader, TableModel(SCHEMA), {"a": "1"})
        for login in ("ada:wr0ng@", "eve:wr0ng@", ""):
            with nothing_left(), pytest.raises(ConfigError, match="check the user") as raised:
                MongoSource(f"mongodb://{login}{address}").open(None, SCHEMA)
            assert "wr0ng" not in str(raised.value)


def churn(collection: Any, rng: random.Random, rows: dict[str, str], count: int) -> None:
    """Random changes of a collection, and of what it is expected to be."""
    for _ in range(count):
        key = f"k{rng.randrange(30)}"
        what = rng.random()
        if what < 0.3 and key in rows:
            collection.delete_one({"_id": key})
            del rows[key]
        elif what < 0.32:
            collection.drop()
            rows.clear()
        else:
            rows[key] = str(rng.random())
            collection.replace_one({"_id": key}, {"text": rows[key]}, upsert=True)


def killed(source: MongoSource, reader: TableReader, position: Any) -> TableReader:
    """Another reader, from the last position that was stored."""
    reader.close()
    while True:
        try:
            return source.open(position, SCHEMA)
        except StorageError:
            continue


@settings(max_examples=3)
@given(st.integers(0, 2**32))
def test_whatever_is_killed_the_table_is_the_collection(mongo: Mongo, seed: int) -> None:
    rng, rows, model = random.Random(seed), dict[str, str](), TableModel(SCHEMA)
    name = mongo.collection().name
    source = MongoSource(mongo.url(name, serverSelectionTimeoutMS=300, must_exist="false"))
    churn(mongo.client["news"][name], rng, rows, 40)
    reader, position, down = source.open(None, SCHEMA), None, rng.randrange(30)
    for step in range(30):
        churn(mongo.client["news"][name], rng, rows, rng.randrange(12))
        if step == down:
            mongo.restart()
        for _ in range(rng.randrange(3)):
            if (batch := read_past_outages(reader, 0.02)) is not None:
                model.take(batch)
                position = batch.position
        if rng.random() < 0.3:
            reader = killed(source, reader, position)
    read_until(reader, model, rows)
    assert texts(model) == rows
    reader.close()
