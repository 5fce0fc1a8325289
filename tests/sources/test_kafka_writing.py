"""Writing to a topic: what is written is what a reader decodes, and is there when the call returns."""

from __future__ import annotations

import threading
from contextlib import closing, suppress
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka_models import SCHEMA, payment, read
from polars.testing import assert_frame_equal
from pydantic import BaseModel, Field

import headrace as hr
from headrace.errors import ClosedError, ConfigError, InputError, StorageError
from headrace.formats.messages import message_decoder
from headrace.schema import Schema
from headrace.sources.base import Letter, Trace
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_rows import to_json
from headrace.sources.kafka_writer import KafkaWriter
from headrace.testing import strategies
from services.kafka import Broker, Tansu, until


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    text: str = Field(alias="class")
    moment: datetime | None = None
    raw: bytes = b""


class Wide(hr.Event):
    text: str = Field(alias="from")
    number: int
    real: float
    flag: bool | None
    day: date
    clock: time
    moment: datetime | None
    raw: bytes | None
    many: list[int] | None
    inner: Inner | None
    inners: list[Inner]
    colour: Colour | None = None
    at: datetime = hr.event_time(unit="us")


WIDE = Schema.of(Wide)


@given(
    strategies.events(
        WIDE,
        values_of={
            "raw": st.text(max_size=4).map(str.encode),
            "inner": st.none()
            | st.fixed_dictionaries({"text": st.text(max_size=3), "moment": st.none(), "raw": st.just(b"x")}),
            "inners": st.just([]),
            "colour": st.none() | st.just("red"),
        },
    )
)
def test_what_is_written_decodes_to_the_same(events: pl.DataFrame) -> None:
    values = to_json(WIDE, events)
    found = message_decoder(WIDE, "json")(values)
    assert found.rejects == []
    assert_frame_equal(found.frame, events)


def test_what_is_written_inside_of_lists_too() -> None:
    moment = datetime(1, 1, 1, 0, 0, 0, 1, UTC)
    row = {
        **{
            "text": 'a"\\\n\x00\x85\u2028',
            "number": -(2**63) + 2,
            "real": 5e-324,
            "flag": None,
            "day": date(9999, 12, 31),
        },
        **{"clock": time(23, 59, 59, 999_999), "moment": datetime(9999, 12, 31, tzinfo=UTC), "raw": "é".encode()},
        **{"many": None, "inner": {"text": "", "moment": moment, "raw": b""}, "at": moment, "colour": "red"},
        "inners": [{"text": "x", "moment": moment, "raw": "é".encode()}, {"text": "y", "moment": None, "raw": b""}],
    }
    frame = pl.DataFrame([row], schema=WIDE.columns)
    (value,) = to_json(WIDE, frame)
    assert b'"class":"x"' in value
    assert_frame_equal(message_decoder(WIDE, "json")([value]).frame, frame)


class Measure(hr.Event):
    value: float
    raw: bytes = b""
    at: datetime = hr.event_time()


@pytest.mark.parametrize("bad", [{"value": float("nan")}, {"value": float("-inf")}, {"raw": b"\xff"}])
def test_what_json_cannot_hold_is_refused(bad: dict[str, object]) -> None:
    schema = Schema.of(Measure)
    row = {"value": 1.0, "raw": b"", "at": datetime(2026, 1, 1, tzinfo=UTC)} | bad
    with pytest.raises(InputError, match=next(iter(bad))):
        to_json(schema, pl.DataFrame([row], schema=schema.columns))


def frame(count: int, start: int = 0, users: int = 10) -> pl.DataFrame:
    numbers = range(start, start + count)
    at = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=n) for n in numbers]
    return pl.DataFrame({"n": numbers, "user": [f"u{n % users}" for n in numbers], "at": at}, schema=SCHEMA.columns)


def test_rows_are_there_when_the_write_returns(broker: Broker) -> None:
    topic = broker.create(3)
    source = KafkaSource(broker.url(topic))
    with closing(source.writer(SCHEMA)) as writer:
        first = writer.write(frame(1000), "user")
        second = writer.write(frame(500, start=1000), "user")
    chunks = read(source)
    found = pl.concat([source.decoder(SCHEMA)(chunk).frame for chunk in chunks])
    assert_frame_equal(found.sort("n"), frame(1500))
    # A user's rows are in one partition, in their order; the positions are past them.
    assert found.group_by("user").agg((pl.col("n").diff().drop_nulls() > 0).all())["n"].all()
    ends = {key: at for key, at in chunks[-1].position.items() if key != "topic" and at}
    assert first | second == ends
    assert sum(ends.values()) == 1500
    assert all(second[key] > first[key] for key in first)


def test_the_key_decides_the_partition_as_javas_clients_do(broker: Broker) -> None:
    topic = broker.create(4)
    with closing(KafkaSource(broker.url(topic)).writer(SCHEMA)) as writer:
        writer.write(frame(4, users=4), "user")
    # From org.apache.kafka.common.utils.Utils.murmur2 of "u0" to "u3".
    by_key = {key: partition for partition, _, key, _ in broker.rows(topic, 4)}
    assert by_key == {key: _murmur2(key) % 4 for key in (b"u0", b"u1", b"u2", b"u3")}


