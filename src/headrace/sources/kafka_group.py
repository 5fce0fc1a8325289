"""The offsets of a consumer group, written for those who watch how far behind it is, and read by nobody here."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace.sources.kafka_cluster import Health
from headrace.sources.kafka_url import KafkaUrl

COMMIT = 5.0  # seconds between two writes
_LATER = frozenset((KafkaError._WAIT_COORD, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._DESTROY))
_LAST = 0.05  # seconds that the last write may take

_log = logging.getLogger("headrace.kafka")


class GroupOffsets:
    """Writes offsets now and then, if the URL names a group. That it cannot is logged once and stops nothing.

    Args:
        url: The group and the topic.
        health: How errors are told.
    """

    def __init__(self, url: KafkaUrl, health: Health) -> None:
        self._url = url
        self._health = health
        self._due = time.monotonic() + COMMIT
        self._written: Mapping[int, int] = {}
        self._failed = False

    def write(self, consumer: Consumer | None, offsets: Mapping[int, int], *, last: bool = False) -> None:
        """Writes the offsets if it is time to and they have changed; the answer is not waited for."""
        now = time.monotonic()
        if self._url.group is None or consumer is None or offsets == self._written or not (last or now >= self._due):
            return
        self._due = now + COMMIT
        try:
            consumer.commit(offsets=[TopicPartition(self._url.topic, *each) for each in offsets.items()])
            self._written = offsets
            if last and not self._health.worrying:
                consumer.poll(_LAST)
        except KafkaException as error:
            self.told(error.args[0], [])

    def told(self, error: KafkaError | None, _: object) -> None:
        """The client's `on_commit`."""
        if error is None or error.code() in _LATER:
            return  # or it is written the next time
        if not self._failed:
            self._failed = True
            _log.warning(
                "%s: the offsets of the group %r could not be written, so monitors see old ones; reading goes on: %s",
                *(self._url.name, self._url.group, self._health.words(error)),
            )
