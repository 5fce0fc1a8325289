"""Message keys, headers and timestamps as fields of the JSON object that is the message's value.

They are put in at the front of the object, as bytes, so that the whole batch is still decoded by column. A field that
the object has itself is left alone: it is what its producer said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from headrace.errors import ConfigError, nearest
from headrace.fields import Field
from headrace.schema import Schema
from headrace.sources.kafka_batch import Messages, as_bytes, headers_of
from headrace.sources.kafka_url import KafkaUrl
from headrace.units import MILLISECOND, from_micros

Value = Callable[[Message], bytes]  # a message's part as JSON; ValueError if it cannot be

_BLANKS = b" \t\r\n"


class Filler:
    """Puts parts of messages into their values.

    Args:
        schema: What the objects are to be.
        url: Which parts go into which fields.

    Raises:
        ConfigError: A field that is not the model's.
    """

    def __init__(self, schema: Schema, url: KafkaUrl) -> None:
        self._parts: list[tuple[bytes, bytes, Value]] = []
        if url.key is not None:
            self._add(schema, "key", url.key, lambda _: _key)
        for name, into in url.headers.items():
            self._add(schema, f"header.{name}", into, partial(_header, name))
        if url.timestamp is not None:
            self._add(schema, "timestamp", url.timestamp, _timestamp)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def _add(self, schema: Schema, option: str, into: str, value: Callable[[Field], Value]) -> None:
        fields = {each.name: each for each in schema.fields}
        if into not in fields:
            raise ConfigError(f"{option}={into}: {schema.model.__name__} has no such field; {nearest(into, fields)}")
        quoted = msgspec.json.encode(fields[into].key)
        self._parts.append((quoted, quoted + b":", value(fields[into])))

    def fill(self, messages: Messages) -> tuple[list[bytes], dict[int, str]]:
        """The values with the parts put in, and why those that could not be are as they were, by row."""
        filled: list[bytes] = []
        failed: dict[int, str] = {}
        for row, (value, heard) in enumerate(zip(messages, messages.heard, strict=True)):
            try:
                filled.append(self._filled(value, heard))
            except ValueError as error:
                filled.append(value)
                failed[row] = str(error)
        return filled, failed

    def _filled(self, value: bytes, heard: Message) -> bytes:
        if not value.lstrip(_BLANKS).startswith(b"{"):
            return value  # not an object: the decoder says so
        parts = [name + part(heard) for quoted, name, part in self._parts if not _has(value, quoted)]
        if not parts:
            return value
        rest = value[value.index(b"{") + 1 :].lstrip(_BLANKS)
        comma = b"" if rest.startswith(b"}") else b","
        return b"{" + b",".join(parts) + comma + rest


def _has(value: bytes, quoted: bytes) -> bool:
    """Whether an object has a key; only if its text holds the key's is it read."""
    if quoted not in value:
        return False
    try:
        found = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True  # not JSON: the decoder says so
    return msgspec.json.decode(quoted) in found


def _key(message: Message) -> bytes:
    return _text(as_bytes(message.key()), "the message's key")


def _header(name: str, _: Field) -> Value:
    def value(message: Message) -> bytes:
        # Of a header that is there several times the last one counts, as with a key of an object.
        return _text(dict(headers_of(message)).get(name), f"the header {name!r}")

    return value


def _text(raw: bytes | None, what: str) -> bytes:
    if raw is None:
        return b"null"
    try:
        return msgspec.json.encode(raw.decode())
    except UnicodeDecodeError:
        raise ValueError(f"expected {what} to be text in UTF-8, found {raw[:40]!r}") from None


def _timestamp(field: Field) -> Value:
    """The message's time as the field reads it: in its own unit, as a moment, or in milliseconds."""

    def value(message: Message) -> bytes:
        kind, stamp = message.timestamp()
        if kind == TIMESTAMP_NOT_AVAILABLE:
            return b"null"
        if field.kind == "event_time" or field.kind == "datetime":
            return msgspec.json.encode(from_micros(stamp * MILLISECOND))
        return b"%d" % stamp

    return value


def usable(rows: Sequence[bytes], failed: dict[int, str]) -> tuple[list[bytes], list[int]]:
    """The rows that did not fail, and the number of each among all."""
    kept = [row for row in range(len(rows)) if row not in failed]
    return [rows[row] for row in kept], kept