def _murmur2(data: bytes) -> int:
    """Kafka's: the 32-bit MurmurHash2 with its own seed, without the sign."""
    mixed, mask = 0x5BD1E995, 0xFFFFFFFF
    found = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        part = int.from_bytes(data[start : start + 4], "little") * mixed & mask
        part = (part ^ part >> 24) * mixed & mask
        found = found * mixed & mask ^ part
    if rest := data[whole:]:
        found = (found ^ int.from_bytes(rest, "little")) * mixed & mask
    found = (found ^ found >> 13) * mixed & mask
    return (found ^ found >> 15) & 0x7FFFFFFF


def test_without_a_key_and_with_that_of_the_url(broker: Broker) -> None:
    topic = broker.create(1)
    with closing(KafkaSource(broker.url(topic)).writer(SCHEMA)) as writer:
        writer.write(frame(1))
        writer.write(frame(1), "n")
        assert writer.write(frame(0)) == {}
    with closing(KafkaSource(broker.url(topic, key="user")).writer(SCHEMA)) as writer:
        writer.write(frame(1))
        with pytest.raises(ConfigError, match="message key"):
            writer.write(frame(1), "usr")
    assert [key for _, _, key, _ in broker.rows(topic, 3)] == [None, b"0", b"u0"]


def test_many_threads_write_at_once(broker: Broker) -> None:
    topic = broker.create(2)
    with closing(KafkaSource(broker.url(topic)).writer(SCHEMA)) as writer:
        threads = [threading.Thread(target=lambda n=n: writer.write(frame(50, start=50 * n), "user")) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(len(chunk.messages or ()) for chunk in read(KafkaSource(broker.url(topic)))) == 400


def test_more_rows_than_the_clients_buffer_holds(broker: Broker) -> None:
    topic = broker.create(1)
    url = broker.url(topic) + "?queue.buffering.max.messages=100"
    with closing(KafkaSource(url).writer(SCHEMA)) as writer:
        assert writer.write(frame(1000)) == {"0": 1000}


def test_dead_letters_keep_what_they_had(broker: Broker) -> None:
    topic, dead = broker.create(1), broker.create(1)
    trace = Trace("there[3]@7", b"\xff", b"\xfe", (("a", b"1"), ("b", None), ("a", b"2")))
    with closing(KafkaSource(broker.url(topic, dead_letters=dead)).writer(SCHEMA)) as writer:
        writer.set_aside([Letter("why ä", trace), Letter("x" * 100_000, Trace("elsewhere"))])
    one, other = broker.messages(dead, 2)
    assert (one.value(), one.key()) == (b"\xff", b"\xfe")
    assert one.headers()[:3] == [("a", b"1"), ("b", None), ("a", b"2")]
    assert dict(one.headers()[3:]) == {"headrace.reason": "why ä".encode(), "headrace.origin": b"there[3]@7"}
    assert len(dict(other.headers())["headrace.reason"]) < 10_000


def test_without_a_topic_for_dead_letters_nothing_is_written(broker: Broker) -> None:
    topic = broker.create(1)
    with closing(KafkaSource(broker.url(topic)).writer(SCHEMA)) as writer:
        writer.set_aside([Letter("why", Trace("there", payment(1)))])
    assert broker.ends(topic) == {0: (0, 0)}


@pytest.mark.services  # Tansu makes every topic that is asked for
def test_dead_letters_that_cannot_be_written_are_reported(kraft: Broker) -> None:
    source = KafkaSource(kraft.url(kraft.create(1), dead_letters="no-such-topic") + "&message.timeout.ms=1000")
    with closing(source.writer(SCHEMA)) as writer, pytest.raises(StorageError, match="1 of 1 dead letters"):
        writer.set_aside([Letter("why", Trace("there", b"x"))])


def test_a_writer_that_was_closed(tansu: Broker) -> None:
    writer = KafkaSource(tansu.url(tansu.create(1))).writer(SCHEMA)
    writer.close()
    writer.close()
    with pytest.raises(ClosedError):
        writer.write(frame(1))


def written(writer: KafkaWriter) -> dict[str, int]:
    """Where two rows went; nothing if they could not be written."""
    with suppress(StorageError):
        return writer.write(frame(2))
    return {}


def test_a_write_without_a_broker_fails_in_time_and_says_where(tmp_path: Path) -> None:
    broker = Tansu(tmp_path)
    broker.start()
    try:
        topic = broker.create(1)
        source = KafkaSource(broker.url(topic) + "?message.timeout.ms=1500")
        with closing(source.writer(SCHEMA)) as writer:
            writer.write(frame(1))
            broker.kill()
            with pytest.raises(StorageError) as raised:
                writer.write(frame(3))
            assert "3 of 3 rows were not written" in str(raised.value)
            assert source.name in str(raised.value)
            broker.start()  # without the topic, and without knowing the producer
            broker.create(1, topic)
            assert until(lambda: written(writer), "the writer to be back")["0"] >= 2
    finally:
        broker.close()
