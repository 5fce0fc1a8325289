"""Messages of a queue as changes.

| format | the body is |
|---|---|
| json | the row, as a JSON object |
| change | `{"op": "upsert" or "delete" or "truncate", "key": …, "row": {…}, "version": …, "at": …}` |
| debezium, outbox | see `headrace.formats.debezium`; the message's key is the header `key` or the message id |

With `format=json` the header `op`, or the message's `type`, says that a row is deleted ("delete") or that all are
("truncate"). Whose delete it is: the header `key`, else the body (an object with the key columns, or the key itself),
else the message id. A message without a body, or with `null`, is a delete too.

What orders two changes of a row is its version: the header that `version=` names, else the table's version column. It
is a whole number, or a time. When the message was sent (`timestamp`) is known to a second only, which orders nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
import xxhash

from headrace.cdc import Change, Op
from headrace.document import MOST_BYTES, TableSchema
from headrace.errors import DecodeError, InputError
from headrace.formats.debezium import Decode, change_decoder
from headrace.sources.base import Letter, Trace
from headrace.sources.rabbitmq_url import RabbitUrl
from headrace.units import MILLISECOND, SECOND, to_micros

_OPS: Mapping[str, Op] = {
    **dict.fromkeys(("upsert", "insert", "create", "update", "replace", "read", "c", "r", "u"), "upsert"),
    **dict.fromkeys(("delete", "remove", "tombstone", "d"), "delete"),
    **dict.fromkeys(("truncate", "t"), "truncate"),
}
_MOST_TIME = 253_402_300_800 * SECOND


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came.

    Attributes:
        tag: The delivery's number on its channel.
        offset: Its place in a stream; None of a queue that is none.
    """

    tag: int
    body: bytes
    headers: Mapping[str, Any]
    id: str | None = None
    type: str | None = None
    sent: datetime | None = None
    offset: int | None = None


class _Told(msgspec.Struct):
    """A body of `format=change`."""

    op: str
    key: Any = None
    row: dict[str, Any] | None = None
    version: Any = None
    at: int | str | None = None


