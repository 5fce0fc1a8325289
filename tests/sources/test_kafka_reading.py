"""Reading a topic: where it starts, what becomes of keys, tombstones and poison, and how far behind it is."""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer, TopicPartition
from kafka_models import SCHEMA, Fed, Payment, gaps, payment, payments, read, values

import headrace as hr
from headrace.errors import ConfigError
from headrace.schema import Schema
from headrace.sources.kafka import KafkaSource
from headrace.testing.sources import next_chunk, read_rest
from services.kafka import Broker, until


def test_the_latest_start_reads_what_comes_after_it(broker: Broker) -> None:
    if broker.kind == "tansu":
        pytest.skip("Tansu's latest offset is that of the last batch's beginning, so old messages come as well")
    topic = broker.create(2)
    broker.produce(topic, [b"old"] * 5 + [b"older"])
    with closing(KafkaSource(broker.url(topic, start="latest")).open()) as reader:
        (start,) = [chunk for chunk in read_rest(reader) if not chunk.messages]
        broker.produce(topic, [b"new"], partition=0)
        broker.produce(topic, [b"new"], partition=1)
        assert values(read_rest(reader)) == [b"new", b"new"]
    # The place of the start is known before any message, so that a restart does not lose what came between.
    assert values(read(KafkaSource(broker.url(topic, start="latest")), start.position)) == [b"new", b"new"]


def test_a_start_in_time(broker: Broker) -> None:
    if broker.kind == "tansu":
        pytest.skip("Tansu answers with offset 0 whatever the time")
    topic = broker.create(2)
    for hour in range(4):
        broker.produce(topic, [b"%d" % hour], partition=0, timestamp=1_767_225_600_000 + hour * 3_600_000)
    broker.produce(topic, [b"early"], partition=1, timestamp=1_767_225_600_000)
    source = KafkaSource(broker.url(topic, start="2026-01-01T02:00:00Z"))
    assert sorted(values(read(source))) == [b"2", b"3"]


def test_a_position_goes_before_the_start(broker: Broker) -> None:
    topic = broker.create(1)
    broker.produce(topic, payments(5))
    chunks = read(KafkaSource(broker.url(topic)))
    broker.produce(topic, payments(5, start=5))
    assert values(read(KafkaSource(broker.url(topic, start="latest")), chunks[-1].position)) == payments(5, start=5)


def test_positions_are_next_offsets(broker: Broker) -> None:
    topic = broker.create(3)
    broker.produce(topic, payments(5), partition=1)
    position = read(KafkaSource(broker.url(topic)))[-1].position
    assert {key: at for key, at in position.items() if key != "topic"} == {"0": 0, "1": 5, "2": 0}


@pytest.mark.parametrize(
    "position", [{"files": {}}, {"0": -1}, {"0": "1"}, {"x": 1}, {"0": True}, 7, "0", {"topic": 1}]
)
def test_another_sources_position_is_refused(position: object) -> None:
    with pytest.raises(ConfigError, match="expected a position in"):
        KafkaSource("kafka://b/t").open(position)


def test_the_writing_time_and_the_rate_of_chunks(broker: Broker) -> None:
    topic = broker.create(1)
    for n in range(3):
        broker.produce(topic, payments(100), timestamp=1_767_225_600_000 + n)
    chunks = read(KafkaSource(broker.url(topic, batch=100)))
    assert sum(len(chunk.messages or ()) for chunk in chunks) == 300
    assert chunks[-1].created == 1_767_225_600_002_000


def test_chunks_are_bounded_in_bytes(broker: Broker) -> None:
    topic = broker.create(1)
    broker.produce(topic, [b"x" * 10_000] * 600)
    chunks = read(KafkaSource(broker.url(topic, chunk="200kB", batch=300)))
    assert sum(len(chunk.messages or ()) for chunk in chunks) == 600
    # The first poll cannot know how long messages are.
    assert max(len(chunk.messages or ()) for chunk in chunks[1:]) <= 21


