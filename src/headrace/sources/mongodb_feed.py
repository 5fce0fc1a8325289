"""The thread that reads a collection: all of it once, and then its changes.

The resume token is taken from a change stream that is opened before the scan begins; the stream goes on from it when
the scan has ended. So no change falls between the two, and what is told by both is harmless, for rows are absolute.

A stream ends where the collection does: it was dropped, renamed, or replaced by another one. A token can be too old
for the server's log. In both cases there may be deletes that nobody will tell, so a new snapshot is begun.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import bson
from bson import json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import OperationFailure, PyMongoError

from headrace.cdc import Change
from headrace.errors import ConfigError, StorageError, nearest
from headrace.sources.base import Letter
from headrace.sources.handover import Handover
from headrace.sources.mongodb_rows import Event, Rows
from headrace.sources.mongodb_url import MongoUrl
from headrace.sources.tables import Changes

# A document lazily decoded: its bytes are what is needed.
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
# Without what was changed within a document, an event is no larger than the document and fits a message.
_PIPELINE: list[Mapping[str, Any]] = [{"$project": {"updateDescription": 0}}]
_PIECE = 250  # documents of a scan handed over at once
_PIECE_BYTES = 2 << 20
_IDLE = 10.0  # seconds after which a new token is told without a change
_MOST_EVENTS = 100_000
_MOST_BYTES = 256 << 20
_UNAUTHORIZED, _AUTHENTICATION, _NO_REPLICA_SET, _TOO_LARGE = 13, 18, 40573, 10334
# The log was cut before the token, or the token is another server's: history lost, fatal, invalid, not found.
_LOST = {286, 280, 260, 136, 40585, 40615, 50811}

_log = logging.getLogger("headrace.mongodb")

Client = MongoClient[dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where a reading stands; without a token, before or within a snapshot.

    Attributes:
        collection: The collection's own id, as text: one that is dropped and made again has another.
        cluster: The replica set's name.
    """

    namespace: str
    token: Mapping[str, Any] | None = None
    collection: str | None = None
    cluster: str | None = None

    @classmethod
    def read(cls, position: Any, url: MongoUrl) -> Place:
        """A place from a position.

        Raises:
            ConfigError: It is not one of this source's.
        """
        if not (isinstance(position, Mapping) and position.get("mongodb") == url.namespace):
            raise ConfigError(f"expected a position of {url.name}, found {position!r}; start the table without one")
        token = position.get("token")
        if token is not None and not isinstance(token, Mapping):
            raise ConfigError(f"expected a position with a resume token of {url.name}, found {position!r}")
        found = None if token is None else json_util.loads(json.dumps(token))
        return cls(url.namespace, found, position.get("collection"), position.get("cluster"))

    def position(self) -> dict[str, Any]:
        """The place as plain JSON."""
        token = self.token
        if token is not None and not (len(token) == 1 and isinstance(token.get("_data"), str)):
            token = json.loads(json_util.dumps(token, json_options=json_util.CANONICAL_JSON_OPTIONS))
        return {
            "mongodb": self.namespace,
            "token": None if token is None else dict(token),
            "collection": self.collection,
            "cluster": self.cluster,
        }


@dataclass(frozen=True)
class Found:
    """What a server says of itself and of the collection; None for what it does not tell."""

    exists: bool | None
    id: str | None
    before: bool
    cluster: str | None


def look(client: Client, url: MongoUrl) -> Found:
    """Ask for the collection.

    Raises:
        PyMongoError: There was no answer.
        ConfigError: The server has no change streams, or the collection is a view.
    """
    hello = client.admin.command("hello")
    if not hello.get("setName") and hello.get("msg") != "isdbgrid":
        raise ConfigError(f"{url.name}: expected a replica set or a sharded cluster, {_ALONE}")
    try:
        listed = list(client[url.database].list_collections(filter={"name": url.collection}))
    except OperationFailure as error:
        if error.code != _UNAUTHORIZED:
            raise
        return Found(None, None, False, hello.get("setName"))
    if not listed:
        return Found(False, None, False, hello.get("setName"))
    if listed[0].get("type", "collection") != "collection":
        raise ConfigError(
            f"{url.name}: expected a collection, found a {listed[0]['type']}, which has no changes to tell"
        )
    images = listed[0].get("options", {}).get("changeStreamPreAndPostImages", {})
    id = listed[0].get("info", {}).get("uuid")
    return Found(True, None if id is None else bytes(id).hex(), bool(images.get("enabled")), hello.get("setName"))


