"""What one poll brought, by column: values for the decoder, and where each came from for what cannot be used.

A message of the client is an object of some three hundred bytes that holds its value, key and headers. It is kept while
its chunk is: after that, only the partition and the offset of each are, at twelve bytes a message, since rows that have
been decoded may wait in their thousands for views to refuse them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from itertools import compress, count
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from headrace.sources.base import Trace
from headrace.units import MILLISECOND


class Tombstone(bytes):
    """Stands for a message without a value; told from an empty one by identity."""


TOMBSTONE = Tombstone()


class Messages(list[bytes]):
    """The values of messages, and the messages.

    Attributes:
        heard: As the client gave them.
    """

    def __init__(self, values: Iterable[bytes], heard: list[Message]) -> None:
        super().__init__(values)
        self.heard = heard


class Batch:
    """The messages of one poll that are to be decoded.

    Args:
        topic: Their topic.
        heard: Messages without an error, in the order of each partition.
        tombstones: Whether messages without a value are among the values, as `TOMBSTONE`, or left out.

    Attributes:
        last: Of each partition, the offset of its last message.
        created: When the newest was written, in microseconds; None if the broker does not say.
        left_out: How many tombstones were.
        size: Bytes of the values.
        partitions: Of each value.
    """

    def __init__(self, topic: str, heard: list[Message], *, tombstones: bool) -> None:
        values: list[Any] = list(map(Message.value, heard))
        partitions = list(map(Message.partition, heard))
        place = dict(zip(partitions, count(), strict=False))  # the last of each partition
        self.last = {int(partition or 0): int(heard[row].offset() or 0) for partition, row in place.items()}
        self.created = _newest(heard[row] for row in place.values())
        self.left_out = 0
        empty = values.count(None)
        if empty and tombstones:
            values = [TOMBSTONE if value is None else value for value in values]
        elif empty:
            filled = [value is not None for value in values]
            heard, partitions, values = (list(compress(each, filled)) for each in (heard, partitions, values))
            self.left_out = empty
        self.messages = Messages(values, heard)
        self.size = sum(map(len, values))
        self.partitions = np.array(partitions, np.int32)
        self.trace = Origins(topic, self.messages, self.partitions)


class Origins:
    """Where the n'th message of a batch came from; all of it while the batch is held elsewhere."""

    def __init__(self, topic: str, messages: Messages, partitions: npt.NDArray[np.int32]) -> None:
        self._topic = topic
        self._partitions = partitions
        self._offsets = _offsets(messages.heard, partitions)
        self._messages = weakref.ref(messages)

    def __call__(self, row: int) -> Trace:
        origin = f"{self._topic}[{self._partitions[row]}]@{self._offsets[row]}"
        messages = self._messages()
        if messages is None:
            return Trace(origin)
        one = messages.heard[row]
        return Trace(origin, bytes(messages[row]), as_bytes(one.key()), headers_of(one))


def _offsets(heard: Sequence[Message], partitions: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The offset of each message: counted up where a partition's have no gap, which spares asking each."""
    offsets = np.empty(len(heard), np.int64)
    for partition in np.unique(partitions):
        rows = np.flatnonzero(partitions == partition)
        first, last = (int(heard[row].offset() or 0) for row in (int(rows[0]), int(rows[-1])))
        if last - first == len(rows) - 1:
            offsets[rows] = np.arange(first, last + 1)
        else:
            offsets[rows] = [int(heard[row].offset() or 0) for row in rows.tolist()]
    return offsets


def headers_of(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """A message's headers, in their order."""
    found = message.headers() or []
    pairs = found.items() if isinstance(found, dict) else found
    return tuple((name, as_bytes(value)) for name, value in pairs)


def as_bytes(value: str | bytes | None) -> bytes | None:
    """A key or a header's value; the client may give text where it was told text."""
    return value.encode() if isinstance(value, str) else value


def _newest(messages: Iterable[Message]) -> int | None:
    """Of the last messages of each partition: brokers' clocks run on, and producers' nearly so."""
    stamps = [stamp for kind, stamp in (each.timestamp() for each in messages) if kind != TIMESTAMP_NOT_AVAILABLE]
    return max(stamps) * MILLISECOND if stamps else None
