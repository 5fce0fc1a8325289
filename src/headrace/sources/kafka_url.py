"""`kafka:` URLs: which topic of which brokers, how its messages are read, and what the client is told.

    kafka://broker1:9092,broker2:9092/payments
    kafka://broker:9092/payments?start=latest&format=avro&registry=http://registry:8081&dead_letters=payments.dead
    kafka://${USER}:${PASSWORD}@broker:9093/payments?security.protocol=sasl_ssl&sasl.mechanism=SCRAM-SHA-256

`${NAME}` stands for an environment variable, anywhere; it is put in after the URL has been taken apart, so a password
may hold any character. `sasl.password.file=PATH` reads a secret from a file. What a parameter with a dot in its name
says is librdkafka's, but for `header.…` and `registry.…`. Options may be given in the query, as keyword arguments or,
for those with dots, in the mapping `config`; the last of these wins.

A secret is in no name, no text of an error and no `repr`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.errors import ConfigError, nearest
from headrace.sources import kafka_properties
from headrace.units import MILLISECOND, SECOND, duration, to_micros

FORMATS = ("json", "avro", "protobuf", "jsonschema")
OPTIONS = (
    *("start", "format", "registry", "dead_letters", "group", "key", "timestamp", "tombstones"),
    *("schema", "message", "validate", "batch", "chunk", "refresh"),
)
PORT = 9092
# Messages of a poll: at ten thousand the engine, which has costs of its own for each batch, took a tenth longer.
BATCH = 30_000
CHUNK = 8 << 20

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BROKER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\],]+)(?::(?P<port>\d{1,5}))?")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MOST_FILE = 1 << 20
_EXAMPLE = "'kafka://broker:9092/topic'"


@dataclass(frozen=True)
class KafkaUrl:
    """What a `kafka:` URL says.

    Attributes:
        name: The brokers and the topic, and nothing else.
        start: Where a source begins that has no position yet: "earliest", "latest" or milliseconds since the epoch.
        options: The decoder's, as `schema` and `registry.ca`.
        dead_letters: The topic for what cannot be used.
        group: Under what name positions are committed for lag monitors; None for not at all.
        key: The field that the message's key goes into.
        timestamp: The field that the message's timestamp goes into.
        headers: The fields that headers go into, by the header's name.
        reject_tombstones: Whether a message without a value becomes a dead letter.
        batch: The most messages in a chunk.
        chunk: About how many bytes of messages are in one.
        refresh: Seconds between two looks for new partitions.
        properties: librdkafka's.
    """

    name: str
    brokers: str
    topic: str
    start: str | int = "earliest"
    format: str = "json"
    registry: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict)
    dead_letters: str | None = None
    group: str | None = None
    key: str | None = None
    timestamp: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reject_tombstones: bool = False
    batch: int = BATCH
    chunk: int = CHUNK
    refresh: float = 10.0
    properties: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any]) -> KafkaUrl:
        """Read a URL and the options beside it.

        Raises:
            ConfigError: A part of it cannot be used; the message says which and what is expected.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ConfigError(f"expected a URL such as {_EXAMPLE}: {error}") from None
        if parts.scheme.lower() != "kafka":
            raise ConfigError(f"expected a URL such as {_EXAMPLE}, found one of the scheme {parts.scheme!r}")
        if parts.fragment:
            raise ConfigError("expected no '#' in a Kafka URL; write %23 if it is part of a value")
        userinfo, _, hosts = parts.netloc.rpartition("@")
        # With an '@' past where a login ends, a password that was not percent-encoded may be anywhere.
        torn = "@" in parts.path or "@" in parts.query.partition("&")[0].partition("=")[0]
        brokers = _brokers("" if torn else _expanded(unquote(hosts)))
        topic = _topic(_expanded(unquote(parts.path.removeprefix("/"))), "the URL's path")
        given = _given(parts.query, options)
        properties = dict(_properties(given)) | _login(userinfo, given)
        kafka_properties.check(properties)
        return cls(
            name=f"kafka://{brokers}/{topic}", brokers=brokers, topic=topic, properties=properties, **_ours(given)
        )

    def shown(self, text: str) -> str:
        """A text of someone else's, without any secret of this URL."""
        secrets = [str(value) for name, value in self.properties.items() if name in kafka_properties.SECRET]
        for secret in filter(None, secrets):
            text = text.replace(secret, "…")
        return text


