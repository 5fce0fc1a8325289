"""Qdrant: `qdrant://host:6333?api_key_env=QDRANT_API_KEY`, over HTTP; or `qdrant:///directory`, in this process.

An index is a collection with two named vectors: "dense" (cosine, HNSW) and "words" (sparse, with the modifier IDF).
Qdrant multiplies a question's weights by ln(1 + (N − df + 0.5) / (df + 0.5)), which is the formula of
`headrace.stores.vectors.base.Terms`. A server counts N and df by its segments: a point that was deleted or replaced may
count until its segment is optimised, which moves scores a little and changes no answer about which points match.

In a directory, qdrant-client's own local mode keeps everything: it speaks the same API, compares the question with
every point, and is meant for some thousands of them. That mode is what the contract is tested on; a server could not be
had for the tests. Numbers are compared as 64-bit floats where they are ordered, so an integer beyond 2^53 is compared
by its nearest float.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from headrace.document import Column
from headrace.errors import ClosedError, ConfigError, LockedError, StorageError
from headrace.stores.vectors.base import Found, Point, Query
from headrace.stores.vectors.marks import checks, marked
from headrace.stores.vectors.qdrant_filter import condition, indexes
from headrace.stores.vectors.servers import Address, Shared, fitting, parse, retried, scrubbed, slices

T = TypeVar("T")
# Of each option: what it is for.
OPTIONS = {
    "api_key_env": "the environment's variable that holds the API key",
    "tls": "whether to speak HTTPS",
    "prefix": "what collections' names begin with",
    "timeout": "how long to wait for an answer",
    "retries": "how often to ask again",
    "ef": "how many candidates a search by meaning keeps",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# A point of 384 numbers with its text is some 10 kB of JSON, and a server takes 32 MB.
_BATCH = 256
_PAGE = 1_000
_AGAIN = (408, 429, 500, 502, 503, 504)


class QdrantStore:
    """Indexes in a Qdrant.

    Args:
        url: `qdrant://[api-key@]host[:port]?…`, or `qdrant:///directory`.

    Raises:
        ConfigError: It is none.
    """

    def __init__(self, url: str) -> None:
        self._address = address = parse(url, OPTIONS)
        self.local = not address.host
        self._key = address.secret("api_key_env", "QDRANT_API_KEY") or address.password or address.user
        # A key does not leave this machine in the clear, unless it is said to.
        self._tls = address.flag("tls", default=bool(self._key) and address.host not in _LOOPBACK)
        self._timeout = address.seconds("timeout", "10s")
        self._retries = address.number("retries", 3, 0, 20)
        self._ef = address.number("ef", 128, 1, 10_000)
        self._prefix = address.options.get("prefix", "headrace_")
        self._shared = Shared(self._connect, lambda client: client.close())

    @property
    def remote(self) -> bool:
        """Whether it is a server."""
        return not self.local

    def _connect(self) -> _Client:
        return _Client(self._made(), self._address, self._key, self._timeout, self._retries + 1, self.local)

    def _made(self) -> QdrantClient:
        if self.local:
            folder = Path(unquote(self._address.path))
            try:
                folder.mkdir(parents=True, exist_ok=True)
                # Calls are made one after the other, under a lock, from any thread.
                return QdrantClient(path=str(folder), force_disable_check_same_thread=True)
            except RuntimeError as error:
                raise LockedError(
                    f"{self._address.shown} cannot be opened: {scrubbed(error)}; one process at a time may have it open"
                ) from error
            except OSError as error:
                raise StorageError(f"{self._address.shown} cannot be opened: {scrubbed(error)}") from error
        return QdrantClient(
            host=self._address.host,
            port=self._address.port or 6333,
            https=self._tls,
            headers={"api-key": self._key} if self._key else None,
            timeout=max(1, round(self._timeout)),
            check_compatibility=False,
        )

    def open(self, name: str, dimension: int, columns: Mapping[str, Column]) -> QdrantIndex:
        """The index of that name, made if it is not there.

        Raises:
            ConfigError: There is one with another dimension, or of another kind.
            StorageError: It is out of reach.
        """
        client = self._shared.take()
        try:
            index = QdrantIndex(client, f"{self._prefix}{name}", dimension, columns, self._ef, self._shared.give)
            index.make()
        except BaseException:
            self._shared.give()
            raise
        return index


class QdrantIndex:
    """A collection of a Qdrant; see the module."""

    def __init__(
        self,
        client: _Client,
        name: str,
        dimension: int,
        columns: Mapping[str, Column],
        ef: int,
        released: Callable[[], None],
    ) -> None:
        self._client, self._name, self._dimension = client, name, dimension
        self._columns = dict(columns)
        self._ef = ef
        self._released: Callable[[], None] | None = released
        self._lock = threading.Lock()

    def make(self) -> None:
        """Makes what is not there.

        Raises:
            ConfigError: There is one of another shape.
        """
        call = self._client.call
        if not call(lambda on: on.collection_exists(self._name)):
            try:
                call(self._create)
            except StorageError:
                # Another process may have been first.
                if not call(lambda on: on.collection_exists(self._name)):
                    raise
        found = call(lambda on: on.get_collection(self._name))
        dense: Any = (found.config.params.vectors or {}) if isinstance(found.config.params.vectors, dict) else {}
        if "dense" not in dense or "words" not in (found.config.params.sparse_vectors or {}):
            raise ConfigError(
                f"the Qdrant collection {self._name!r} was not made by Headrace: it has no vectors named dense and "
                "words; use another prefix= or name"
            )
        if dense["dense"].size != self._dimension:
            raise ConfigError(
                f"the Qdrant collection {self._name!r} holds vectors of {dense['dense'].size} numbers, and "
                f"{self._dimension} are expected; use another name, or drop the index"
            )
        if self._client.local:
            return
        for field, kind in indexes(self._columns).items():
            if field not in (found.payload_schema or {}):
                call(partial(self._index_payload, field, kind))

    def _create(self, on: QdrantClient) -> None:
        on.create_collection(
            self._name,
            vectors_config={"dense": models.VectorParams(size=self._dimension, distance=models.Distance.COSINE)},
            sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )

    def _index_payload(self, field: str, kind: models.PayloadSchemaType, on: QdrantClient) -> None:
        on.create_payload_index(self._name, field, kind, wait=True)

    def write(self, upserts: Sequence[Point], deletes: Sequence[str]) -> None:
        """Writes points and takes others away; each batch is applied before the next is sent."""
        fitting(upserts, self._dimension, self._name)
        for batch in slices(list({point.id: point for point in upserts}.values()), _BATCH):
            self._call(partial(self._upsert, [self._point(point) for point in batch]))
        for gone in slices(list(deletes), _PAGE):
            self._call(partial(self._delete, models.PointIdsList(points=list(gone))))

    def _upsert(self, points: list[models.PointStruct], on: QdrantClient) -> None:
        on.upsert(self._name, points, wait=True)

    def _delete(self, gone: models.PointIdsList, on: QdrantClient) -> None:
        on.delete(self._name, gone, wait=True)

    def _point(self, point: Point) -> models.PointStruct:
        words = models.SparseVector(indices=point.terms.ids.tolist(), values=point.terms.weights.tolist())
        payload = {"document": point.payload.get("document"), "text": point.payload.get("text")}
        payload |= marked(point.payload, self._columns)
        return models.PointStruct(
            id=str(uuid.UUID(point.id)), vector={"dense": point.vector.tolist(), "words": words}, payload=payload
        )

    def search(self, query: Query) -> Found:
        """The best points; both kinds in one request."""
        tree = checks(query.where, self._columns)
        asks_words = query.terms is not None and len(query.terms.ids) > 0
        if tree is False or not (query.vector is not None or asks_words):
            return Found()
        where = condition(tree)
        requests = []
        if query.vector is not None:
            # The local mode compares with every point, and would warn that it does.
            effort = None if self._client.local else models.SearchParams(hnsw_ef=max(self._ef, query.k))
            requests.append(self._request(query.vector.tolist(), "dense", query.k, where, effort))
        if asks_words and query.terms is not None:
            words = models.SparseVector(indices=query.terms.ids.tolist(), values=query.terms.weights.tolist())
            requests.append(self._request(words, "words", query.k, where, None))
        answers = [
            [(str(one.id), float(one.score)) for one in answer.points]
            for answer in self._call(lambda on: on.query_batch_points(self._name, requests))
        ]
        dense = answers.pop(0) if query.vector is not None else []
        return Found(dense, [one for one in answers[0] if one[1] > 0] if answers else [])

    @staticmethod
    def _request(
        asked: Any, using: str, k: int, where: models.Filter | None, params: models.SearchParams | None
    ) -> models.QueryRequest:
        return models.QueryRequest(query=asked, using=using, limit=k, filter=where, params=params, with_payload=False)

    def ids(self) -> Iterator[str]:
        """The ids of all points, read in pages."""
        offset: Any = None
        while True:
            page, offset = self._call(partial(self._page, offset))
            yield from (str(record.id) for record in page)
            if offset is None:
                return

    def _page(self, offset: Any, on: QdrantClient) -> tuple[list[models.Record], Any]:
        return on.scroll(self._name, limit=_PAGE, offset=offset, with_payload=False, with_vectors=False)

    def drop(self) -> None:
        """Takes the collection away, and closes."""
        self._call(lambda on: on.delete_collection(self._name))
        self.close()

    def close(self) -> None:
        """Lets go of the client; the last index of a store closes it."""
        with self._lock:
            released, self._released = self._released, None
        if released is not None:
            released()

    def _call(self, call: Callable[[QdrantClient], T]) -> T:
        if self._released is None:
            raise ClosedError(f"the index {self._name!r} is closed")
        return self._client.call(call)


class _Client:
    """qdrant-client, asked again where that helps, and with its errors told as ours."""

    def __init__(
        self, client: QdrantClient, address: Address, key: str | None, timeout: float, tries: int, local: bool
    ) -> None:
        self.local = local
        self._client, self._shown, self._key = client, address.shown, key
        self._timeout, self._tries = timeout, tries
        # The local mode is plain Python objects, which no two threads may change at once.
        self._turn: AbstractContextManager[Any] = threading.RLock() if local else nullcontext()

    def call(self, call: Callable[[QdrantClient], T]) -> T:
        """What Qdrant answers.

        Raises:
            StorageError: It does not, or refuses.
        """

        def once() -> T:
            with self._turn:
                return call(self._client)

        try:
            return retried(once, _again, self._tries, time.monotonic() + self._timeout * self._tries)
        except (UnexpectedResponse, ResponseHandlingException, ResourceExhaustedResponse, ValueError) as error:
            raise StorageError(self._told(error)) from error

    def _told(self, error: Exception) -> str:
        if isinstance(error, UnexpectedResponse):
            if error.status_code in (401, 403):
                return f"{self._shown} refused the API key; set the right one where api_key_env= says"
            return f"{self._shown} refused ({error.status_code}): {scrubbed(Exception(_text(error)), self._key)}"
        if isinstance(error, ResponseHandlingException):
            text = scrubbed(error.source, self._key)
            return f"{self._shown} cannot be reached: {text}; see that it runs and can be reached"
        return f"{self._shown} refused: {scrubbed(error, self._key)}"

    def close(self) -> None:
        with self._turn:
            self._client.close()


def _again(error: Exception) -> float | None:
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        return 0.0 if error.status_code in _AGAIN else None
    return 0.0 if isinstance(error, ResponseHandlingException) else None


def _text(error: UnexpectedResponse) -> str:
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return error.content[:200].decode(errors="replace")
