"""`amqp:` and `rabbitmq:` URLs: which queue of which server, and how its messages are read.

    rabbitmq://${USER}:${PASSWORD}@host:5672/vhost?queue=articles
    amqps://host/%2F?queue=articles&format=change&prefetch=200

`rabbitmq:` is `amqp:`, `rabbitmqs:` is `amqps:`. Without a path the vhost is "/"; without a login, guest's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from headrace.errors import ConfigError, nearest
from headrace.sources.server_url import Login, ServerUrl, one_of, size, whole

FORMATS = ("json", "change", "debezium", "outbox")
TYPES = ("classic", "quorum", "stream")
OPTIONS = ("queue", "format", "version", "prefetch", "bytes", "start", "declare", "type")
# The client's own: heartbeats, the name in the server's list of connections, TLS.
PASSED = ("heartbeat", "name", "cafile", "capath", "cadata", "keyfile", "certfile", "no_verify_ssl", "auth")
EXAMPLE = "'rabbitmq://host:5672/vhost?queue=articles'"
_SCHEMES = {"amqp": "amqp", "amqps": "amqps", "rabbitmq": "amqp", "rabbitmqs": "amqps"}


@dataclass(frozen=True)
class RabbitUrl:
    """What an `amqp:` URL says.

    Attributes:
        name: The host, the vhost and the queue, and nothing else.
        uri: For the client.
        place: The vhost and the queue: what positions name.
        version: The header that orders the changes of a row.
        prefetch: The most messages that are held without being stored.
        bytes: About the most bytes of them.
        start: Where a stream begins that has no position: "first", "last", "next", an offset or a time.
        declare: Whether the queue is made if it is not there.
        type: Of the queue; None if that is for the server to say.
    """

    name: str
    uri: str = field(repr=False)
    login: Login
    place: str
    queue: str
    format: str
    version: str | None
    prefetch: int
    bytes: int
    start: str | int | datetime
    declare: bool
    type: str | None

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any]) -> RabbitUrl:
        """Read a URL and the options beside it.

        Raises:
            ConfigError: A part of it cannot be used; the message says which and what is expected.
        """
        parts = ServerUrl.parse(url, options, _SCHEMES, EXAMPLE)
        given = parts.options
        for name in given:
            if name not in (*OPTIONS, *PASSED):
                raise ConfigError(f"a RabbitMQ source has no option {name!r}; {nearest(name, (*OPTIONS, *PASSED))}")
        queue, vhost = given.get("queue", ""), parts.path or "/"
        if not queue or len(queue.encode()) > 255:
            raise ConfigError(f"expected a queue as in {EXAMPLE}, found {queue[:300]!r}")
        login = parts.login if parts.login.user else Login("guest", "guest")
        passed = {"heartbeat": "10", "name": "headrace"}
        passed |= {name: value for name, value in given.items() if name in PASSED}
        place = f"{vhost if vhost != '/' else ''}/{queue}"
        return cls(
            name=f"{parts.scheme}://{parts.hosts}/{place.removeprefix('/')}",
            uri=f"{_SCHEMES[parts.scheme]}://{login.userinfo}{parts.hosts}/{quote(vhost, '')}?{urlencode(passed)}",
            login=login,
            place=place,
            queue=queue,
            format=one_of(given, "format", FORMATS, "json"),
            version=given.get("version") or None,
            prefetch=whole(given, "prefetch", 500, 60_000),
            bytes=size(given, "bytes", 64 << 20),
            start=_start(given.get("start", "first")),
            declare=one_of(given, "declare", ("true", "false"), "false") == "true",
            type=one_of(given, "type", TYPES, "") or None,
        )


def _start(text: str) -> str | int | datetime:
    if text in ("first", "last", "next"):
        return text
    if text.isdecimal() and len(text) < 19:
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"expected start to be first, last, next, an offset or a time such as 2026-01-01T00:00:00Z, found {text!r}"
        ) from None
