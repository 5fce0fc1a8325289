"""librdkafka's properties: which are ours to decide, what we set where nothing else is said, and which are secrets.

A Kafka client has some two hundred settings and no list of ours would stay true for long, so librdkafka is asked: what
it does not know is an error. A few it may not be told, since what this source promises rests on them.

The values were measured on two cores with broker and reader side by side (Apache Kafka 4.1, a million messages of 50
bytes in 4 partitions): with librdkafka's own second of rest after its queue has been full, 170 thousand messages a
second could be read; with a hundredth, 650 to 750 thousand. A larger queue than a hundred thousand messages, larger
fetches and unchecked checksums gave nothing that could be told from noise.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException

from headrace.errors import ConfigError

# What each decides, said to whoever tries to set it.
DECIDED = {
    "bootstrap.servers": "the brokers stand in the URL",
    "metadata.broker.list": "the brokers stand in the URL",
    "group.id": "write group=NAME",
    "group.instance.id": "partitions are assigned by Headrace, not by the group",
    "auto.offset.reset": "write start=earliest, start=latest or start= and a time",
    "enable.auto.commit": "positions are kept with the state; the group's offsets are only for lag monitors",
    "enable.auto.offset.store": "positions are kept with the state; the group's offsets are only for lag monitors",
    "enable.partition.eof": "the end of a partition is how the lag is known",
    "enable.idempotence": "rows are always written with it, so that a retry writes nothing twice",
    "acks": "a row counts as written when all in-sync replicas have it",
    "request.required.acks": "a row counts as written when all in-sync replicas have it",
    "plugin.library.paths": "a URL does not load code",
    "transactional.id": "rows are written without transactions",
}
# Properties without a dot, which are otherwise options of ours.
UNDOTTED = ("debug", "partitioner", "retries", "log_level", "oauth_cb")
PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
SECRET = frozenset(
    (
        "sasl.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    )
)
# The names that are looked through for a near one.
COMMON = (
    *("security.protocol", "sasl.mechanism", "sasl.username", "sasl.password", "ssl.ca.location", "ssl.key.location"),
    *("ssl.certificate.location", "ssl.key.password", "ssl.keystore.location", "ssl.keystore.password"),
    *("enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm", "client.id", "client.rack"),
    *("fetch.wait.max.ms", "fetch.min.bytes", "fetch.max.bytes", "fetch.message.max.bytes", "queued.min.messages"),
    *("queued.max.messages.kbytes", "isolation.level", "check.crcs", "socket.timeout.ms", "reconnect.backoff.ms"),
    *("reconnect.backoff.max.ms", "topic.metadata.refresh.interval.ms", "linger.ms", "batch.size", "compression.type"),
    *("message.max.bytes", "message.timeout.ms", "delivery.timeout.ms", "queue.buffering.max.messages"),
    *("queue.buffering.max.kbytes", "sasl.oauthbearer.method", "sasl.oauthbearer.client.id"),
    *("sasl.oauthbearer.client.secret", "sasl.oauthbearer.token.endpoint.url", "sasl.kerberos.service.name"),
)
_BOTH = {
    "client.id": "headrace",
    "reconnect.backoff.max.ms": 2000,
    "socket.keepalive.enable": True,
    "socket.nagle.disable": True,
    "log_level": 4,
}
_READING = {
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 32 << 10,
    "isolation.level": "read_committed",
    # A value that a disk or a network has changed is never taken for one. librdkafka 2.16 ends the process where such
    # a batch stands before another partition's in one answer: loudly, and with nothing lost.
    "check.crcs": True,
    "allow.auto.create.topics": False,
}
_WRITING = {
    # The partition of a key is then the one that Java's clients choose.
    "partitioner": "murmur2_random",
    "linger.ms": 2,
    "message.timeout.ms": 15_000,
    "message.max.bytes": 64 << 20,  # the broker's own limit is the one that counts
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 64 << 10,
}

_log = logging.getLogger("headrace.kafka")


class ClientLog:
    """Takes what librdkafka logs: details for those who look for them; what matters is reported by the source."""

    def log(self, _level: int, form: str, *values: Any) -> None:
        """As `logging.Logger.log`."""
        _log.debug(form, *values)


def reading(brokers: str, group: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A consumer's configuration."""
    return {
        **_BOTH,
        **_READING,
        **properties,
        "bootstrap.servers": brokers,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",  # a gap is to be seen
        "logger": ClientLog(),
    }


def asking(brokers: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a client that only asks."""
    return {**_BOTH, **properties, "bootstrap.servers": brokers, "logger": ClientLog()}


def writing(brokers: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A producer's configuration."""
    ours = {"bootstrap.servers": brokers, "enable.idempotence": True, "acks": "all", "logger": ClientLog()}
    return {**_BOTH, **_WRITING, **properties, **ours}


def check(properties: Mapping[str, Any]) -> None:
    """Finds a property that librdkafka does not know or whose value it does not take.

    Nothing is connected to and no file is opened: where an app is checked there may be neither.

    Raises:
        ConfigError: There is one.
    """
    for name, why in DECIDED.items():
        if name in properties:
            raise ConfigError(f"the Kafka property {name!r} cannot be set: {why}")
    protocol = properties.get("security.protocol", "plaintext")
    if str(protocol).lower() not in PROTOCOLS:
        raise ConfigError(f"expected security.protocol to be one of {', '.join(PROTOCOLS)}, found {protocol!r}")
    given = {name: value for name, value in properties.items() if name not in ("security.protocol", "debug")}
    if given:
        try:
            Consumer({**given, "group.id": "check", "logger": ClientLog()}).close()
        except KafkaException as error:
            # What librdkafka says may hold the value, which may be a secret.
            raise ConfigError(_refused(given, error.args[0].str())) from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"expected text, numbers or true and false as Kafka properties: {error}") from None


def _refused(given: Mapping[str, Any], said: str) -> str:
    name = next((name for name in sorted(given, key=len, reverse=True) if name in said), "")
    if said.startswith("No such configuration property"):
        near = difflib.get_close_matches(name, COMMON, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else "see librdkafka's CONFIGURATION.md"
        return f"librdkafka has no property {name!r}; {hint}"
    if name in SECRET:
        return f"librdkafka does not take the value of {name!r}"
    return f"librdkafka does not take a property: {said}"