_ALONE = (
    "found a server on its own, which has no change streams; start mongod with --replSet, also if it is to be the only "
    "one"
)


def check(client: Client, url: MongoUrl, rows: Rows) -> Found:
    """Look before a first reading.

    Raises:
        PyMongoError: There was no answer.
        ConfigError: It could not work.
    """
    found = look(client, url)
    if found.exists is False and url.must_exist:
        known = nearest(url.collection, client[url.database].list_collection_names())
        raise ConfigError(f"{url.name} is not there: {known}; for one that will be made later, say must_exist=false")
    if not found.before:
        if not set(rows.schema.key) <= {url.id, "_id"}:
            raise ConfigError(f"{url.name}: the table's key is {', '.join(rows.schema.key)}; {rows.no_identity}")
        first = client[url.database][url.collection].with_options(codec_options=_RAW).find_one()
        told = None if first is None else rows.row(bytes(first.raw))
        if isinstance(told, Letter) and told.reason == rows.no_identity:
            raise ConfigError(f"{url.name}: {told.reason}")
    return found


def explained(error: PyMongoError, url: MongoUrl) -> StorageError | ConfigError:
    """An error of pymongo's as one of ours, without a password: ConfigError if trying again would not help."""
    code = error.code if isinstance(error, OperationFailure) else None
    text = f"{url.name}: {url.login.hide(str(error))[:500]}"
    if code in (_AUTHENTICATION, _UNAUTHORIZED):
        return ConfigError(f"{text}; check the user, the password and authSource in the URL, and the user's roles")
    if code == _NO_REPLICA_SET:
        return ConfigError(f"{url.name}: expected a replica set or a sharded cluster, {_ALONE}")
    if code == _TOO_LARGE:
        text += "; an event is larger than a message: start the table without a position to go on behind it"
    return StorageError(text)


@dataclass
class _Transaction:
    """The events of a transaction that may have more."""

    id: Any = None
    pieces: list[tuple[Event, int]] = field(default_factory=list)
    size: int = 0


