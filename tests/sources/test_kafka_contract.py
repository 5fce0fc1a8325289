"""The Kafka source under the contract that every source is held to, and its lanes under the same."""

from collections.abc import Sequence
from typing import Any

import pytest

from headrace.sources.base import Chunk
from headrace.sources.kafka import KafkaSource
from headrace.testing.sources import SourceContract
from services.kafka import Broker


class _Kafka(SourceContract):
    @pytest.fixture
    def waiting(self, broker: Broker) -> KafkaSource:
        return KafkaSource(broker.url(broker.create(2)))

    def rows(self, chunks: Sequence[Chunk]) -> list[Any]:
        return [
            (chunk.trace(row).origin.partition("]@")[0], value)
            for chunk in chunks
            if chunk.messages is not None and chunk.trace is not None
            for row, value in enumerate(chunk.messages)
        ]

    def arranged(self, rows: Sequence[Any]) -> list[Any]:
        return sorted(rows, key=lambda row: row[0])  # by partition; within one they keep their order


class TestOnePartition(_Kafka):
    @pytest.fixture
    def source(self, broker: Broker) -> KafkaSource:
        topic = broker.create(1)
        broker.produce(topic, [b"%d" % n for n in range(30)])
        return KafkaSource(broker.url(topic, batch=7))

    def arranged(self, rows: Sequence[Any]) -> list[Any]:
        return list(rows)


class TestPartitions(_Kafka):
    @pytest.fixture
    def source(self, broker: Broker) -> KafkaSource:
        topic = broker.create(3)
        for number, count in ((0, 12), (2, 9)):  # one of them is empty
            broker.produce(topic, [b"%d" % n for n in range(count)], partition=number)
        return KafkaSource(broker.url(topic, batch=5))


class TestLane(_Kafka):
    @pytest.fixture
    def source(self, broker: Broker) -> KafkaSource:
        topic = broker.create(4)
        for number in range(4):
            broker.produce(topic, [b"%d" % n for n in range(8)], partition=number)
        lane = KafkaSource(broker.url(topic, batch=5)).lanes(2)[1]
        assert isinstance(lane, KafkaSource)
        return lane