def test_keys_headers_and_times_become_fields(broker: Broker) -> None:
    class Written(hr.Event):
        n: int
        user: str | None
        trace: str | None = None
        offset: int = 0
        at: datetime = hr.event_time(unit="s")

    topic = broker.create(1)
    stamp = 1_767_225_600_123
    broker.produce(topic, [b'{"n": 1}', b" {} "], key="ann", headers=[("t", b"old"), ("t", b"x")], timestamp=stamp)
    broker.produce(topic, [b'{"n": 2, "user": "of the value", "at": 5}'], key=b"\xff", timestamp=stamp)
    broker.produce(topic, [b'{"n": 3, "inner": {"user": 1}}', b"no object"], timestamp=stamp)
    broker.produce(topic, [b'{"n": 4}'], key=b"\xff", timestamp=stamp)
    source = KafkaSource(broker.url(topic, key="user", timestamp="at", **{"header.t": "trace"}))
    (chunk,) = read(source)
    found = source.decoder(Schema.of(Written))(chunk)
    moment = datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)
    assert found.frame.select("n", "user", "trace", "at").rows() == [
        (1, "ann", "x", moment),
        (2, "of the value", None, datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)),
        (3, None, None, moment),
    ]
    assert [(reject.row, reject.raw) for reject in found.rejects] == [(1, b" {} "), (4, b"no object"), (5, b'{"n": 4}')]
    assert "UTF-8" in found.rejects[-1].reason


def test_a_field_that_is_not_the_models() -> None:
    with pytest.raises(ConfigError, match="did you mean 'user'"):
        KafkaSource("kafka://b/t?key=usr").decoder(SCHEMA)


def test_tombstones_are_passed_over_and_counted(broker: Broker) -> None:
    topic = broker.create(1)
    broker.produce(topic, [payment(0), None, b"", None, payment(1), None])
    with closing(KafkaSource(broker.url(topic)).open()) as reader:
        chunks = read_rest(reader)
        assert values(chunks) == [payment(0), b"", payment(1)]
        assert (reader.tombstones, chunks[-1].position["0"]) == (3, 6)
        assert [chunk.trace(row).origin for chunk in chunks if chunk.trace for row in range(3)] == [
            f"{topic}[0]@{offset}" for offset in (0, 2, 4)
        ]


def test_tombstones_may_be_rejected(broker: Broker) -> None:
    topic = broker.create(1)
    broker.produce(topic, [payment(0), None, b""], key="k")
    source = KafkaSource(broker.url(topic, tombstones="reject"))
    (chunk,) = read(source)
    found = source.decoder(SCHEMA)(chunk)
    assert found.frame["n"].to_list() == [0]
    assert ["tombstone" in reject.reason for reject in found.rejects] == [True, False]
    assert chunk.trace is not None
    assert chunk.trace(1).key == b"k"


def test_poison_goes_to_the_dead_letters_and_their_topic(broker: Broker) -> None:
    topic, dead = broker.create(2), broker.create(1)
    for number in range(2):
        broker.produce(topic, payments(10, start=10 * number), partition=number)
        headers = [("trace", b"\x00\xff"), ("none", None)]
        broker.produce(topic, [b"\xff poison"], partition=number, key=b"k\xff", headers=headers)
        broker.produce(topic, payments(10, start=20 + 10 * number), partition=number)
    with closing(Fed(KafkaSource(broker.url(topic, dead_letters=dead)))) as fed:
        assert sorted(fed.numbers()) == list(range(40))
        letters = fed.dead()
    assert [(letter.source, letter.raw) for letter in letters] == [
        (f"{topic}[{number}]@10", b"\xff poison") for number in range(2)
    ]
    for message in broker.messages(dead, 2):
        found = dict(message.headers())
        assert (message.value(), message.key()) == (b"\xff poison", b"k\xff")
        assert (found["trace"], found["none"]) == (b"\x00\xff", None)
        assert found["headrace.origin"].decode() in {letter.source for letter in letters}
        assert found["headrace.reason"].decode() in {letter.reason for letter in letters}


def test_poison_that_is_read_again_is_set_aside_once(broker: Broker) -> None:
    topic = broker.create(1)
    broker.produce(topic, [b"poison", payment(1)])
    source = KafkaSource(broker.url(topic))
    with closing(Fed(source)) as fed:
        fed.numbers()
        (chunk,) = read(source)
        fed.feeder._take_in(chunk)
        assert (fed.numbers(), len(fed.dead())) == ([1], 1)


def test_lag_and_the_end(broker: Broker) -> None:
    topic = broker.create(2)
    broker.produce(topic, payments(50), partition=1)
    with closing(KafkaSource(broker.url(topic, batch=10)).open()) as reader:
        assert reader.lag() == {}
        assert next_chunk(reader) is not None
        assert not reader.at_end()
        assert 0 < reader.lag()["1"] <= 40
        read_rest(reader)
        assert (reader.at_end(), reader.lag()) == (True, {"0": 0, "1": 0})
        broker.produce(topic, payments(3), partition=0)
        assert not reader.at_end()


