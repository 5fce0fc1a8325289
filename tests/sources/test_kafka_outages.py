"""Brokers that go away: it is reported, nothing is lost, and reading goes on when they are back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from kafka_models import Fed, payment, payments

from headrace.errors import StorageError
from headrace.sources.base import Letter, Trace
from headrace.sources.kafka import KafkaSource
from services.kafka import Broker, Kraft, Tansu, until


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Broker]:
    """A Tansu of the test's own."""
    broker = Tansu(tmp_path)
    try:
        yield broker
    finally:
        broker.close()


def test_a_source_may_be_opened_before_its_broker(mortal: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.sources.kafka_cluster.ANSWER", 0.5)
    with closing(Fed(KafkaSource(mortal.url("payments")))) as fed:
        until(lambda: fed.feeder.problem, "a report")
        assert mortal.bootstrap in str(fed.feeder.problem)
        mortal.start()
        mortal.produce(mortal.create(1, "payments"), payments(3))
        assert fed.numbers() == [0, 1, 2]
        assert fed.feeder.problem is None


def test_a_broker_that_goes_away_is_reported_and_its_return_noticed(
    mortal: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.sources.kafka_cluster.PATIENCE", 0.3)
    monkeypatch.setattr("headrace.sources.kafka_cluster.ANSWER", 0.5)
    mortal.start()
    topic, dead = mortal.create(1), mortal.create(1)
    mortal.produce(topic, payments(5))
    url = mortal.url(topic, refresh="100ms", dead_letters=dead) + "&message.timeout.ms=1000"
    with closing(Fed(KafkaSource(url))) as fed:
        assert len(fed.numbers()) == 5
        mortal.kill()
        until(lambda: fed.feeder.problem, "a report")
        with pytest.raises(StorageError, match="1 of 1 dead letters were not written"):
            fed.writer.set_aside([Letter("why", Trace("there"))])
        # It comes back without its topics, as one whose disk was lost.
        mortal.start()
        mortal.produce(mortal.create(1, topic), payments(3, start=100))
        found: list[int] = []
        until(lambda: found.extend(fed.taken()) or len(found) >= 3, "what was written since")
        assert found == [100, 101, 102]
        (letter,) = fed.dead()
        assert "the topic was deleted and created again" in letter.reason


class Load:
    """Writes payments at a pace until it is stopped, whatever the broker does; the order of writing is that of `n`."""

    def __init__(self, broker: Broker, topic: str, partitions: int) -> None:
        self.failed: list[Any] = []
        self.count = 0
        self._producer = broker.producer(**{"message.timeout.ms": 120_000, "retry.backoff.ms": 50})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(topic, partitions))
        self._thread.start()

    def _run(self, topic: str, partitions: int) -> None:
        def told(error: Any, _: Any) -> None:
            if error is not None:
                self.failed.append(error)

        while not self._stop.wait(0.005):
            if len(self._producer) > 50_000:  # the broker is away: what it does not take cannot be kept for ever
                self._producer.poll(0.05)
                continue
            for _ in range(10):
                self._producer.produce(topic, payment(self.count), partition=self.count % partitions, on_delivery=told)
                self.count += 1
            self._producer.poll(0)

    def stop(self) -> int:
        """Ends it; how many payments there are."""
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(120) == 0
        assert self.failed == []
        return self.count


@contextmanager
def reading(source: KafkaSource, position: Any) -> Iterator[Fed]:
    fed = Fed(source, position)
    try:
        yield fed
    finally:
        fed.close()


@pytest.mark.services
def test_a_broker_that_is_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    random = Random(7)
    broker = Kraft(tmp_path)
    try:
        broker.start()
        topic = broker.create(3)
        load = Load(broker, topic, 3)
        source = KafkaSource(broker.url(topic, batch=100, group=f"g-{topic}"))
        found: list[int] = []
        position = None
        for turn in range(3):
            with reading(source, position) as fed:
                wanted = len(found) + random.randint(200, 2000)
                until(lambda: found.extend(fed.taken()) or len(found) >= wanted, "load")  # noqa: B023
                broker.kill()
                found += fed.taken()
                if turn == 1:  # this reader sees the broker come back; the others are replaced meanwhile
                    broker.start()
                    wanted = len(found) + 500
                    until(lambda: found.extend(fed.taken()) or len(found) >= wanted, "load after the kill")  # noqa: B023
                fed.feeder.close()
                found += fed.taken()
                position = fed.position
            if turn != 1:
                broker.start()
        count = load.stop()
        with reading(source, position) as fed:
            found += fed.numbers()
            assert fed.dead() == []
        assert Counter(found) == Counter(range(count))
        for partition in range(3):  # and in the order of each partition
            assert [n for n in found if n % 3 == partition] == list(range(partition, count, 3))
    finally:
        broker.close()


@pytest.mark.services
def test_a_broker_that_stops_answering_for_a_while(tmp_path: Path) -> None:
    broker = Kraft(tmp_path)
    try:
        broker.start()
        topic = broker.create(2)
        load = Load(broker, topic, 2)
        with reading(KafkaSource(broker.url(topic)), None) as fed:
            found: list[int] = []
            until(lambda: found.extend(fed.taken()) or len(found) >= 500, "load")
            broker.freeze()
            found += fed.taken(timeout=2)  # until nothing comes for so long
            before = len(found)
            broker.thaw()
            until(lambda: found.extend(fed.taken()) or len(found) >= before + 500, "load after it")
            count = load.stop()
            found += fed.numbers()
            assert sorted(found) == list(range(count))
    finally:
        broker.close()
