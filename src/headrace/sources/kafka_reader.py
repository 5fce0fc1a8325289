"""One reading of a topic: every partition from an offset on, as chunks of thousands of messages.

The partitions are assigned by hand and not shared out by a consumer group: the state belongs to the positions, so
another member that joins must not take a partition away. What a checkpoint says is where it goes on; offsets of the
group are only written, for those who watch them.

A position is the next offset of each partition, and the id of the topic: offsets of one that was deleted and created
again mean other messages. Between a partition's messages there are offsets without any (compaction, transactions), so
where a partition has been read to is also told by its end.

Nothing is passed over in silence. Where offsets are asked for that the brokers no longer have, the gap becomes a dead
letter that names it, and reading goes on from what there is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.errors import ClosedError, StorageError
from headrace.sources import kafka_properties
from headrace.sources.base import Chunk, Skipped
from headrace.sources.kafka_batch import Batch
from headrace.sources.kafka_cluster import Cluster, Health, Topic
from headrace.sources.kafka_group import GroupOffsets
from headrace.sources.kafka_position import Offsets, Place
from headrace.sources.kafka_url import KafkaUrl

SLICE = 0.05  # seconds between looks at whether it was closed
LINGER = 0.002  # seconds in which more is waited for than has come: a trickle makes some hundred chunks a second
ENDS = 2.0  # seconds between two questions for the partitions' ends
HEAR = 0.1  # seconds between two looks at the ends that came with messages
_LEAST = 16  # messages of a poll, however long they are

_log = logging.getLogger("headrace.kafka")


class KafkaReader:
    """One reading of a topic, or of some of its partitions; made by `KafkaSource.open`.

    Args:
        url: What to read.
        lane: Which partitions p: those with p % lane[1] == lane[0].
        place: Where to begin; None where the URL says.

    Attributes:
        tombstones: How many messages without a value were passed over.
    """

    def __init__(self, url: KafkaUrl, lane: tuple[int, int], place: Place | None) -> None:
        self.tombstones = 0
        self._url = url
        self._lane = lane
        self._place = place
        self._offsets: Offsets | None = None
        self._consumer: Consumer | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._health = Health(url)
        self._cluster: Cluster | None = Cluster(url, self._health, self._stop)
        self._out_of_range: set[int] = set()
        self._skipped: list[Skipped] = []
        self._corrupt: dict[int, str] = {}
        self._moved = False  # a new place that is to be told with no message
        self._most = url.batch
        self._asked: tuple[Future[Any] | None, Mapping[TopicPartition, Future[Any]]] | None = None
        self._ask_ends = self._ask_topic = self._hear_at = 0.0
        self._heard_ends: Mapping[int, int] = {}
        self._group = GroupOffsets(url, self._health)

    def read(self, timeout: float) -> Chunk | None:
        """The next chunk; see `Reader.read`."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while True:
                self._check_open()
                left = deadline - time.monotonic()
                chunk = self._next(max(0.0, min(left, SLICE)))
                if chunk is not None or left <= 0:
                    return chunk

    def at_end(self) -> bool:
        """Asks the brokers whether all that they hold now has been read; see `Tracked`."""
        with self._lock:
            self._check_open()
            offsets = self._begun()
            self._compare(self._ask().topic())
            offsets.ends = self._ask().offsets(offsets.next, "latest")
            self._hear_ends(offsets)
            if self._corrupt:
                number, why = next(iter(self._corrupt.items()))
                raise StorageError(f"{self._url.name}: partition {number} cannot be read on: {why}")
            if self._out_of_range or self._skipped or self._moved:
                return False
            return not any(self._lag_of(offsets).values())

    def lag(self) -> dict[str, int]:
        """Messages of each partition that were not read, as last heard; see `Tracked`."""
        offsets = self._offsets
        return {} if offsets is None else {str(number): lag for number, lag in self._lag_of(offsets).items()}

    def close(self) -> None:
        """Leave the brokers; see `Reader.close`."""
        self._stop.set()
        with self._lock:  # after the read that may be under way
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None
            if self._cluster is not None:
                if self._offsets is not None:
                    self._group.write(self._cluster, self._offsets.next, last=True)
                self._cluster.close()
                self._cluster = None

    def _check_open(self) -> None:
        if self._stop.is_set():
            raise ClosedError(f"the reader of {self._url.name} is closed; open the source again")

    def _ask(self) -> Cluster:
        assert self._cluster is not None
        return self._cluster

    # Where it stands.

    def _begun(self) -> Offsets:
        """The offsets, once it is known which partitions there are and where each begins."""
        if self._offsets is None:
            topic = self._ask().topic()
            numbers = self._of_lane(topic)
            place = self._place
            if place is None:
                begin = self._ask().offsets(numbers, self._url.start)
            else:
                # A partition that the place does not know was added since.
                begin = {**place.offsets} | self._ask().offsets(set(numbers) - set(place.offsets), "earliest")
            offsets = Offsets({number: begin[number] for number in numbers}, place.topic if place else topic.id)
            # A place is told at once where another start would find another one.
            self._moved = place is None and self._url.start != "earliest"
            now = time.monotonic()
            self._ask_ends, self._ask_topic = now + ENDS, now + self._url.refresh
            self._assign(offsets.next)
            self._offsets = offsets
            self._compare(topic)
        return self._offsets

    def _of_lane(self, topic: Topic) -> list[int]:
        index, count = self._lane
        return [number for number in topic.partitions if number % count == index]

    def _assign(self, begin: Mapping[int, int]) -> None:
        """Read these partitions from these offsets, and no others."""
        if self._consumer is None and begin:
            url = self._url
            conf = kafka_properties.reading(url.brokers, url.group or "headrace", url.properties)
            conf |= {"error_cb": self._health.told}
            self._consumer = self._health.made(lambda: Consumer(conf))
        if self._consumer is not None:
            self._consumer.assign([TopicPartition(self._url.topic, each, at) for each, at in begin.items()])
        self._heard_ends = {}

    def _compare(self, topic: Topic) -> None:
        """Take in what the topic is now: partitions that were added, or another topic under the same name."""
        offsets = self._offsets
        assert offsets is not None
        if offsets.topic is None or topic.id is None:
            offsets.topic = offsets.topic or topic.id
        elif offsets.topic != topic.id:
            self._recreated(offsets, topic)
            return
        added = set(self._of_lane(topic)) - set(offsets.next)
        if added:
            _log.info("%s: new partitions %s, read from their beginning", self._url.name, sorted(added))
            offsets.advance(self._ask().offsets(added, "earliest"))
            self._assign(offsets.next)

    def _recreated(self, offsets: Offsets, topic: Topic) -> None:
        assert offsets.topic is not None
        assert topic.id is not None
        if offsets.topic.partition("/")[0] != topic.id.partition("/")[0]:
            # Offsets may have been carried over, as by a mirror; only the brokers' operators know.
            _log.warning("%s: the position is another cluster's; its offsets are taken as they are", self._url.name)
            offsets.topic = topic.id
            return
        begin = self._ask().offsets(self._of_lane(topic), "earliest")
        for number, at in offsets.next.items():
            reason = (
                f"the topic was deleted and created again: what it held from offset {at} of partition {number} on was "
                "not read; the new one is read from its beginning"
            )
            self._skip(reason, number, at, at)
        self._out_of_range.clear()
        self._assign(begin)
        offsets.restart(begin, topic.id)
        self._moved = True

    def _mend(self, offsets: Offsets) -> None:
        """Go on where offsets were asked for that the brokers do not have."""
        self._compare(self._ask().topic())
        lost = sorted(self._out_of_range)
        if not lost:
            return  # it was another topic
        first, end = self._ask().offsets(lost, "earliest"), self._ask().offsets(lost, "latest")
        for number in lost:
            at = offsets.next[number]
            if at < first[number]:
                what = "were deleted, as by retention, before they were read"
                self._skip(f"messages {at} to {first[number] - 1} {what}", number, at, first[number])
                offsets.set(number, first[number])
            elif at > end[number] and offsets.topic is not None:
                what = (
                    f"the partition ends at offset {end[number]} though {at} was read: its brokers have lost messages"
                )
                self._skip(f"{what}; it is read on from its end", number, end[number], at)
                offsets.set(number, end[number])
            elif at > end[number]:
                what = (
                    f"the partition ends at offset {end[number]} though {at} was read: it is another one, or has lost"
                )
                self._skip(f"{what} messages; it is read from its beginning", number, first[number], at)
                offsets.set(number, first[number])
        self._assign(offsets.next)
        self._out_of_range.clear()
        self._corrupt = {}

    def _skip(self, reason: str, partition: int, start: int, end: int) -> None:
        _log.error("%s[%d]: %s", self._url.name, partition, reason)
        self._skipped.append(Skipped(reason, b"", f"{self._url.topic}[{partition}]", start, end))

    def _lag_of(self, offsets: Offsets) -> dict[int, int]:
        """How far each partition is behind, by the ends that were asked for and those that came with messages."""
        found = {}
        for number, at in offsets.next.items():
            end = max(
                offsets.ends.get(number, 0), 0 if offsets.ended.get(number) == at else self._heard_ends.get(number, 0)
            )
            found[number] = max(0, end - at)
        return found

    def _hear_ends(self, offsets: Offsets) -> None:
        """Keeps the ends that came with the last messages of each partition.

        Only the thread that reads may ask the client for them: asked from another, it waits for the poll to end, and
        may wait for ever.
        """
        heard = {}
        for number in offsets.next if self._consumer is not None else ():
            with suppress(KafkaException):
                assert self._consumer is not None
                found = self._consumer.get_watermark_offsets(TopicPartition(self._url.topic, number), cached=True)
                heard[number] = 0 if found is None else int(found[1])
        self._heard_ends = heard

    # Reading.

    def _next(self, wait: float) -> Chunk | None:
        """What comes within that time."""
        offsets = self._begun()
        if self._out_of_range:
            self._mend(offsets)
        found = self._poll(wait)
        chunk = self._heard(offsets, found) if found else None
        self._upkeep(offsets)
        if chunk is None and (self._skipped or self._moved):
            chunk = self._made(offsets, [])
        if chunk is None and self._health.worrying:
            self._ask().topic()  # an answer ends the trouble; none is the error to report
        return chunk

    def _poll(self, wait: float) -> list[Message]:
        """Messages, and the ends of partitions and errors among them.

        A poll for many comes back when they are all there or its time is over; so one is waited for, and then what
        there is besides is taken.
        """
        if self._consumer is None:
            self._stop.wait(wait)
            return []
        found: list[Message] = self._consumer.consume(1, wait)
        if found and found[0].error() is None and self._most > 1:
            found += self._consumer.consume(self._most - 1, LINGER)
        return found

    def _heard(self, offsets: Offsets, found: list[Message]) -> Chunk | None:
        self._health.heard()
        errors = list(map(Message.error, found))
        if not any(errors):
            return self._made(offsets, found)
        messages = [message for message, error in zip(found, errors, strict=True) if error is None]
        events = [(message, error) for message, error in zip(found, errors, strict=True) if error is not None]
        if messages:
            return self._made(offsets, messages, events)
        for message, error in events:
            self._event(offsets, message, error)
        return None

    def _event(self, offsets: Offsets, message: Message, error: KafkaError) -> None:
        """What comes instead of a message."""
        code, partition, offset = error.code(), message.partition(), message.offset()
        if code == KafkaError._PARTITION_EOF:
            assert partition is not None
            assert offset is not None
            offsets.end(partition, offset)
        elif code == KafkaError._AUTO_OFFSET_RESET:
            assert partition is not None
            self._out_of_range.add(partition)
        elif code in (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._UNDERFLOW):
            self._told_corrupt(partition or 0, error)
        else:
            self._health.told(error)

    def _told_corrupt(self, partition: int, error: KafkaError) -> None:
        """Messages whose checksum is wrong: the client asks for them again and again, and its partition waits.

        Another replica may have them whole, so they are not given up; the other partitions go on.
        """
        if partition not in self._corrupt:
            what = "the partition waits until its brokers mend it, or until the messages are deleted"
            _log.error("%s[%d]: %s; %s", self._url.name, partition, error.str(), what)
            self._corrupt[partition] = f"{error.str()}; {what}"

    def _made(
        self, offsets: Offsets, messages: list[Message], events: Sequence[tuple[Message, KafkaError]] = ()
    ) -> Chunk:
        batch = Batch(self._url.topic, messages, tombstones=self._url.reject_tombstones)
        self.tombstones += batch.left_out
        offsets.advance({number: last + 1 for number, last in batch.last.items()})
        if self._corrupt:
            self._corrupt = {number: why for number, why in self._corrupt.items() if number not in batch.last}
        for message, error in events:  # after the messages: an end may lie further than the last of them
            self._event(offsets, message, error)
        skipped, self._skipped, self._moved = tuple(self._skipped), [], False
        if messages:
            # The next poll brings about as many bytes as a chunk may have.
            most = self._url.chunk * len(messages) // max(batch.size, 1)
            self._most = min(self._url.batch, max(_LEAST, most))
        return Chunk(
            data=b"",
            format=self._url.format,
            position=offsets.position(),
            skipped=skipped,
            origin=self._url.name,
            messages=batch.messages,
            trace=batch.trace,
            partitions=batch.partitions,
            created=batch.created,
        )

    # What is done now and then, without waiting.

    def _upkeep(self, offsets: Offsets) -> None:
        now = time.monotonic()
        if now >= self._hear_at:
            self._hear_at = now + HEAR
            self._hear_ends(offsets)
        if self._asked is not None:
            self._answered(offsets)
        elif now >= self._ask_ends:
            topic = self._ask().ask_topic() if now >= self._ask_topic else None
            self._asked = topic, self._ask().ask_offsets(offsets.next, "latest")
            self._ask_ends = now + ENDS
            self._ask_topic = now + self._url.refresh if topic is not None else self._ask_topic
        self._group.write(self._ask(), offsets.next)

    def _answered(self, offsets: Offsets) -> None:
        assert self._asked is not None
        topic, ends = self._asked
        if (topic is not None and not topic.done()) or not all(each.done() for each in ends.values()):
            return
        self._asked = None
        try:
            if ends:
                offsets.ends = self._ask().offsets_of(ends)
            if topic is not None:
                self._compare(self._ask().topic_of(topic))
        except StorageError as error:
            _log.debug("%s; it is asked again", error)
            if topic is not None:
                self._health.told(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, str(error)))
