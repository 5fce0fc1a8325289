"""The offsets of a consumer group, written for those who watch how far behind it is, and read by nobody here.

They are written by the client that asks, not by the one that reads: a reader with a commit under way would not close
until brokers that are gone had been given up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from headrace.sources.kafka_cluster import Cluster, Health
from headrace.sources.kafka_url import KafkaUrl

COMMIT = 5.0  # seconds between two writes
_LAST = 0.5  # seconds that the last one is waited for
_AWAY = frozenset((KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._DESTROY, KafkaError.NOT_COORDINATOR))

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
        self._answer: Future[Any] | None = None
        self._failed = False

    def write(self, cluster: Cluster, offsets: Mapping[int, int], *, last: bool = False) -> None:
        """Writes the offsets if it is time to and they have changed; only the last answer is waited for."""
        if self._url.group is None:
            return
        if self._answer is not None and self._answer.done():
            self._hear(self._answer, 0)
        now = time.monotonic()
        free = self._answer is None and offsets and offsets != self._written
        if not free or now < (0 if last else self._due) or self._health.worrying:
            return
        self._due = now + COMMIT
        try:
            self._answer = cluster.ask_commit(self._url.group, offsets)
        except KafkaException as error:
            self._say(error.args[0])
            return
        self._written = offsets
        if last:
            self._hear(self._answer, _LAST)

    def _hear(self, answer: Future[Any], wait: float) -> None:
        self._answer = None
        try:
            for each in answer.result(wait).topic_partitions:
                if each.error is not None:
                    self._say(each.error)
        except NotYetError:
            _log.debug("%s: the last offsets of the group were not acknowledged in time", self._url.name)
        except KafkaException as error:
            self._say(error.args[0])

    def _say(self, error: KafkaError) -> None:
        if error.code() in _AWAY:
            self._written = {}  # they are written the next time
        elif not self._failed:
            self._failed = True
            _log.warning(
                "%s: the offsets of the group %r could not be written, so monitors see old ones; reading goes on: %s",
                *(self._url.name, self._url.group, self._health.words(error)),
            )
