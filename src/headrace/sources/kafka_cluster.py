"""What a reader asks of the brokers besides messages: which partitions there are, and where they begin and end.

A client of its own, since a broker answers in order: behind a fetch that waits for messages, each question would take
as long as the fetch may wait. With a topic comes its id, by which one that was deleted and created again can be told
from the one that was read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as Spec  # type: ignore[attr-defined]

from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.sources import kafka_properties
from headrace.sources.kafka_url import KafkaUrl

Client = TypeVar("Client")

ANSWER = 5.0  # seconds that a question may take
PATIENCE = 5.0  # seconds of trouble that are not yet worth a report
_SLICE = 0.05
_AGAIN = 0.1
_PASSING = frozenset((KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE))
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"

_log = logging.getLogger("headrace.kafka")
# Of the group, which is only for lag monitors.
_OF_THE_GROUP = frozenset((KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.COORDINATOR_NOT_AVAILABLE))
_HINTS = {
    KafkaError._AUTHENTICATION: "check the user name, the password and sasl.mechanism",
    KafkaError._SSL: "check security.protocol, ssl.ca.location and the certificates",
    KafkaError._RESOLVE: "check the brokers' names",
    KafkaError._ALL_BROKERS_DOWN: "check that a broker listens there, and security.protocol",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "give this user the right to read the topic",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "give this user the right to write with idempotence",
}


class PassingError(StorageError):
    """A partition is between two leaders, as one is that was just made: the answer comes in a moment."""


@dataclass(frozen=True)
class Topic:
    """A topic as it is now.

    Attributes:
        partitions: Their numbers.
        id: Of the cluster and the topic, "CLUSTER/ID"; None if the broker does not tell.
    """

    partitions: tuple[int, ...]
    id: str | None


class Health:
    """What the client says is wrong, until something is heard from a broker again.

    A connection that is lost and made again is nobody's business; brokers that stay away are.
    """

    def __init__(self, url: KafkaUrl) -> None:
        self._url = url
        self._since: float | None = None
        self.last = ""

    def told(self, error: KafkaError) -> None:
        """The client's `error_cb`; in whichever thread is waiting for it."""
        if error.code() in _OF_THE_GROUP:
            _log.debug("%s: %s", self._url.name, error.str())
            return
        self.last = self.words(error)
        _log.debug("%s: %s", self._url.name, self.last)
        if self._since is None:
            self._since = time.monotonic()

    def heard(self) -> None:
        """Something has come from a broker."""
        self._since = None

    def made(self, make: Callable[[], Client]) -> Client:
        """A client of librdkafka's.

        Raises:
            ConfigError: Its properties cannot be used, as when a certificate is not there.
        """
        try:
            return make()
        except KafkaException as error:
            raise ConfigError(f"{self._url.name}: {self.words(error.args[0])}") from None

    @property
    def worrying(self) -> bool:
        """Whether there has been trouble for some time."""
        since = self._since
        return since is not None and time.monotonic() - since > PATIENCE

    def words(self, error: KafkaError) -> str:
        """An error as it may be shown."""
        hint = _HINTS.get(error.code())
        return self._url.shown(error.str() or error.name()) + (f"; {hint}" if hint else "")

    def explained(self, error: KafkaException, doing: str) -> StorageError:
        """An answer that did not come: what was being done, and the last that is known of why."""
        found = error.args[0]
        kind = PassingError if found.code() in _PASSING else StorageError
        waited = found.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._DESTROY)
        why = self.last if waited and self.last else self.words(found)
        return kind(f"{self._url.name}: cannot {doing}: {why}")


