"""Tables from topics, on real brokers: rows under keys, Debezium's changes, an outbox."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from headrace.document import Document, TableSchema
from headrace.errors import ConfigError
from headrace.sources.kafka_table import KafkaTable
from headrace.sources.kafka_writer import KafkaSink
from headrace.testing.tables import TableModel, TableSourceContract, batches, read_all
from services.kafka import Broker


class Note(Document):
    id: str
    text: str = ""


SCHEMA = TableSchema.of("notes", [Note], key="id")


class World:
    """A topic of rows under keys, of so many partitions."""

    def __init__(self, broker: Broker, partitions: int, format: str = "json") -> None:
        self.broker, self.schema, self.format = broker, SCHEMA, format
        self.partitions = partitions
        self.topic = broker.create(partitions)
        self.source = KafkaTable(broker.url(self.topic, format=format, batch=2))

    def put(self, key: str, text: str) -> str:
        row: dict[str, Any] = {"id": key, "text": text}
        self._write(key, row if self.format == "json" else {"op": "c", "before": None, "after": row})
        return key

    def delete(self, key: str) -> None:
        if self.format == "debezium":
            self._write(key, {"op": "d", "before": {"id": key}, "after": None})
        self._write(key, None)

    def text(self, document: Any) -> str:
        return str(document.text)

    def _write(self, key: str, row: Any) -> None:
        name = key if self.format == "json" else json.dumps({"id": key})
        value = None if row is None else json.dumps(row)
        self.broker.produce(self.topic, [value], key=name, partition=ord(key[0]) % self.partitions)


class TestRowsUnderKeys(TableSourceContract):
    @pytest.fixture
    def world(self, broker: Broker) -> World:
        return World(broker, 1)


class TestPartitions(TableSourceContract):
    @pytest.fixture
    def world(self, broker: Broker) -> World:
        return World(broker, 3)


class TestDebezium(TableSourceContract):
    @pytest.fixture
    def world(self, broker: Broker) -> World:
        return World(broker, 2, "debezium")


def table(url: str, **options: Any) -> dict[str, str]:
    model = TableModel(SCHEMA)
    for batch in read_all(KafkaTable(url, **options), SCHEMA):
        model.take(batch)
    return {key: row.text for key, row in model.rows.items() if isinstance(row, Note)}


def test_what_is_published_is_a_table(broker: Broker) -> None:
    topic = broker.create(2)
    with closing(KafkaSink(broker.url(topic))) as sink:
        sink.put([(b"a", b'{"id": "a", "text": "A"}'), (b"b", b'{"id": "b", "text": "B"}')])
        sink.put([(b"a", b'{"id": "a", "text": "A2"}'), (b"b", None)])
    assert table(broker.url(topic)) == {"a": "A2"}


def test_an_outbox_is_a_table(broker: Broker) -> None:
    topic = broker.create(1)
    payload = json.dumps({"text": "A"})
    broker.produce(topic, [json.dumps(payload)], key='"a"', headers={"id": b"1", "eventType": b"NoteWritten"})
    broker.produce(topic, [payload], key="b", headers={"id": b"2", "eventType": b"NoteWritten"})
    broker.produce(topic, [payload], key="c", headers={"id": b"3", "eventType": b"NoteWritten"})
    broker.produce(topic, [payload], key="b", headers={"id": b"4", "eventType": b"NoteDeleted"})
    broker.produce(topic, [None], key="c", headers={"id": b"5"})
    assert table(broker.url(topic, format="outbox")) == {"a": "A"}


def test_what_cannot_be_read_is_a_dead_letter(broker: Broker) -> None:
    topic = broker.create(1)
    broker.produce(topic, [b"\xff", b"[]", '{"id": "a", "text": "A"}', None])
    (batch,) = read_all(KafkaTable(broker.url(topic)), SCHEMA)
    assert [letter.trace.origin for letter in batch.letters] == [f"{topic}[0]@{offset}" for offset in (0, 1, 3)]
    assert [letter.trace.raw for letter in batch.letters] == [b"\xff", b"[]", b""]
    assert [change.row for change in batch.changes] == [{"id": "a", "text": "A"}]


@pytest.mark.parametrize(("partitions", "left"), [(1, ["b"]), (2, ["a", "b"])])
def test_a_truncate_needs_a_topic_of_one_partition(broker: Broker, partitions: int, left: list[str]) -> None:
    topic = broker.create(partitions)
    broker.produce(topic, [json.dumps({"op": "c", "after": {"id": "a"}})], key="a", partition=0)
    broker.produce(topic, [json.dumps({"op": "t", "source": {}})], partition=0)
    broker.produce(topic, [json.dumps({"op": "c", "after": {"id": "b"}})], key="b", partition=0)
    assert sorted(table(broker.url(topic, format="debezium"))) == left


def test_a_topic_that_was_made_again_is_a_new_table(broker: Broker) -> None:
    world, model = World(broker, 1), TableModel(SCHEMA)
    world.put("ada", "A")
    world.put("bob", "B")
    with closing(world.source.open(None, SCHEMA)) as reader:
        for batch in batches(reader):
            model.take(batch)
        position = batch.position
    broker.delete(world.topic)
    broker.create(1, world.topic)
    world.put("ada", "A2")
    for batch in read_all(world.source, SCHEMA, position):
        model.take(batch)
    assert {key: world.text(row) for key, row in model.rows.items()} == {"ada": "A2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"format": "debesium"}, "debezium"), ({"start": "latest"}, "for a stream"), ({"strat": "1"}, "no option")],
)
def test_options_that_it_has_not(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KafkaTable("kafka://broker/topic", **options)
    with pytest.raises(ConfigError, match=message):
        KafkaTable("kafka://broker/topic?" + "&".join(f"{name}={value}" for name, value in options.items()))
