"""Rows and dead letters to topics: what has been written is on all in-sync replicas when the call returns.

The producer is idempotent: what the client sends again after a lost answer is there once. A write that fails is known
to have failed only after the client has tried for `message.timeout.ms`; some of its rows may be there, and writing all
of them again is the caller's to decide.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any

import polars as pl
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from headrace.errors import ClosedError, ConfigError, StorageError, nearest
from headrace.schema import Schema
from headrace.sources import kafka_properties
from headrace.sources.base import Letter
from headrace.sources.kafka_cluster import Health
from headrace.sources.kafka_rows import to_json, to_keys
from headrace.sources.kafka_url import KafkaUrl

_POLL = 0.005
_GRACE = 5.0
_CONNECT = 1.0
_MOST_REASON = 2000
Item = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]] | None]  # value, key, headers

_log = logging.getLogger("headrace.kafka")


class KafkaWriter:
    """Writes to the topic of a URL; made by `KafkaSource.writer`. Any thread may write.

    Args:
        schema: What rows are; None where only messages are written.
        url: Where to.
    """

    def __init__(self, schema: Schema | None, url: KafkaUrl) -> None:
        self._schema = schema
        self._url = url
        self._health = Health(url)
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._closed = False
        self._known: set[str] = set()
        self._client()  # it connects meanwhile

    def write(self, frame: pl.DataFrame, key: str | None = None) -> dict[str, int]:
        """Writes rows, durably when it returns; see `Writer.write`.

        Returns:
            Of each partition that rows went to, the offset after the last of them.

        Raises:
            StorageError: Not all rows were written; some may have been.
            InputError: A row cannot be written as JSON; none was written.
        """
        key = self._url.key if key is None else key
        if key is not None and key not in frame.columns:
            raise ConfigError(f"cannot write {key!r} as the message key; {nearest(key, frame.columns)}")
        assert self._schema is not None
        values = to_json(self._schema, frame)
        keys: Iterable[bytes | None] = repeat(None, len(values)) if key is None else to_keys(frame[key])
        items = ((value, each, None) for value, each in zip(values, keys, strict=True))
        return self._send(self._url.topic, items, "rows")

    def put(self, items: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Writes messages under keys; one without a value is a tombstone. See `Sink.put`."""
        self._send(self._url.topic, ((value, key, None) for key, value in items), "messages")

    def set_aside(self, letters: Sequence[Letter]) -> None:
        """Writes dead letters to the topic of `dead_letters=`, if there is one; see `Writer.set_aside`.

        Each has the bytes, the key and the headers that it had, and the headers `headrace.reason` and
        `headrace.origin`.

        Raises:
            StorageError: Not all were written; they are in the data directory.
        """
        if self._url.dead_letters is not None and letters:
            self._send(self._url.dead_letters, map(_item, letters), "dead letters")

    def close(self) -> None:
        """Leaves the brokers; what was written is written."""
        with self._lock:
            self._closed = True
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()  # nothing that anyone still waits for
            producer.flush(_GRACE)

    def _client(self) -> Producer:
        with self._lock:
            if self._closed:
                raise ClosedError(f"the writer to {self._url.name} is closed; open another")
            if self._producer is None:
                conf = kafka_properties.writing(self._url.brokers, self._url.properties)
                conf |= {"error_cb": self._health.told}
                self._producer = self._health.made(lambda: Producer(conf))
            return self._producer

    def _send(self, topic: str, items: Iterable[Item], what: str) -> dict[str, int]:
        """Sends all and waits for all."""
        producer = self._client()
        if topic not in self._known:
            # With the topic known, the first write need not wait for the client's own next look, half a second later.
            self._known.add(topic)
            with suppress(KafkaException):
                producer.list_topics(topic, timeout=_CONNECT)
        told: list[tuple[KafkaError | None, int, int]] = []

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            told.append((error, message.partition() or 0, message.offset() or 0))

        count = 0
        for value, key, headers in items:
            error = self._produce(producer, topic, value, key, headers, on_delivery)
            if error is not None:
                told.append((error, 0, 0))
            count += 1
        while len(told) < count:
            self._check_open(what, topic)
            self._poll(producer)
        failed = [error for error, _, _ in told if error is not None]
        if failed:
            self._forget(producer, failed)
            raise StorageError(
                f"{len(failed)} of {count} {what} were not written to {topic!r} of {self._url.name}: "
                f"{self._why(failed[0])}"
            )
        self._health.heard()
        ends: dict[str, int] = {}
        for _, partition, offset in told:
            ends[str(partition)] = max(ends.get(str(partition), 0), offset + 1)
        return ends

    def _produce(
        self, producer: Producer, topic: str, value: Any, key: Any, headers: Any, done: Any
    ) -> KafkaError | None:
        """Hands one message to the client, waiting while its buffer is full."""
        more = {} if headers is None else {"headers": headers}
        deadline = time.monotonic() + self._patience()
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=done, **more)
                return None
            except BufferError:
                self._check_open("messages", topic)
                self._poll(producer)
                if time.monotonic() > deadline:
                    return KafkaError(KafkaError._QUEUE_FULL)
            except KafkaException as error:
                found: KafkaError = error.args[0]
                return found

    def _poll(self, producer: Producer) -> None:
        """Lets the client report. It raises what has ended it; what that means for each message is reported as well."""
        try:
            producer.poll(_POLL)
        except KafkaException as error:
            self._health.told(error.args[0])
            self._forget(producer, [error.args[0]])

    def _patience(self) -> float:
        """The client gives every message up within this time."""
        given = self._url.properties
        limit = given.get("message.timeout.ms", given.get("delivery.timeout.ms", 15_000))
        return float(limit) / 1000 + _GRACE

    def _check_open(self, what: str, topic: str) -> None:
        if self._closed:
            raise ClosedError(f"the writer was closed before all {what} were written to {topic!r}")

    def _why(self, error: KafkaError) -> str:
        late = error.code() in (KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError._PURGE_QUEUE)
        words = self._health.words(error)
        return f"{words} ({self._health.last})" if late and self._health.last else words

    def _forget(self, producer: Producer, errors: Sequence[KafkaError]) -> None:
        """A client whose idempotence has failed writes nothing any more: the next write gets another."""
        if any(error.fatal() for error in errors):
            with self._lock:
                if self._producer is producer:
                    self._producer = None
            _log.warning(
                "%s: the producer has failed for good (%s); a new one is made", self._url.name, errors[0].str()
            )


class KafkaSink:
    """The sink behind `kafka:` URLs: messages under keys, and tombstones, for a topic that is compacted.

    Args:
        url: As of a source; of its options only brokers, topic and Kafka's properties count.
        options: As in the query; `config` is a mapping of Kafka properties.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = KafkaUrl.parse(url, options)
        self._writer = KafkaWriter(None, self._url)

    @property
    def name(self) -> str:
        """The brokers, sorted, and the topic."""
        return self._url.name

    def put(self, items: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Writes keys and their values; see `Sink.put`."""
        self._writer.put(items)

    def close(self) -> None:
        """Leaves the brokers."""
        self._writer.close()


def _item(letter: Letter) -> Item:
    trace = letter.trace
    ours: list[tuple[str, bytes | None]] = [
        ("headrace.reason", letter.reason[:_MOST_REASON].encode()),
        ("headrace.origin", trace.origin.encode()),
    ]
    return trace.raw, trace.key, [*trace.headers, *ours]
