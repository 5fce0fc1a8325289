"""`rabbitmq:` and `amqp:` as a source of a table: changes that applications send to a queue.

    articles = app.table(Article, "rabbitmq://host:5672/vhost?queue=articles", key="id")
    amqps://${USER}:${PASSWORD}@host/%2F?queue=articles&format=change&version=revision

Classic and quorum queues are told what was stored, and forget it; what was not is delivered again. A stream keeps its
messages, and is read on from an offset. There is no snapshot: a queue knows no rows, and a table begins empty.

What is needed for a redelivery to be harmless. Without versions, changes count in the order of the queue, and messages
that were not stored come again in that order; so it is right with one reader a queue, and publishers that send the
changes of a row on one channel. With several readers, with messages that others put back, or with publishers that send
out of order, give each change a version: an older one that comes after a newer one is then passed over.

A quorum queue of RabbitMQ 4 drops a message that was delivered 20 times without being stored: set `delivery-limit` to
-1, or give the queue a dead-letter exchange. RabbitMQ 3.8.17 and later end a connection that takes longer than
`consumer_timeout` (30 minutes) to store a message.

| option | is |
|---|---|
| queue | which one; there is no default |
| format | "json", "change", "debezium" or "outbox"; see `rabbitmq_messages` |
| version | the header that orders the changes of a row |
| prefetch | the most messages that are held without being stored; 500 |
| bytes | about the most bytes of them; "64MiB" |
| start | where a stream begins: first, last, next, an offset or a time; first |
| declare | whether the queue is made, durable, if it is not there; false |
| type | "classic", "quorum" or "stream", to make it so; found out where the queue is there |

`heartbeat`, `name` and TLS (`cafile`, `certfile`, `keyfile`, `no_verify_ssl`, …) are aio-pika's.
"""

from __future__ import annotations

from typing import Any

from headrace.document import TableSchema
from headrace.sources.rabbitmq_reader import RabbitReader, offset_of
from headrace.sources.rabbitmq_url import RabbitUrl


class RabbitSource:
    """The source behind `rabbitmq:` and `amqp:` URLs.

    Args:
        url: `rabbitmq://host:5672/vhost?queue=articles`
        options: As in the query, and before it.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = RabbitUrl.parse(url, options)

    def __repr__(self) -> str:
        return f"RabbitSource({self.name!r})"

    @property
    def name(self) -> str:
        """The host, the vhost and the queue."""
        return self._url.name

    def open(self, position: Any | None, schema: TableSchema) -> RabbitReader:
        """Connect and begin to receive; see `TableSource.open`.

        Raises:
            ConfigError: The queue is not there, the login is refused, or the position is not one of this source's.
            StorageError: The server is out of reach.
        """
        reader = RabbitReader(self._url, schema, None if position is None else offset_of(position, self._url))
        try:
            reader.connect()
        except BaseException:
            reader.close()
            raise
        return reader
