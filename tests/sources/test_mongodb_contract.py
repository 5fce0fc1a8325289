"""A collection as a source of a table: the contract, against a server with change streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.document import Document, TableSchema
from headrace.sources.mongodb import MongoSource
from headrace.testing.tables import TableSourceContract
from services.mongodb import Mongo


class Article(Document):
    id: str
    text: str


SCHEMA = TableSchema.of("articles", [Article], "id")


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongo]:
    with Mongo(tmp_path_factory.mktemp("mongo")) as server:
        yield server


class World:
    """A collection of its own in a server that is shared."""

    schema = SCHEMA

    def __init__(self, mongo: Mongo) -> None:
        self.collection = mongo.collection()
        self.source = MongoSource(mongo.url(self.collection.name))

    def put(self, key: str, text: str) -> str:
        self.collection.update_one({"_id": key}, {"$set": {"text": text}}, upsert=True)
        return key

    def delete(self, key: str) -> None:
        assert self.collection.delete_one({"_id": key}).deleted_count == 1

    def text(self, document: Any) -> str:
        return str(document.text)


class TestMongo(TableSourceContract):
    @pytest.fixture
    def world(self, mongo: Mongo) -> World:
        return World(mongo)