def _given(query: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters by name, with variables put in and secrets read from their files."""
    pairs = parse_qsl(query, keep_blank_values=True)
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in given:
            raise ConfigError(f"expected the parameter {name!r} once, found it twice")
        given[name] = value
    beside = dict(options)
    config = beside.pop("config", {})
    if not isinstance(config, Mapping):
        raise ConfigError(f"expected config to be a mapping of Kafka properties, found {type(config).__name__}")
    given = {name: _plain(value) for name, value in (given | beside | dict(config)).items()}
    for name in [name for name in given if name.endswith(".file")]:
        given[name.removesuffix(".file")] = _from_file(name, given.pop(name))
    for name in given:
        if not _is_property(name) and name not in OPTIONS and not name.startswith(("header.", "registry.")):
            known = (*OPTIONS, "config", "header.NAME")
            raise ConfigError(f"a Kafka source has no option {name!r}; {nearest(name, known)}, and librdkafka's")
    return given


def _plain(value: Any) -> Any:
    """A parameter as text, as a query would have it; a function (`oauth_cb`) as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if callable(value) else _expanded(str(value))


def _expanded(text: str) -> str:
    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(f"a Kafka URL refers to the environment variable {found[1]}, which is not set")
        return os.environ[found[1]]

    return _VARIABLE.sub(variable, text)


def _from_file(name: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MOST_FILE)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected {name} to name a text file that can be read: {error}") from None
    return text.rstrip("\r\n")


def _is_property(name: str) -> bool:
    ours = name.startswith(("header.", "registry."))
    return not ours and ("." in name or name in (*kafka_properties.UNDOTTED, *kafka_properties.DECIDED))


def _properties(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in given.items() if _is_property(name))


def _login(userinfo: str, given: Mapping[str, Any]) -> dict[str, str]:
    """What `user:password@` means: a login, encrypted unless something else is said."""
    if not userinfo:
        return {}
    user, colon, password = userinfo.partition(":")
    for name in ("sasl.username", "sasl.password"):
        if name in given:
            raise ConfigError(f"expected {name} once, found it before the brokers and as a parameter")
    found = {"sasl.username": _expanded(unquote(user))}
    if colon:
        found["sasl.password"] = _expanded(unquote(password))
    if "security.protocol" not in given:
        found["security.protocol"] = "sasl_ssl"
    if "sasl.mechanism" not in given and "sasl.mechanisms" not in given:
        found["sasl.mechanism"] = "PLAIN"
    return found


def _brokers(text: str) -> str:
    """The brokers, each with its port, sorted."""
    found = set()
    for each in text.split(","):
        match = _BROKER.fullmatch(each.strip())
        if match is None or int(match["port"] or PORT) > 65535:
            raise ConfigError(
                f"expected brokers such as 'host1:9092,host2:9092' in a Kafka URL, found {each!r}; in a password, "
                "write %2F for '/', %3F for '?', %40 for '@' and %23 for '#', or ${NAME} for an environment variable"
            )
        found.add(f"{match['host']}:{int(match['port'] or PORT)}")
    return ",".join(sorted(found))


def _topic(text: str, where: str) -> str:
    if not _TOPIC.fullmatch(text) or text in (".", ".."):
        raise ConfigError(
            f"expected a topic of letters, digits, '.', '_' and '-' in {where}, found {text!r}; write {_EXAMPLE}"
        )
    return text


def _ours(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not librdkafka's, by the attribute of the URL."""
    format = given.get("format", "json")
    if format not in FORMATS:
        raise ConfigError(f"{format!r} is not a format of messages; {nearest(str(format), FORMATS)}")
    headers = {name[len("header.") :]: value for name, value in given.items() if name.startswith("header.")}
    found = {
        "format": format,
        "start": _start(given.get("start", "earliest")),
        "options": {
            name: value
            for name, value in given.items()
            if name in ("schema", "message", "validate") or name.startswith("registry.")
        },
        "headers": headers,
        "batch": _whole(given.get("batch", str(BATCH)), "batch", 1_000_000),
        "chunk": _size(given.get("chunk", str(CHUNK))),
        "refresh": duration(given.get("refresh", "10s")) / SECOND,
        "reject_tombstones": _one_of(given.get("tombstones", "skip"), "tombstones", ("skip", "reject")) == "reject",
    }
    found |= {name: given[name] for name in ("registry", "group", "key", "timestamp") if given.get(name)}
    if "dead_letters" in given:
        found["dead_letters"] = _topic(given["dead_letters"], "dead_letters=")
    filled = [name for name in ("key", "timestamp") if name in found] + [f"header.{name}" for name in headers]
    if filled and format != "json":
        raise ConfigError(f"{filled[0]}= fills a field of a JSON object; expected format=json, found format={format}")
    return found


def _start(text: str) -> str | int:
    if text in ("earliest", "latest"):
        return text
    if re.fullmatch(r"\d{1,15}", text):
        return int(text)
    try:
        # A '+' that is not percent-encoded reaches us as a space.
        return to_micros(datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))) // MILLISECOND
    except ValueError:
        raise ConfigError(
            "expected start=earliest, start=latest, a time such as start=2026-01-01T00:00:00Z, or milliseconds since "
            f"1970, found {text!r}"
        ) from None


def _one_of(text: str, name: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise ConfigError(f"expected {name}={' or '.join(known)}, found {text!r}; {nearest(text, known)}")
    return text


def _whole(text: str, name: str, most: int) -> int:
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise ConfigError(f"expected {name} to be a whole number from 1 to {most:,}, found {text!r}")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})(|kB|MB|KiB|MiB)", text)
    units = {"": 1, "kB": 1000, "MB": 1000**2, "KiB": 1 << 10, "MiB": 1 << 20}
    size = int(match[1]) * units[match[2]] if match else 0
    if not 0 < size <= 1 << 30:
        raise ConfigError(f"expected chunk to be a size such as '8MiB' or a number of bytes, found {text!r}")
    return size