class Decoder:
    """Makes changes of messages."""

    def __init__(self, url: RabbitUrl, schema: TableSchema) -> None:
        self.url, self.schema = url, schema
        self._decode = change_decoder(schema, url.format) if url.format in ("debezium", "outbox") else None

    def told(self, message: Message) -> list[Change] | Letter:
        """What a message says; a letter if that cannot be known."""
        try:
            if len(message.body) > MOST_BYTES:
                raise DecodeError(f"expected a message of at most {MOST_BYTES} bytes, found {len(message.body)}")
            if self._decode is not None:
                return self._decoded(message, self._decode)
            return [self._change(message) if self.url.format == "change" else self._json(message)]
        except InputError as error:
            return Letter(str(error), self.trace(message))

    def trace(self, message: Message) -> Trace:
        """Where a message came from, and all of it."""
        key = message.headers.get("key", message.id)
        return Trace(
            self.origin(message),
            message.body,
            None if key is None else _bytes(key),
            tuple((name, None if value is None else _bytes(value)) for name, value in message.headers.items()),
        )

    def origin(self, message: Message) -> str:
        """The same whenever it is delivered again."""
        if message.offset is not None:
            return f"{self.url.queue}@{message.offset}"
        return f"{self.url.queue}#{message.id or xxhash.xxh64_hexdigest(message.body)}"

    def _json(self, message: Message) -> Change:
        empty = message.body.strip() in (b"", b"null")
        op = self._op(message)
        if empty and op is None:
            op = "delete"
        body = None if empty else _parsed(message.body)
        version = self._version(message, body if isinstance(body, Mapping) else {})
        at, origin = _at(message), self.origin(message)
        if op == "truncate":
            return Change("truncate", at=at, version=version, origin=origin, raw=message.body)
        if op == "delete":
            key = self._key(message, body)
            return Change("delete", key=key, at=at, version=version, origin=origin, raw=message.body)
        if not isinstance(body, Mapping):
            raise DecodeError(f"expected a JSON object as the body, found {_kind(body)}")
        return Change("upsert", row=body, at=at, version=version, origin=origin, raw=message.body)

    def _op(self, message: Message) -> Op | None:
        told = message.headers.get("op")
        if told is not None:
            found = _OPS.get(_text(told).lower())
            if found is None:
                raise InputError(f"expected the header op to be upsert, delete or truncate, found {_text(told)[:50]!r}")
            return found
        # `type` is for the application to name its messages: what it does not say is no mistake.
        return _OPS.get(_text(message.headers.get("type", message.type)).lower())

    def _key(self, message: Message, body: Any) -> Any:
        if message.headers.get("key") is not None:
            return self._told_key(message.headers["key"])
        if isinstance(body, Mapping):
            missing = [column for column in self.schema.key if column not in body]
            if missing:
                raise InputError(f"expected a delete to tell {', '.join(self.schema.key)}, found no {missing[0]}")
            return {column: body[column] for column in self.schema.key}
        if body is not None:
            return body
        if message.id is None:
            raise InputError("expected a delete to tell its key in the header key, the body or the message id")
        return self._told_key(message.id)

    def _told_key(self, key: Any) -> Any:
        """A key beside the body: a text as it is; for a key of several columns, JSON."""
        key = key.decode("utf-8", "replace") if isinstance(key, bytes | bytearray) else key
        return _parsed(key.encode()) if isinstance(key, str) and len(self.schema.key) > 1 else key

    def _change(self, message: Message) -> Change:
        try:
            told = msgspec.json.decode(message.body, type=_Told)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(f"expected a change as JSON, found bytes that are none ({error})") from None
        op = _OPS.get(told.op)
        if op is None:
            raise InputError(f"expected op to be upsert, delete or truncate, found {told.op[:50]!r}")
        if op == "upsert" and told.row is None:
            raise InputError("expected an upsert with a row, found none")
        if op == "delete" and told.key is None:
            raise InputError("expected a delete with a key, found none")
        named = self.url.version is not None and self.url.version in message.headers
        version = self._version(message, told.row or {}) if told.version is None or named else _number(told.version)
        at = _at(message) if told.at is None else _moment(told.at)
        row = told.row if op == "upsert" else None
        return Change(op, row, told.key, at, version, self.origin(message), raw=message.body)

    def _decoded(self, message: Message, decode: Decode) -> list[Change]:
        trace = self.trace(message)
        found = decode(trace.key, message.body or None, trace.headers)
        version = self._version(message, {}) if self.url.version is not None else None
        return [
            replace(
                change,
                at=_at(message) if change.at is None else change.at,
                version=change.version if version is None else version,
                origin=trace.origin,
                raw=change.raw or message.body,
            )
            for change in found
        ]

    def _version(self, message: Message, row: Mapping[str, Any]) -> int | None:
        if self.url.version is not None:
            value = message.headers.get(self.url.version)
            if value is None:
                raise InputError(f"expected the header {self.url.version} to tell the version, found none")
            return _number(value)
        value = row.get(self.schema.version) if self.schema.version else None
        return None if value is None else _number(value)


def _parsed(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"expected JSON, found bytes that are none ({error})") from None


def _number(value: Any) -> int:
    """A version as a number: a time is its microseconds."""
    if isinstance(value, bytes | bytearray):
        value = value.decode("utf-8", "replace")
    if isinstance(value, datetime):
        return to_micros(value)
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and value.removeprefix("-").isdecimal() and len(value) < 20:
        found = int(value)
    elif isinstance(value, str):
        found = _moment(value)
    else:
        raise InputError(f"expected a version to be a whole number or a time, found {_kind(value)}")
    if not -(2**63) <= found < 2**63:
        raise InputError("expected a version to be a number of 64 bits, found a larger one")
    return found


def _moment(value: int | str) -> int:
    """Microseconds, from microseconds or ISO 8601 text."""
    if isinstance(value, int):
        if not -_MOST_TIME < value < _MOST_TIME:
            raise InputError("expected a time in microseconds since 1970, found one past the year 9999")
        return value
    try:
        return to_micros(datetime.fromisoformat(value))
    except ValueError:
        raise InputError(f"expected a number or an ISO 8601 time, found {value[:50]!r}") from None


def _at(message: Message) -> int | None:
    millis = message.headers.get("timestamp_in_ms")  # of RabbitMQ's own interceptor
    if isinstance(millis, int) and 0 < millis * MILLISECOND < _MOST_TIME:
        return millis * MILLISECOND
    return None if message.sent is None else to_micros(message.sent)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | bytearray) else str(value).encode("utf-8", "replace")


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), type(value).__name__)
