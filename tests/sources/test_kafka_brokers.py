"""What only Apache Kafka itself can be asked: transactions, compaction, retention, partitions that are added, TLS."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from confluent_kafka import TopicPartition
from kafka_models import SCHEMA, Fed, gaps, payment, payments, read, values

from headrace.errors import ConfigError, StorageError
from headrace.sources.base import Reader
from headrace.sources.kafka import KafkaSource
from headrace.testing.sources import next_chunk, read_rest
from services.kafka import PASSWORD, USER, Broker, Kraft, until

pytestmark = pytest.mark.services


def test_aborted_transactions_are_not_read(kraft: Broker) -> None:
    topic = kraft.create(2)
    producer = kraft.producer(**{"transactional.id": f"x-{topic}"})
    producer.init_transactions(30)
    for turn in range(6):
        producer.begin_transaction()
        for n in range(5):
            producer.produce(topic, payment(10 * turn + n), partition=n % 2)
        producer.flush(30)
        if turn % 3 == 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    expected = [10 * turn + n for turn in (0, 1, 3, 4) for n in range(5)]
    source = KafkaSource(kraft.url(topic))
    with closing(Fed(source)) as fed:
        assert sorted(fed.numbers()) == expected
        # What is last in a partition is no message, and yet it is its end.
        assert fed.feeder.lag() == {"0": 0, "1": 0}
        assert read(source, fed.position) == []


def test_a_transaction_is_read_once_it_is_committed(kraft: Broker) -> None:
    topic = kraft.create(1)
    producer = kraft.producer(**{"transactional.id": f"x-{topic}"})
    producer.init_transactions(30)
    with closing(Fed(KafkaSource(kraft.url(topic)))) as fed:
        producer.begin_transaction()
        producer.produce(topic, payment(1))
        producer.flush(30)
        assert fed.numbers() == []  # it is at the end of what can be read
        producer.commit_transaction(30)
        assert fed.numbers() == [1]


def test_uncommitted_messages_where_they_are_asked_for(kraft: Broker) -> None:
    topic = kraft.create(1)
    producer = kraft.producer(**{"transactional.id": f"x-{topic}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, payment(1))
    producer.flush(30)
    assert values(read(KafkaSource(kraft.url(topic) + "?isolation.level=read_uncommitted"))) == [payment(1)]
    producer.abort_transaction(30)


def test_a_compacted_topic_with_tombstones(kraft: Broker) -> None:
    settings = {"cleanup_policy": "compact", "segment_ms": "200", "min_cleanable_dirty_ratio": "0.01"}
    topic = kraft.create(
        1, **settings, min_compaction_lag_ms="0", max_compaction_lag_ms="100", delete_retention_ms="100"
    )
    for turn in range(5):
        for user in range(10):
            dead = turn == 3 and user < 4
            kraft.produce(topic, [None if dead else payment(10 * turn + user)], key=f"u{user}")
    source = KafkaSource(kraft.url(topic, batch=3))
    with closing(Fed(source)) as fed:
        early, position = fed.numbers(), fed.position
        assert early[-10:] == list(range(40, 50))

        def compacted() -> bool:
            kraft.produce(topic, [payment(99)], key="last")  # only a segment that was closed is cleaned
            return kraft_first(kraft, topic) >= 40

        until(compacted, "compaction")
        late = set(fed.numbers())
        assert late <= {99}
    found = [json.loads(value)["n"] for value in values(read(source))]
    assert sorted(set(found)) == [*range(40, 50), 99]
    assert {json.loads(value)["n"] for value in values(read(source, position))} == {99}


def kraft_first(kraft: Broker, topic: str) -> int:
    """The offset of the first message that is left."""
    (first, *_) = kraft.rows(topic, 1)
    return first[1]


def test_what_retention_has_taken_is_named(kraft: Broker) -> None:
    topic = kraft.create(2)
    source = KafkaSource(kraft.url(topic))
    kraft.produce(topic, payments(10), partition=0)
    kraft.produce(topic, payments(10, start=100), partition=1)
    position = read(source)[-1].position
    kraft.produce(topic, payments(30, start=10), partition=0)
    admin = kraft.admin()
    for future in admin.delete_records([TopicPartition(topic, 0, 25)]).values():
        future.result(30)
    kraft.produce(topic, payments(5, start=40), partition=0)
    chunks = read(source, position)
    (gap,) = gaps(chunks)
    assert (gap.path, gap.start, gap.end) == (f"{topic}[0]", 10, 25)
    assert "messages 10 to 24 were deleted" in gap.reason
    assert [json.loads(value)["n"] for value in values(chunks)] == list(range(25, 45))
    with closing(Fed(source, position)) as fed:
        fed.numbers()
        assert ["messages 10 to 24" in letter.reason for letter in fed.dead()] == [True]


def test_retention_while_it_is_read(kraft: Broker) -> None:
    topic = kraft.create(1)
    kraft.produce(topic, payments(2000))
    with closing(KafkaSource(kraft.url(topic, batch=10) + "&queued.min.messages=1").open()) as reader:
        first = next_chunk(reader)
        assert first is not None
        admin = kraft.admin()
        for future in admin.delete_records([TopicPartition(topic, 0, 2000)]).values():
            future.result(30)
        kraft.produce(topic, payments(3, start=2000))
        chunks = [first, *read_rest(reader)]
    numbers = [json.loads(value)["n"] for value in values(chunks)]
    lost = [n for gap in gaps(chunks) for n in range(gap.start, gap.end)]
    assert sorted(numbers + lost) == list(range(2003))


def test_partitions_that_are_added_are_read_from_their_beginning(kraft: Broker) -> None:
    topic = kraft.create(1)
    kraft.produce(topic, payments(5))
    for start in ("earliest", "latest"):
        already = kraft.partitions(topic)
        with closing(Fed(KafkaSource(kraft.url(topic, start=start, refresh="100ms")))) as fed:
            fed.numbers()
            kraft.add_partitions(topic, already + 1)
            kraft.produce(topic, payments(7, start=1000), partition=already)
            found: list[int] = []
            until(lambda fed=fed, found=found: found.extend(fed.taken()) or len(found) >= 7, "the new partition")
            assert sorted(found) == list(range(1000, 1007))
            # And one that is added while nobody reads.
            position = fed.position
        kraft.add_partitions(topic, already + 2)
        kraft.produce(topic, payments(2, start=2000), partition=already + 1)
        assert sorted(values(read(KafkaSource(kraft.url(topic, start=start)), position))) == payments(2, start=2000)


def test_a_drain_sees_partitions_that_were_just_added(kraft: Broker) -> None:
    topic = kraft.create(1)
    with closing(Fed(KafkaSource(kraft.url(topic)))) as fed:
        assert fed.numbers() == []
        kraft.add_partitions(topic, 3)
        kraft.produce(topic, payments(7), partition=2)
        assert fed.numbers() == list(range(7))


@pytest.mark.parametrize("count", [3, 30])  # fewer and more messages than the old one had
def test_a_topic_that_was_created_again_is_read_from_its_beginning(kraft: Broker, count: int) -> None:
    topic = kraft.create(2)
    kraft.produce(topic, payments(10), partition=0)
    source = KafkaSource(kraft.url(topic))
    position = read(source)[-1].position
    kraft.delete(topic)
    kraft.create(2, topic)
    kraft.produce(topic, payments(count, start=100), partition=0)
    chunks = read(source, position)
    assert values(chunks) == payments(count, start=100)
    assert [(gap.path, gap.start) for gap in gaps(chunks)] == [(f"{topic}[0]", 10), (f"{topic}[1]", 0)]
    assert read(source, chunks[-1].position) == []


def test_a_topic_that_is_created_again_while_it_is_read(kraft: Broker) -> None:
    topic = kraft.create(1)
    kraft.produce(topic, payments(10))
    with closing(Fed(KafkaSource(kraft.url(topic, refresh="100ms")))) as fed:
        assert len(fed.numbers()) == 10
        kraft.delete(topic)
        kraft.create(1, topic)
        kraft.produce(topic, payments(3, start=100))
        found: list[int] = []
        until(lambda: found.extend(fed.taken()) or len(found) >= 3, "the new topic")
        assert (found, len(fed.dead())) == ([100, 101, 102], 1)


def test_a_corrupt_batch_holds_its_partition(kraft: Kraft) -> None:
    topic = kraft.create(1)  # in an answer with more partitions, it is librdkafka that ends (2.16)
    for n in range(3):
        kraft.produce(topic, [payment(n, user="x" * 50)], partition=0)
    (log,) = (kraft.folder / "data" / f"{topic}-0").glob("*.log")
    text = bytearray(log.read_bytes())
    place = text.index(b'"n": 1')
    with open(log, "r+b") as file:
        file.seek(place + 5)
        file.write(b"7")
    with closing(Fed(KafkaSource(kraft.url(topic)))) as fed:
        assert not fed.feeder.caught_up(2)
        assert fed.taken() == [0]
        assert "partition 0 cannot be read on" in str(fed.feeder.problem)
        # Whoever runs the brokers gives the messages up.
        admin = kraft.admin()
        for future in admin.delete_records([TopicPartition(topic, 0, 2)]).values():
            future.result(30)
        assert fed.numbers() == [2]
        assert ["messages 1 to 1 were deleted" in letter.reason for letter in fed.dead()] == [True]


LISTENERS = [
    ("SASL_PLAINTEXT", "PLAIN"),
    ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
    ("SASL_SSL", "PLAIN"),
    ("SASL_SSL", "SCRAM-SHA-256"),
    ("SSL", ""),
]


@pytest.mark.parametrize(("protocol", "mechanism"), LISTENERS)
def test_logins_and_encryption(kraft: Kraft, protocol: str, mechanism: str) -> None:
    topic = kraft.create(1)
    config = kraft.secured(protocol, mechanism)
    source = KafkaSource(f"kafka://{config.pop('bootstrap.servers')}/{topic}", config=config)
    with closing(source.writer(SCHEMA)) as writer:
        assert writer.write(SCHEMA.empty()) == {}
    kraft.produce(topic, payments(3))
    assert values(read(source)) == payments(3)


def test_a_login_in_the_url(kraft: Kraft, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = kraft.create(1)
    kraft.produce(topic, payments(3))
    config = kraft.secured("SASL_SSL", "PLAIN")
    where, ca = config["bootstrap.servers"], config["ssl.ca.location"]
    quoted = KafkaSource(f"kafka://{USER}:{quote(PASSWORD, safe='')}@{where}/{topic}?ssl.ca.location={ca}")
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    named = KafkaSource(f"kafka://{USER}:${{KAFKA_PASSWORD}}@{where}/{topic}?ssl.ca.location={ca}")
    assert quoted.name == named.name == f"kafka://{where}/{topic}"
    assert values(read(quoted)) == values(read(named)) == payments(3)


@pytest.fixture
def wrong(kraft: Kraft, tmp_path: Path) -> dict[str, dict[str, str]]:
    shutil.copy(kraft.folder / "client.pem", tmp_path / "other.pem")
    return {
        "password": kraft.secured("SASL_PLAINTEXT", "PLAIN") | {"sasl.password": "hunter2"},
        "user": kraft.secured("SASL_PLAINTEXT", "SCRAM-SHA-256") | {"sasl.username": "mallory"},
        "authority": kraft.secured("SASL_SSL", "PLAIN") | {"ssl.ca.location": str(tmp_path / "other.pem")},
        "protocol": kraft.secured("SASL_PLAINTEXT", "PLAIN") | {"security.protocol": "plaintext"},
    }


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("password", "sasl.mechanism"),
        ("user", "sasl.mechanism"),
        ("authority", "ssl.ca.location"),
        ("protocol", "security.protocol"),
    ],
)
def test_why_a_login_fails_is_said_without_the_secret(
    kraft: Kraft, wrong: dict[str, dict[str, str]], what: str, said: str
) -> None:
    config = wrong[what]
    source = KafkaSource(f"kafka://{config.pop('bootstrap.servers')}/t", config=config)
    told: list[str] = []

    def fails(reader: Reader) -> bool:
        with pytest.raises(StorageError) as raised:
            reader.read(0)
        told.append(str(raised.value))
        return said in told[-1]

    with closing(source.open()) as reader:
        # The client's first failure may come before the broker has said why.
        until(lambda: fails(reader), f"{said!r} in the reason")
    assert all(config.get("sasl.password", "?") not in one for one in told)


def test_a_certificate_that_is_not_there() -> None:
    source = KafkaSource("kafka://127.0.0.1:1/t?security.protocol=ssl&ssl.ca.location=/no/such.pem")
    with pytest.raises(ConfigError, match=r"ssl\.ca\.location"):
        source.open()
    with pytest.raises(ConfigError, match=r"ssl\.ca\.location"):
        source.writer(SCHEMA)
