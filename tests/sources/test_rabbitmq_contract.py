"""Queues as sources of a table: the contract, for each type of queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.document import Document, TableSchema
from headrace.sources.rabbitmq import RabbitSource
from headrace.testing.tables import TableSourceContract
from services.rabbitmq import Rabbit

pytestmark = pytest.mark.services


class Article(Document):
    id: str
    text: str


SCHEMA = TableSchema.of("articles", [Article], "id")


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    with Rabbit(tmp_path_factory.mktemp("rabbit")) as server:
        yield server


class World:
    """A queue of its own in a server that is shared."""

    schema = SCHEMA

    def __init__(self, rabbit: Rabbit, type: str) -> None:
        self._rabbit = rabbit
        self._queue = rabbit.queue(type)
        self.source = RabbitSource(rabbit.url(self._queue))

    def put(self, key: str, text: str) -> str:
        self._rabbit.publish(self._queue, [json.dumps({"id": key, "text": text}).encode()])
        return key

    def delete(self, key: str) -> None:
        self._rabbit.publish(self._queue, [(b"", {"headers": {"op": "delete", "key": key}})])

    def text(self, document: Any) -> str:
        return str(document.text)


class TestClassic(TableSourceContract):
    snapshots = remembers = False

    @pytest.fixture
    def world(self, rabbit: Rabbit) -> World:
        return World(rabbit, "classic")


class TestQuorum(TableSourceContract):
    snapshots = remembers = False

    @pytest.fixture
    def world(self, rabbit: Rabbit) -> World:
        return World(rabbit, "quorum")


class TestStream(TableSourceContract):
    snapshots = False

    @pytest.fixture
    def world(self, rabbit: Rabbit) -> World:
        return World(rabbit, "stream")
