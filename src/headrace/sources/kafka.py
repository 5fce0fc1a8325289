"""Topics of Kafka, Redpanda and whatever else speaks their protocol, as sources that can be written to as well.

What a URL may say is in `headrace.sources.kafka_url`; what reading promises in `headrace.sources.kafka_reader`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from headrace.errors import ConfigError
from headrace.schema import Decoded, Reject, Schema
from headrace.sources.base import Chunk
from headrace.sources.kafka_batch import TOMBSTONE, Messages
from headrace.sources.kafka_fields import Filler, usable
from headrace.sources.kafka_position import Place
from headrace.sources.kafka_reader import KafkaReader
from headrace.sources.kafka_url import KafkaUrl
from headrace.sources.kafka_writer import KafkaWriter


class KafkaSource:
    """The source behind `kafka:` URLs.

    Args:
        url: `kafka://broker1:9092,broker2:9092/topic?start=latest`
        options: As in the query; `config` is a mapping of Kafka properties.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = KafkaUrl.parse(url, options)
        self._lane = (0, 1)

    def __repr__(self) -> str:
        return f"KafkaSource({self.name!r})"

    @property
    def name(self) -> str:
        """The brokers, sorted, and the topic."""
        return self._url.name

    def open(self, position: Any | None = None) -> KafkaReader:
        """Begin reading after a position; see `Source.open`. The brokers need not be there yet."""
        place = None if position is None else Place.read(position, self.name)
        return KafkaReader(self._url, self._lane, place)

    def lanes(self, count: int) -> Sequence[KafkaSource]:
        """Parts of the topic that are read apart; see `Divisible`.

        A lane that is opened at a position reads those of its partitions that the position does not name from their
        beginning: they are new. So a position of fewer or more lanes has to be put together before it is used.
        """
        if count < 1:
            raise ConfigError(f"expected 1 lane or more, found {count}")
        if self._lane != (0, 1):
            raise ConfigError(f"{self.name} is one lane of a topic already; divide the source itself")
        return [self._part(index, count) for index in range(count)]

    def writer(self, schema: Schema) -> KafkaWriter:
        """Writes to the topic, and to that of dead letters; see `Writable`."""
        return KafkaWriter(schema, self._url)

    def decoder(self, schema: Schema) -> Callable[[Chunk], Decoded]:
        """What decodes the chunks of one reading; see `Decoding`.

        Raises:
            ConfigError: The format, or a field that a part of the message is to go into, does not fit the model.
        """
        from headrace.formats.messages import message_decoder

        url = self._url
        decode = message_decoder(schema, url.format, registry=url.registry, options=url.options)
        filler = Filler(schema, url)

        def decoded(chunk: Chunk) -> Decoded:
            messages = chunk.messages or []
            if not messages:
                return Decoded(schema.empty(), [])
            if filler and isinstance(messages, Messages):
                return _explained(messages, _filled(messages, filler, decode))
            return _explained(messages, decode(messages))

        return decoded

    def _part(self, index: int, count: int) -> KafkaSource:
        part = KafkaSource.__new__(KafkaSource)
        part._url, part._lane = self._url, (index, count)
        return part


def _filled(messages: Messages, filler: Filler, decode: Callable[[Sequence[bytes]], Decoded]) -> Decoded:
    """Decodes messages with their parts put in; a reject still has the bytes that came."""
    values, failed = filler.fill(messages)
    values, rows = usable(values, failed)
    found = decode(values) if values else None
    rejects = [Reject(row, reason, messages[row]) for row, reason in failed.items()]
    if found is None:
        return Decoded(decode([]).frame, rejects)
    rejects += [replace(reject, row=rows[reject.row], raw=messages[rows[reject.row]]) for reject in found.rejects]
    return Decoded(found.frame, sorted(rejects, key=lambda reject: reject.row))


def _explained(messages: Sequence[bytes], found: Decoded) -> Decoded:
    """Rejected tombstones say what they are."""
    reason = "expected a value, found a tombstone (a message without one); tombstones=skip passes them over"
    if not any(messages[reject.row] is TOMBSTONE for reject in found.rejects):
        return found
    rejects = [
        replace(reject, reason=reason) if messages[reject.row] is TOMBSTONE else reject for reject in found.rejects
    ]
    return Decoded(found.frame, rejects)