def test_another_member_of_the_group_takes_nothing_away(broker: Broker) -> None:
    topic = broker.create(2)
    source = KafkaSource(broker.url(topic, group=f"g-{topic}"))
    broker.produce(topic, payments(20))
    with closing(Fed(source)) as fed:
        assert len(fed.numbers()) == 20
        conf = {"bootstrap.servers": broker.bootstrap, "group.id": f"g-{topic}", "session.timeout.ms": 6000}
        with closing(Consumer(conf | {"auto.offset.reset": "earliest", "log_level": 0})) as other:
            other.subscribe([topic])
            until(lambda: other.poll(0.1) is not None, "the other member to get a message")
            assert len(other.assignment()) == 2
            broker.produce(topic, payments(20, start=20))
            assert sorted(fed.numbers()) == list(range(20, 40))


def test_offsets_are_committed_for_monitors(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.sources.kafka_group.COMMIT", 0.05)
    topic = broker.create(1)
    broker.produce(topic, payments(7))
    group = f"g-{topic}"
    conf = {"bootstrap.servers": broker.bootstrap, "group.id": group, "log_level": 0}
    with (
        closing(Fed(KafkaSource(broker.url(topic, group=group)))) as fed,
        closing(Consumer(conf)) as monitor,
    ):
        fed.numbers()
        until(lambda: monitor.committed([TopicPartition(topic, 0)], 10)[0].offset == 7, "the offset of the group")


def test_lanes_share_the_partitions_out(broker: Broker) -> None:
    topic = broker.create(5)
    for number in range(5):
        broker.produce(topic, payments(4, start=10 * number), partition=number)
    source = KafkaSource(broker.url(topic))
    lanes = source.lanes(3)
    found = [read(lane) for lane in lanes if isinstance(lane, KafkaSource)]
    assert {lane.name for lane in lanes} == {source.name}
    assert [sorted({json.loads(value)["n"] // 10 for value in values(chunks)}) for chunks in found] == [
        [0, 3],
        [1, 4],
        [2],
    ]
    # Their positions, put together, are a position of the whole, and of any other number of lanes.
    merged = {key: at for chunks in found for key, at in chunks[-1].position.items()}
    assert read(source, merged) == []
    assert [read(lane, merged) for lane in source.lanes(2) if isinstance(lane, KafkaSource)] == [[], []]


def test_more_lanes_than_partitions(broker: Broker) -> None:
    topic = broker.create(1)
    broker.produce(topic, payments(3))
    lanes = KafkaSource(broker.url(topic)).lanes(3)
    assert [len(values(read(lane))) for lane in lanes if isinstance(lane, KafkaSource)] == [3, 0, 0]


def test_reading_again_and_again_from_the_last_position_gives_each_message_once(broker: Broker) -> None:
    topic = broker.create(3)
    source = KafkaSource(broker.url(topic, batch=17))
    seen: list[bytes] = []
    position = None
    for turn in range(6):
        broker.produce(topic, payments(40, start=40 * turn))
        with closing(source.open(position)) as reader:
            for _ in range(turn):  # it is stopped somewhere
                if (chunk := next_chunk(reader)) is not None:
                    seen += chunk.messages or ()
                    position = chunk.position
    seen += values(read(source, position))
    assert sorted(seen) == sorted(payments(240))


def test_messages_of_any_length_and_of_none(broker: Broker) -> None:
    topic = broker.create(1)
    lines = [
        payment(0),
        b'{"n": 1,\n "at": 1}',
        b"",
        payment(2, user="x" * 300_000),
        b"\n",
        b'{"n":3,"at":1}{"n":4,"at":1}',
    ]
    broker.produce(topic, lines)
    source = KafkaSource(broker.url(topic))
    with closing(Fed(source)) as fed:
        assert fed.numbers() == [0, 1, 2]
        assert [letter.source for letter in fed.dead()] == [f"{topic}[0]@{offset}" for offset in (2, 4, 5)]


def test_nothing_is_said_of_gaps_where_there_are_none(broker: Broker) -> None:
    topic = broker.create(1)
    broker.produce(topic, payments(3))
    assert gaps(read(KafkaSource(broker.url(topic)))) == []
    assert Payment.model_validate_json(payment(1)).n == 1


def test_a_topic_that_comes_later(broker: Broker) -> None:
    topic = broker.create(1) + "-later"
    with closing(Fed(KafkaSource(broker.url(topic)))) as fed:
        until(lambda: fed.feeder.problem, "the problem")
        assert f"no topic '{topic}'" in str(fed.feeder.problem)
        broker.create(1, topic)
        broker.produce(topic, payments(3))
        started = time.monotonic()
        assert fed.numbers() == [0, 1, 2]
        assert time.monotonic() - started < 20
