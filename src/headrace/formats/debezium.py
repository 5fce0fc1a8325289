"""Messages that tell changes of a table: Debezium's envelopes, its flattened rows, its outbox, and rows under keys.

Debezium's connectors write a message for each change, under the row's key: what the row was before, what it is after,
and what was done ("c" insert, "u" update, "d" delete, "r" read for a snapshot, "t" truncate). With schemas, the
message is {"schema": …, "payload": …} and says what each value stands for. A change of a key is told as a delete and
an insert. A delete is followed by a tombstone, a message without a value, so that a compacted topic forgets the row.
Connectors for Postgres, MySQL and their like hold rows; the one for MongoDB documents as texts.

A row is told whole, or not at all: where a value was left out, because its update left a long text alone or told only
what it changed, the message is refused. Written as it is, it would empty what it does not tell.

What orders changes is the topic: messages of a key are in one partition. So changes have no `version`; a server's log
begins anew when it is put back from a copy, and a smaller number would then hide every change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from headrace.cdc import Change
from headrace.document import TableSchema
from headrace.errors import ConfigError, DecodeError, nearest
from headrace.formats.debezium_values import UNAVAILABLE, Json, document_of, extended, field_of, struct_of
from headrace.units import MILLISECOND

FORMATS = ("debezium", "json", "outbox")
Headers = Sequence[tuple[str, bytes | None]]
Decode = Callable[[bytes | None, bytes | None, Headers], Sequence[Change]]

_OPS = frozenset("crudtm")
_DELETED = "*[Dd]eleted"
# What a flattened row may have besides its columns, as ExtractNewRecordState is told to add them.
_META = "__"


def change_decoder(
    schema: TableSchema, format: str, *, deleted: str | Iterable[str] = _DELETED, unavailable: str = UNAVAILABLE
) -> Decode:
    """What reads messages as changes: called with a message's key, its value and its headers.

    A message may tell no change. What it calls raises DecodeError for a message that cannot be used.

    Args:
        schema: The table's; columns that no model has may be left out of a row.
        format: "debezium" (envelopes and flattened rows), "json" (rows under keys, as `app.publish` writes them) or
            "outbox" (documents under an aggregate's id).
        deleted: Of an outbox, the event types that delete: patterns such as "Article*Deleted".
        unavailable: What the connector writes for a value that it was not told (`unavailable.value.placeholder`).

    Raises:
        ConfigError: There is no such format.
    """
    if format == "debezium":
        return _Envelopes(schema, unavailable)
    if format == "outbox":
        return _Outbox(schema, deleted.split(",") if isinstance(deleted, str) else deleted)
    if format == "json":
        return _Rows(schema)
    raise ConfigError(f"{format!r} is not a format of a table's messages; {nearest(format, FORMATS)}")


class _Decoder:
    """What the formats share: keys."""

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self.columns = {
            name
            for model in schema.models.values()
            for field, info in model.model_fields.items()
            for name in (field, info.alias)
            if name
        }

    def key(self, data: bytes | None) -> Any:
        """A message's key as that of a row.

        Raises:
            DecodeError: There is none, or it does not have the key's columns.
        """
        if data is None:
            raise DecodeError(f"expected a message key with {', '.join(self.schema.key)}, found none")
        try:
            found = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            try:
                found = data.decode()
            except UnicodeDecodeError:
                raise DecodeError(f"expected a message key that is a text or JSON, found {data[:80]!r}") from None
        if _has_schema(found):
            found = _with_schema(found["payload"], found["schema"])
        if isinstance(found, Mapping):
            return self.key_in(found)
        if len(self.schema.key) == 1:
            # A text that happens to be a number stays as it was written: "1e5" is not 100000.0.
            return data.decode() if isinstance(found, int | float) and not data.startswith(b"{") else found
        if isinstance(found, list) and len(found) == len(self.schema.key):
            return dict(zip(self.schema.key, found, strict=True))
        raise DecodeError(f"expected a message key with {', '.join(self.schema.key)}, found {str(found)[:80]!r}")

    def key_in(self, row: Json) -> dict[str, Any]:
        """The key's columns of a row."""
        if len(self.schema.key) == 1 and len(row) == 1:
            # MongoDB's is called "id", whatever the table's is called, and is a text of extended JSON.
            ((name, value),) = row.items()
            if isinstance(value, str) and value.startswith(('{"$', '"')):
                return {self.schema.key[0]: extended(_json_text(value))}
            if name == "id" and self.schema.key[0] not in row:
                return {self.schema.key[0]: value}
        missing = [column for column in self.schema.key if column not in row]
        if missing:
            raise DecodeError(f"expected a key with {', '.join(self.schema.key)}, found no {', '.join(missing)}")
        return {column: row[column] for column in self.schema.key}

    def filled(self, row: dict[str, Any], key: bytes | None) -> dict[str, Any]:
        """A row that has its key, if the message has it."""
        if key is not None and any(column not in row for column in self.schema.key):
            found = self.key(key)
            row |= found if isinstance(found, Mapping) else {self.schema.key[0]: found}
        return row


class _Rows(_Decoder):
    """A key and its row as JSON; no value is a delete."""

    def __call__(self, key: bytes | None, value: bytes | None, _: Headers = ()) -> Sequence[Change]:
        found = _object(value)
        if found is None:
            return [Change("delete", key=self.key(key))]
        return [Change("upsert", self.filled(dict(found), key))]


class _Outbox(_Decoder):
    """An aggregate's id and its document; the event's type, or no value, deletes."""

    def __init__(self, schema: TableSchema, deleted: Iterable[str]) -> None:
        super().__init__(schema)
        self._deleted = [pattern.strip() for pattern in deleted if pattern.strip()]

    def __call__(self, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Sequence[Change]:
        given = {name: content for name, content in headers if content is not None}
        event = _header(given.get("eventType") or given.get("type") or b"")
        if self._deletes(event):
            return [Change("delete", key=self.key(key))]
        found: Any = None if value is None else _parsed(value)
        if _has_schema(found):
            found = _with_schema(found["payload"], found["schema"])
        found = _json_text(found)  # the router writes the payload's column, which is a text
        if isinstance(found, Mapping) and "payload" in found and not set(self.schema.key) & set(found):
            event = event or str(found.get("eventType") or "")  # fields may be placed beside the payload
            found = _json_text(found["payload"])
        if found is None or self._deletes(event):
            return [Change("delete", key=self.key(key))]
        if not isinstance(found, Mapping):
            raise DecodeError(f"expected a JSON object as the event's payload, found {type(found).__name__}")
        return [Change("upsert", self.filled(dict(found), key))]

    def _deletes(self, event: str) -> bool:
        return any(fnmatchcase(event, pattern) for pattern in self._deleted)


class _Envelopes(_Decoder):
    """Debezium's messages, with and without a schema, whole or flattened."""

    def __init__(self, schema: TableSchema, unavailable: str) -> None:
        super().__init__(schema)
        self._unavailable = unavailable

    def __call__(self, key: bytes | None, value: bytes | None, _: Headers = ()) -> Sequence[Change]:
        payload: Any = _object(value)
        schema = None
        if _has_schema(payload):
            payload, schema = payload["payload"], payload["schema"]
        if payload is None:
            return [Change("delete", key=self.key(key))]
        if not isinstance(payload, Mapping):
            raise DecodeError(f"expected an envelope of Debezium, found a payload of {type(payload).__name__}")
        op = payload.get("op")
        if op in _OPS and ("after" in payload or "before" in payload or "source" in payload):
            return self._envelope(op, payload, schema, key)
        return self._flat(payload, schema, key)

    def _envelope(self, op: str, payload: Json, schema: Json | None, key: bytes | None) -> Sequence[Change]:
        at = _moment(payload)
        if op == "m":
            return []
        if op == "t":
            return [Change("truncate", at=at)]
        before, untold_before = self._row(payload.get("before"), field_of(schema, "before"))
        if op == "d":
            return [Change("delete", key=self._key_of(before, key), at=at)]
        after, untold = self._row(payload.get("after"), field_of(schema, "after"))
        if after is None:
            after = _patched(payload)
        if before is not None:  # a table whose identity is full tells what the row was
            after |= {name: before[name] for name in untold - untold_before if name in before}
            untold = untold & untold_before
        self._whole(untold)
        after = self._named(after, key)
        old = None
        if op == "u" and before is not None and all(column in before for column in self.schema.key):
            old = {column: before[column] for column in self.schema.key}
            if all(after.get(column) == value for column, value in old.items()):
                old = None
        return [Change("upsert", after, old, at=at)]

    def _flat(self, payload: Json, schema: Json | None, key: bytes | None) -> Sequence[Change]:
        row, untold = struct_of(payload, schema, self._unavailable)
        meta = {name: row[name] for name in row if name.startswith(_META) and name not in self.columns}
        row = {name: value for name, value in row.items() if name not in meta}
        at = _millis(meta.get("__source_ts_ms") or meta.get("__ts_ms"))
        op = meta.get("__op")
        if op == "t":
            return [Change("truncate", at=at)]
        if op == "d" or str(meta.get("__deleted", "false")).lower() == "true":
            return [Change("delete", key=self._key_of(row, key), at=at)]
        self._whole(untold)
        return [Change("upsert", self._named(row, key), at=at)]

    def _row(self, found: Any, schema: Json | None) -> tuple[Any, set[str]]:
        """A row, and what it does not tell; a document of MongoDB comes as a text."""
        if found is None:
            return None, set()
        if isinstance(found, str):
            return document_of(found), set()
        if not isinstance(found, Mapping):
            raise DecodeError(f"expected a row in the envelope, found {type(found).__name__}")
        return struct_of(found, schema, self._unavailable)

    def _key_of(self, row: dict[str, Any] | None, key: bytes | None) -> Any:
        """The key of a row that was deleted: by what it was, or by the message's key."""
        if row is not None and all(column in row and row[column] is not None for column in self.schema.key):
            return {column: row[column] for column in self.schema.key}
        return self.key(key)

    def _named(self, row: dict[str, Any], key: bytes | None) -> dict[str, Any]:
        """A row with the key's columns; a document's key is called `_id`."""
        if len(self.schema.key) == 1 and self.schema.key[0] not in row and "_id" in row:
            row = {self.schema.key[0]: row["_id"]} | row
        return self.filled(row, key)

    def _whole(self, untold: set[str]) -> None:
        lost = sorted(untold & self.columns)
        if lost:
            raise DecodeError(
                f"expected a whole row, found no value of {', '.join(lost)}, which the update left alone and the "
                "server's log does not have; let it tell them: ALTER TABLE … REPLICA IDENTITY FULL"
            )


def _patched(payload: Json) -> dict[str, Any]:
    """The document of an update of MongoDB's that has no `after`: its patch, if that is the whole document."""
    patch = payload.get("patch")
    if isinstance(patch, str):
        found = document_of(patch)
        if found and not any(name.startswith("$") for name in found):
            return found
    raise DecodeError(
        "expected the row as it is after the change, found only what was changed; let the connector tell it: "
        "capture.mode=change_streams_update_full"
    )


def _moment(payload: Json) -> int | None:
    """When it was changed at its source."""
    source = payload.get("source")
    if not isinstance(source, Mapping):
        source = {}
    micros = source.get("ts_us")
    return micros if isinstance(micros, int) else _millis(source.get("ts_ms") or payload.get("ts_ms"))


def _millis(found: Any) -> int | None:
    return found * MILLISECOND if isinstance(found, int) else None


def _has_schema(found: Any) -> bool:
    return isinstance(found, Mapping) and set(found) == {"schema", "payload"}


def _with_schema(payload: Any, schema: Json | None) -> Any:
    return struct_of(payload, schema)[0] if isinstance(payload, Mapping) else payload


def _parsed(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"expected JSON, found {value[:80]!r} ({error})") from None


def _object(value: bytes | None) -> Json | None:
    """A JSON object; None for a tombstone, which a converter may have written as `null`."""
    found = None if value is None else _parsed(value)
    if found is not None and not isinstance(found, dict):
        raise DecodeError(f"expected a JSON object, found {type(found).__name__}")
    return found


def _header(value: bytes) -> str:
    """A header's text, which a converter may have written as JSON."""
    text = value.decode(errors="replace")
    found = _json_text(text) if text[:1] in ('"', "{") else text
    return str(found.get("payload") if isinstance(found, Mapping) else found)


def _json_text(found: Any) -> Any:
    """What a text holds, if that is JSON; anything else as it is."""
    if not isinstance(found, str):
        return found
    try:
        return msgspec.json.decode(found)
    except (msgspec.DecodeError, RecursionError):
        return found
