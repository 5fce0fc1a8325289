"""Documents of MongoDB as rows, and its events as changes.

BSON has types that JSON has not; a row has only values that JSON can tell, so that it is the same in a table, in a dead
letter and in a prompt:

    ObjectId, UUID                text
    datetime                      ISO 8601 text in UTC; milliseconds since 1970 outside the years 1 to 9999
    Decimal128                    text, as exact as it was: a model's float, Decimal or str takes it
    int64                         int
    Binary                        base64 text
    Timestamp                     ISO 8601 text of its second
    Regex, Code, MinKey, MaxKey   text

`_id` is in the row under its own name, and as `id` too if the document has no `id` of its own (`id=NAME` in the URL
gives that column another name). A deleted document is told by its `_id` alone, so a table is keyed by this column,
unless the server also tells what a document was before it was changed.

A document is taken from the wire as bytes and decoded here, one at a time: one with bytes that are not UTF-8 is a
letter, and those around it are rows.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from headrace.cdc import Change
from headrace.document import TableSchema
from headrace.sources.base import Letter, Trace
from headrace.units import SECOND, to_micros

_STRICT: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
_LENIENT = _STRICT.with_options(unicode_decode_error_handler="replace")
_SAME = {str, bool, float, type(None)}


def plain(value: Any) -> Any:
    """A BSON value as one that JSON can tell; see the module."""
    if type(value) in _SAME:
        return value
    if isinstance(value, DatetimeMS):
        return int(value)
    if isinstance(value, int):
        return int(value)  # an Int64 is one of its own kind
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return _text(value)


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, ObjectId | uuid.UUID | Decimal128):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Timestamp):
        return value.as_datetime().isoformat()
    if isinstance(value, Regex):
        return str(value.pattern) if isinstance(value.pattern, str) else base64.b64encode(value.pattern).decode()
    if isinstance(value, DBRef):
        return plain(value.as_doc())
    if isinstance(value, MinKey | MaxKey):
        return type(value).__name__
    return str(value)  # Code, and what BSON may come to have


def row_of(document: Mapping[str, Any], column: str = "id") -> dict[str, Any]:
    """A document as a row, with `_id` in the column too if the document has none of that name."""
    row = {name: plain(value) for name, value in document.items()}
    if "_id" in row:
        row.setdefault(column, row["_id"])
    return row


def at_of(event: Mapping[str, Any]) -> int | None:
    """When a change was made, in microseconds: by the server's clock, to a second where it is older than MongoDB 6."""
    wall, cluster = event.get("wallTime"), event.get("clusterTime")
    if isinstance(wall, datetime):
        return to_micros(wall)
    return cluster.time * SECOND if isinstance(cluster, Timestamp) else None


@dataclass(frozen=True)
class Event:
    """An event of a change stream.

    Attributes:
        op: "insert", "update", "drop" and so on, as MongoDB calls it.
        token: Its resume token, as it came.
        transaction: What it has in common with the other events of its transaction; None if it is in none.
        told: What the table is told; None if that is nothing.
    """

    op: str
    token: Mapping[str, Any]
    at: int | None
    transaction: Any
    told: Change | Letter | None


@dataclass(frozen=True)
class Rows:
    """Makes the rows and changes of one collection.

    Attributes:
        namespace: The database and the collection, for origins.
        column: Where `_id` goes too.
        before: Whether the server tells what a document was before a change.
    """

    namespace: str
    schema: TableSchema
    column: str = "id"
    before: bool = False

    @property
    def no_identity(self) -> str:
        """What is wrong with a document, or a table, whose deletes could not be told."""
        return (
            f"expected {self.column} to be the document's _id, for a delete is told by _id alone; give _id a column of "
            "its own with id=NAME and make that the table's key, or have the server tell what was deleted: "
            f"db.runCommand({{collMod: {self.namespace.partition('.')[2]!r}, "
            "changeStreamPreAndPostImages: {enabled: true}})"
        )

    def row(self, raw: bytes) -> Change | Letter:
        """A document of the snapshot."""
        try:
            document = bson.decode(raw, _STRICT)
        except BSONError as error:
            key = bson.decode(raw, _LENIENT).get("_id")
            return _letter(f"{self.namespace}/{plain(key)}", error, raw)
        return self._upsert(document, None, f"{self.namespace}/{plain(document.get('_id'))}", None, raw)

    def event(self, raw: bytes) -> Event:
        """An event of the stream."""
        broken: BSONError | None = None
        try:
            event = bson.decode(raw, _STRICT)
        except BSONError as error:
            broken, event = error, bson.decode(raw, _LENIENT)
        op, key = event["operationType"], event.get("documentKey") or {}
        time = event.get("clusterTime")
        when = f"{time.time}.{time.inc}" if isinstance(time, Timestamp) else ""
        origin = f"{self.namespace}/{plain(key.get('_id'))}@{when}"
        told = _letter(origin, broken, raw) if broken is not None else self._told(op, event, origin, raw)
        in_transaction = (str(event["lsid"].get("id")), event["txnNumber"]) if "txnNumber" in event else None
        return Event(op, event["_id"], at_of(event), in_transaction, told)

    def _told(self, op: str, event: Mapping[str, Any], origin: str, raw: bytes) -> Change | Letter | None:
        at, before = at_of(event), event.get("fullDocumentBeforeChange")
        if op in ("insert", "update", "replace") and event.get("fullDocument") is not None:
            return self._upsert(event["fullDocument"], before, origin, at, raw)
        # An update whose document was gone when the server looked for it: its delete comes later, and is true now.
        if op in ("delete", "update", "replace"):
            key = self._key(before or event["documentKey"])
            if key is None:
                reason = f"expected a delete to tell {', '.join(self.schema.key)}, found its _id alone"
                return Letter(reason, Trace(origin, raw))
            return Change("delete", key=key, at=at, origin=origin)
        if op in ("drop", "dropDatabase"):
            return Change("truncate", at=at, origin=origin)
        return None

    def _upsert(
        self, document: Mapping[str, Any], before: Mapping[str, Any] | None, origin: str, at: int | None, raw: bytes
    ) -> Change | Letter:
        row = row_of(document, self.column)
        if not self.before and self.column in self.schema.key and row.get(self.column) != row.get("_id"):
            return Letter(self.no_identity, Trace(origin, raw))
        old = self._key(before) if before else None
        return Change("upsert", row=row, key=old if old != self._key(document) else None, at=at, origin=origin)

    def _key(self, document: Mapping[str, Any]) -> dict[str, Any] | None:
        row = row_of(document, self.column)
        return {name: row[name] for name in self.schema.key} if all(name in row for name in self.schema.key) else None


def _letter(origin: str, error: BSONError, raw: bytes) -> Letter:
    return Letter(f"expected BSON with text in UTF-8, found bytes that are not ({error})", Trace(origin, raw))