class Feed:
    """The thread; it ends with `close`, or with an error, which the one who takes is told.

    Args:
        place: Where to begin.
        handover: Where what is read goes.
        client: One that is connected already.
    """

    def __init__(
        self, url: MongoUrl, rows: Rows, place: Place, handover: Handover[Changes], client: Client | None = None
    ) -> None:
        self.place = place
        self.cluster_time = 0  # seconds since the epoch, as last heard
        self._url, self._rows, self._handover, self._client = url, rows, handover, client
        self._told = time.monotonic()
        self._fresh = False  # a snapshot was made and nothing after it was read
        self._transaction = _Transaction()
        self._thread = threading.Thread(target=self._run, name=f"headrace {url.name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still reads."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Waits for its end, after its handover was closed or it has failed; not for ever."""
        self._thread.join(self._url.wait / 1000 + 1)
        if self._thread.is_alive() and self._client is not None:
            self._client.close()  # what it waits for then fails
            self._thread.join(10)

    def _run(self) -> None:
        client = self._client or self._url.client()
        self._client = client
        failed: StorageError | None = StorageError(f"{self._url.name}: the thread that reads it has ended; see the log")
        try:
            found = look(client, self._url)
            self._rows = replace(self._rows, before=found.before)
            self._compare(found)
            with client.start_session(causal_consistency=False) as session:
                while not self._handover.closed:
                    if self.place.token is None:
                        self._snapshot(client, session)
                    else:
                        self._stream(client, session)
            failed = None
        except PyMongoError as error:
            failed = StorageError(str(explained(error, self._url)))
        except (ConfigError, StorageError) as error:
            failed = StorageError(str(error))
        finally:
            client.close()
            if failed is not None:
                self._handover.fail(failed)

    def _compare(self, found: Found) -> None:
        """A token means nothing to another collection, and its server may not say so."""
        known = self.place.collection
        if self.place.token is not None and known is not None and found.exists is not None and found.id != known:
            _log.warning("%s is another collection than the one that was read; a snapshot begins", self._url.name)
            self.place = Place(self.place.namespace)

    def _collection(self, client: Client) -> Collection[RawBSONDocument]:
        return client[self._url.database][self._url.collection].with_options(codec_options=_RAW)

    # The snapshot.

    def _snapshot(self, client: Client, session: ClientSession) -> None:
        found = look(client, self._url)
        self._rows = replace(self._rows, before=found.before)
        collection = self._collection(client)
        with collection.watch(_PIPELINE, session=session, max_await_time_ms=self._url.wait) as stream:
            token = stream.resume_token
        if token is None:
            raise StorageError(f"{self._url.name}: expected a resume token, found none; MongoDB 4.2 or later is needed")
        within, begins = self.place.position(), True
        changes: list[Change] = []
        letters: list[Letter] = []
        size = 0
        with collection.find(session=session, batch_size=1_000, no_cursor_timeout=True) as cursor:
            for document in cursor:
                told = self._rows.row(bytes(document.raw))
                (letters if isinstance(told, Letter) else changes).append(told)  # type: ignore[arg-type]
                size += len(document.raw)
                if len(changes) + len(letters) >= _PIECE or size >= _PIECE_BYTES:
                    piece = Changes(changes, within, snapshot=True, begins=begins, letters=letters)
                    if not self._handover.put(piece, len(changes) + len(letters), size):
                        return
                    changes, letters, size, begins = [], [], 0, False
        self.place = replace(self.place, token=_token(token), collection=found.id, cluster=found.cluster)
        last = Changes(changes, self.place.position(), snapshot=True, begins=begins, complete=True, letters=letters)
        self._fresh = True
        self._handover.put(last, len(changes) + len(letters), size)

    # The stream.

    def _stream(self, client: Client, session: ClientSession) -> None:
        try:
            with self._collection(client).watch(
                _PIPELINE,
                full_document="updateLookup",
                full_document_before_change="whenAvailable" if self._rows.before else None,
                resume_after=self.place.token,
                max_await_time_ms=self._url.wait,
                session=session,
            ) as stream:
                while not self._handover.closed:
                    asked = time.monotonic()
                    event = stream.try_next()
                    self._heard(session)
                    if event is None and not stream.alive:
                        self._again("the stream ended")
                        return
                    if event is None:
                        self._flush()
                        self._idle(stream.resume_token, asked)
                    elif not self._event(bytes(event.raw)):
                        return
        except OperationFailure as error:
            if not (error.code in _LOST or (error.code == 9 and "resume token" in str(error))):
                raise
            if self._fresh:
                raise StorageError(
                    f"{self._url.name}: the server's log no longer has what happened during the snapshot; make it "
                    "larger (replSetResizeOplog)"
                ) from None
            self._again(str(error.details.get("codeName") if error.details else error.code))

    def _again(self, why: str) -> None:
        """A new snapshot."""
        _log.warning("%s: %s; a snapshot begins", self._url.name, why)
        self._flush()
        self.place = Place(self.place.namespace)

    def _event(self, raw: bytes) -> bool:
        """Takes an event; False if it was the stream's last."""
        event = self._rows.event(raw)
        self._fresh = False
        if event.op == "invalidate":
            self._again("the collection was dropped or renamed")
            return False
        if event.transaction is None or event.transaction != self._transaction.id:
            self._flush()
        held = self._transaction
        held.id = event.transaction
        held.pieces.append((event, len(raw)))
        held.size += len(raw)
        if event.transaction is None:
            self._flush()
        elif len(held.pieces) >= _MOST_EVENTS or held.size >= _MOST_BYTES:
            _log.warning("%s: a transaction is too large to be told at once", self._url.name)
            self._flush()
        return True

    def _flush(self) -> None:
        """Hands over what is held, as one piece."""
        held, self._transaction = self._transaction, _Transaction()
        if not held.pieces:
            return
        told = [event.told for event, _ in held.pieces if event.told is not None]
        last = held.pieces[-1][0]
        self.place = replace(self.place, token=_token(last.token))
        piece = Changes(
            [each for each in told if isinstance(each, Change)],
            self.place.position(),
            letters=[each for each in told if isinstance(each, Letter)],
            created=last.at,
        )
        self._told = time.monotonic()
        self._handover.put(piece, len(held.pieces), held.size)

    def _idle(self, token: Mapping[str, Any] | None, asked: float) -> None:
        """Nothing came: a token that moved on is told now and then, so that a quiet collection's is not too old."""
        self._fresh = False
        found = None if token is None else _token(token)
        if found is not None and found != self.place.token and time.monotonic() - self._told >= _IDLE:
            self._told = time.monotonic()
            self.place = replace(self.place, token=found)
            self._handover.put(Changes((), self.place.position()), 0, 0)
        self._handover.quiet(asked)

    def _heard(self, session: ClientSession) -> None:
        time_heard = session.cluster_time
        if time_heard is not None:
            self.cluster_time = int(time_heard["clusterTime"].time)


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    """A token as it is kept: what the client decodes late is decoded now."""
    return bson.decode(token.raw) if isinstance(token, RawBSONDocument) else dict(token)