class Cluster:
    """Asks the brokers of a URL.

    Args:
        url: Which.
        health: Where the last errors are.
        closing: Set when nobody waits for an answer any more.
    """

    def __init__(self, url: KafkaUrl, health: Health, closing: threading.Event) -> None:
        self._url = url
        self._health = health
        self._closing = closing
        conf = kafka_properties.asking(url.brokers, url.properties) | {"error_cb": health.told}
        self._admin = health.made(lambda: AdminClient(conf))
        self._cluster: str | None = None
        committed = str(url.properties.get("isolation.level", "read_committed")) == "read_committed"
        self._isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED

    def topic(self) -> Topic:
        """The topic as it is now.

        Raises:
            StorageError: It is not there, or no broker answers.
            ClosedError: Nobody waits any more.
        """
        return self.topic_of(self.ask_topic(), wait=True)

    def ask_topic(self) -> Future[Any]:
        """The question, for `topic_of`."""
        asked = TopicCollection([self._url.topic])
        answers = self._asked(lambda: self._admin.describe_topics(asked, request_timeout=ANSWER))
        answer: Future[Any] = answers[self._url.topic]
        return answer

    def topic_of(self, answer: Future[Any], *, wait: bool = False) -> Topic:
        """The answer."""
        found = self._result(answer, "find the topic") if wait else self._known(answer, "find the topic")
        self._health.heard()
        given = str(found.topic_id)
        cluster = self._cluster_id()
        id = f"{cluster}/{given}" if cluster and given.rstrip("=") not in ("", "None", _NO_ID) else None
        return Topic(tuple(sorted(each.id for each in found.partitions)), id)

    def _cluster_id(self) -> str | None:
        """The cluster's id, known since the client was first answered; clients before 2.14 have to ask for it."""
        known = getattr(self._admin, "cluster_id", None)
        if known is not None:
            found: str | None = known()
            return found
        if self._cluster is None:
            with suppress(KafkaException):
                self._cluster = self._admin.list_topics(self._url.topic, timeout=ANSWER).cluster_id
        return self._cluster

    def offsets(self, partitions: Iterable[int], which: str | int) -> dict[int, int]:
        """The offsets "earliest" or "latest", or of the first message at or after a time in milliseconds.

        Raises:
            StorageError: No broker answers.
            ClosedError: Nobody waits any more.
        """
        wanted = list(partitions)
        deadline = time.monotonic() + ANSWER
        while True:
            try:
                found = self.offsets_of(self.ask_offsets(wanted, which), wait=True)
                break
            except PassingError:
                if time.monotonic() > deadline:
                    raise
                self._closing.wait(_AGAIN)
        later = [partition for partition, offset in found.items() if offset < 0]  # nothing so new: what comes next
        return found | (self.offsets(later, "latest") if later else {})

    def ask_offsets(self, partitions: Iterable[int], which: str | int) -> Mapping[TopicPartition, Future[Any]]:
        """The question, for `offsets_of`."""
        make: Any = Spec  # its methods have no types
        spec = make.for_timestamp(which) if isinstance(which, int) else getattr(make, which)()
        asked = {TopicPartition(self._url.topic, partition): spec for partition in partitions}
        if not asked:
            return {}
        found: Mapping[TopicPartition, Future[Any]] = self._asked(
            lambda: self._admin.list_offsets(asked, isolation_level=self._isolation, request_timeout=ANSWER)
        )
        return found

    def offsets_of(self, answers: Mapping[TopicPartition, Future[Any]], *, wait: bool = False) -> dict[int, int]:
        """The answers, by partition."""
        ask = self._result if wait else self._known
        found = {each.partition: int(ask(answer, "ask for offsets").offset) for each, answer in answers.items()}
        self._health.heard()
        return found

    def ask_commit(self, group: str, offsets: Mapping[int, int]) -> Future[Any]:
        """Has the offsets of a group written."""
        found = [TopicPartition(self._url.topic, number, at) for number, at in offsets.items()]
        wanted = [ConsumerGroupTopicPartitions(group, found)]
        answers = self._admin.alter_consumer_group_offsets(wanted, request_timeout=ANSWER)
        answer: Future[Any] = answers[group]
        return answer

    def close(self) -> None:
        """Forgets the client; it ends its threads by itself."""
        del self._admin

    def _asked(self, question: Callable[[], Any]) -> Any:
        self._admin.poll(0)
        try:
            return question()
        except KafkaException as error:
            raise self._health.explained(error, "ask a broker") from None

    def _result(self, answer: Future[Any], doing: str) -> Any:
        """Waits, unless closed meanwhile."""
        deadline = time.monotonic() + 2 * ANSWER
        while True:
            self._admin.poll(0)  # hears what is wrong meanwhile
            if self._closing.is_set():
                raise ClosedError(f"the reader of {self._url.name} is closed; open the source again")
            try:
                return answer.result(_SLICE)
            except NotYetError:
                if time.monotonic() > deadline:
                    raise StorageError(f"{self._url.name}: cannot {doing}: no broker answered in time") from None
            except KafkaException as error:
                raise self._explained(error, doing) from None

    def _known(self, answer: Future[Any], doing: str) -> Any:
        try:
            return answer.result(0)
        except KafkaException as error:
            raise self._explained(error, doing) from None

    def _explained(self, error: KafkaException, doing: str) -> StorageError:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            topic = self._url.topic
            return StorageError(f"{self._url.name}: the brokers have no topic {topic!r}; create it, or mend the URL")
        return self._health.explained(error, doing)
