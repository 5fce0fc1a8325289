"""Pinecone: `pinecone:INDEX?api_key_env=PINECONE_API_KEY`, over its HTTP API by its own client.

One dense Pinecone index with the metric dotproduct holds vectors and words (as sparse values), and each of our indexes
is a namespace of it. The Pinecone index has to be there, with the embedder's dimension. By meaning, only the dense part
is asked; by words, the dense part of the question is all zeros. Pinecone does not weigh words, so a question's weights
are multiplied here by the inverse document frequency. Pinecone cannot count either: the points with a word are counted
by asking for all that have it, and for a common word by asking among a sample of the points (a part of 1/8, 1/64, … by
a hash in the metadata), which is good to some percent.

Pinecone is eventually consistent. A write returns when a search says, by the position in its headers, that it has come
as far; where there are deletes only, whose position the client does not tell, when the points can be fetched no more.
Metadata are at most 40 KB: a text that would be too much is cut to what fits. Texts of columns and numbers that are
compared are kept as texts, ends of ranges as 64-bit floats. Of more than 1,000 words a point keeps the heaviest.

A condition such as "not tagged news" relies on `$nin` on a list meaning that no item is among the values.

Nothing of Pinecone itself can be had for tests. The contract is tested against a stand-in of the documented API.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np
import xxhash
from pinecone import Pinecone, PineconeError
from pinecone.errors import ApiError, NotFoundError, PineconeConnectionError, PineconeTimeoutError

from headrace.document import Column
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.stores.vectors.base import Found, Point, Query
from headrace.stores.vectors.frequencies import Frequencies
from headrace.stores.vectors.marks import checks
from headrace.stores.vectors.pinecone_filter import SAMPLE, condition, metadata
from headrace.stores.vectors.servers import Address, Shared, cut, fitting, parse, scrubbed, slices

T = TypeVar("T")
# Of each option: what it is for.
OPTIONS = {
    "api_key_env": "the environment's variable that holds the API key",
    "host": "the index's own host, which spares asking for it",
    "prefix": "what namespaces' names begin with",
    "timeout": "how long to wait for an answer",
    "fresh": "how long a write waits until searches see it",
}
# Pinecone's limits: of a request, of a point's metadata and words, of a page, and of an answer.
_BATCH, _REQUEST = 500, 1_800_000
_METADATA = 40_000
_MOST_WORDS = 1_000
_PAGE = 100
_DELETES = 1_000
_MOST_FOUND = 10_000
# A word that more points have is counted in a sample.
_COUNTED = 2_000
_PARTS = (1, 8, 64, 512, 4_096)


class PineconeStore:
    """Indexes in a Pinecone index.

    Args:
        url: `pinecone:INDEX?…`.

    Raises:
        ConfigError: It is none, or there is no key.
    """

    remote = True

    def __init__(self, url: str) -> None:
        self._address = address = parse(url, OPTIONS, slashes=False)
        self._index = address.path.strip("/")
        if not self._index:
            raise ConfigError("expected pinecone:INDEX, the name of a Pinecone index, found no name")
        self._key = address.secret("api_key_env", "PINECONE_API_KEY")
        if not self._key:
            raise ConfigError(
                f"{address.shown}: expected an API key; set PINECONE_API_KEY, or name another with api_key_env="
            )
        self._timeout = address.seconds("timeout", "10s")
        self._fresh = address.seconds("fresh", "20s")
        self._prefix = address.options.get("prefix", "")
        self._shared = Shared(self._connect, lambda client: client.close())

    def _connect(self) -> _Client:
        try:
            pinecone = Pinecone(api_key=self._key, timeout=self._timeout)
            try:
                index = pinecone.index(name=self._index, host=self._address.options.get("host", ""))
            finally:
                pinecone.close()
        except (PineconeError, ValueError) as error:
            raise _told(error, self._address, self._key) from error
        return _Client(index, self._address, self._key)

    def open(self, name: str, dimension: int, columns: Mapping[str, Column]) -> PineconeIndex:
        """The index of that name; a namespace is made by its first point.

        Raises:
            ConfigError: The Pinecone index has another dimension or metric.
            StorageError: It is out of reach.
        """
        client = self._shared.take()
        try:
            stats = client.call(lambda on: on.describe_index_stats())
            if stats.dimension != dimension:
                raise ConfigError(
                    f"{self._address.shown} holds vectors of {stats.dimension} numbers, and {dimension} are expected; "
                    "use a Pinecone index of that dimension"
                )
            if stats.metric not in (None, "dotproduct"):
                raise ConfigError(
                    f"{self._address.shown}: expected an index with the metric dotproduct, which words need, found "
                    f"{stats.metric}"
                )
            return PineconeIndex(client, f"{self._prefix}{name}", dimension, columns, self._fresh, self._shared.give)
        except BaseException:
            self._shared.give()
            raise


class PineconeIndex:
    """A namespace of a Pinecone index; see the module."""

    def __init__(
        self,
        client: _Client,
        name: str,
        dimension: int,
        columns: Mapping[str, Column],
        fresh: float,
        released: Callable[[], None],
    ) -> None:
        self._client, self._name, self._dimension, self._fresh = client, name, dimension, fresh
        self._columns = dict(columns)
        self._released: Callable[[], None] | None = released
        self._lock = threading.Lock()
        self._frequencies = Frequencies(self._total, self._count, seconds=60)

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, upserts: Sequence[Point], deletes: Sequence[str]) -> None:
        """Writes points and takes others away, and waits until searches have come as far."""
        fitting(upserts, self._dimension, self._name)
        deadline = time.monotonic() + self._fresh
        try:
            # What is deleted first is behind the position of what is written then.
            for gone in slices(list(deletes), _DELETES):
                self._delete(list(gone))
            if not upserts:
                for gone in slices(list(deletes), _PAGE):
                    self._until(partial(self._gone, gone), deadline)
                return
            for batch in self._batches({point.id: point for point in upserts}.values()):
                position = self._upsert(batch)
            done = partial(self._holds, batch[-1]) if position is None else partial(self._come_to, position)
            self._until(done, deadline)
        finally:
            self._frequencies.changed(len(upserts) + len(deletes))

    def _upsert(self, batch: list[dict[str, Any]]) -> int | None:
        info = self._call(lambda on: on.upsert(vectors=batch, namespace=self._name)).response_info
        return None if info is None else info.lsn_committed

    def _delete(self, ids: list[str]) -> None:
        # There is no namespace before its first point.
        with suppress(_MissingError):
            self._call(lambda on: on.delete(ids=ids, namespace=self._name))

    def _batches(self, points: Any) -> Iterator[list[dict[str, Any]]]:
        batch: list[dict[str, Any]] = []
        size = 0
        for point in points:
            row = self._row(point)
            heavy = len(msgspec.json.encode(row))
            if batch and (len(batch) == _BATCH or size + heavy > _REQUEST):
                yield batch
                batch, size = [], 0
            batch.append(row)
            size += heavy
        if batch:
            yield batch

    def _row(self, point: Point) -> dict[str, Any]:
        known = metadata(point.payload, self._columns)
        known[SAMPLE] = _sample(point.id)
        known["document"] = cut(str(point.payload.get("document", "")), 2_000)
        room = _METADATA - len(msgspec.json.encode(known))
        known["text"] = _fitted(str(point.payload.get("text", "")), room)
        row: dict[str, Any] = {"id": point.id, "values": point.vector.tolist(), "metadata": known}
        words = _sparse(point.terms.ids, point.terms.weights)
        return row | {"sparse_values": words} if words["indices"] else row

    def _until(self, done: Callable[[], bool], deadline: float) -> None:
        """Asks until it is so: Pinecone tells nobody when it is."""
        breath = 0.02
        while not done():
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{self._client.shown}: what was written was not seen by a search within {self._fresh:g} s; it may "
                    "be written again, or fresh= made longer"
                )
            time.sleep(breath)
            breath = min(breath * 1.5, 0.5)

    def _come_to(self, position: int) -> bool:
        reached = self._ask(1, vector=[1.0] * self._dimension).response_info
        return reached is None or reached.lsn_reconciled is None or reached.lsn_reconciled >= position

    def _holds(self, row: dict[str, Any]) -> bool:
        held = self._fetched([row["id"]]).get(row["id"])
        return held is not None and np.allclose(held.values, row["values"], atol=1e-6)

    def _gone(self, ids: Sequence[str]) -> bool:
        return not self._fetched(ids)

    def _fetched(self, ids: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = self._call(lambda on: on.fetch(ids=list(ids), namespace=self._name)).vectors
        return found

    # -- reading ---------------------------------------------------------------------------------------------------

    def search(self, query: Query) -> Found:
        """The best points."""
        tree = checks(query.where, self._columns)
        if tree is False:
            return Found()
        where, k = condition(tree), min(query.k, _MOST_FOUND)
        dense: list[tuple[str, float]] = []
        sparse: list[tuple[str, float]] = []
        if query.vector is not None:
            dense = _scored(self._ask(k, vector=query.vector.tolist(), filter=where))
        if query.terms is not None and len(query.terms.ids):
            words = _sparse(query.terms.ids, query.terms.weights * self._frequencies.rarity(query.terms))
            sparse = [one for one in _scored(self._ask(k, sparse_vector=words, filter=where)) if one[1] > 0]
        return Found(dense, sparse)

    def _ask(self, k: int, vector: list[float] | None = None, **more: Any) -> Any:
        asked = [0.0] * self._dimension if vector is None else vector
        return self._call(lambda on: on.query(top_k=k, vector=asked, namespace=self._name, **more))

    def _total(self) -> int:
        stats = self._call(lambda on: on.describe_index_stats())
        summary = stats.namespaces.get(self._name)
        return 0 if summary is None else int(summary.vector_count)

    def _count(self, term: int) -> int:
        """In how many points a word is; of a common one about."""
        words = {"indices": [term], "values": [1.0]}
        for part in _PARTS:
            where = None if part == 1 else {SAMPLE: {"$lt": _PARTS[-1] // part}}
            found = (
                sum(score > 0 for _, score in _scored(self._ask(_COUNTED, sparse_vector=words, filter=where))) * part
            )
            if found < _COUNTED * part:
                break
        return found

    def ids(self) -> Iterator[str]:
        """The ids of all points, read in pages."""
        token: str | None = None
        while True:
            try:
                page = self._call(partial(self._page, token))
            except _MissingError:
                return
            yield from (str(one.id) for one in page.vectors)
            token = page.pagination.next if page.pagination else None
            if not token:
                return

    def _page(self, token: str | None, on: Any) -> Any:
        return on.list_paginated(namespace=self._name, limit=_PAGE, pagination_token=token)

    def drop(self) -> None:
        """Takes the namespace away, and closes."""
        with suppress(_MissingError):
            self._call(lambda on: on.delete_namespace(name=self._name))
        self.close()

    def close(self) -> None:
        """Lets go of the client; the last index of a store closes it."""
        with self._lock:
            released, self._released = self._released, None
        if released is not None:
            released()

    def _call(self, call: Callable[[Any], T]) -> T:
        if self._released is None:
            raise ClosedError(f"the index {self._name!r} is closed")
        return self._client.call(call)


class _MissingError(StorageError):
    """There is no such namespace."""


class _Client:
    """Pinecone's client, which asks again by itself, with its errors told as ours."""

    def __init__(self, index: Any, address: Address, key: str | None) -> None:
        self._index, self._address, self._key = index, address, key
        self.shown = address.shown

    def call(self, call: Callable[[Any], T]) -> T:
        """What Pinecone answers.

        Raises:
            StorageError: It does not, or refuses.
        """
        try:
            return call(self._index)
        except PineconeError as error:
            raise _told(error, self._address, self._key) from error

    def close(self) -> None:
        self._index.close()


def _told(error: Exception, address: Address, key: str | None) -> StorageError:
    text = scrubbed(error, key)
    if isinstance(error, NotFoundError):
        return _MissingError(f"{address.shown} is not there: {text}")
    if isinstance(error, ApiError) and error.status_code in (401, 403):
        return StorageError(f"{address.shown} refused the API key; set the right one where api_key_env= says")
    if isinstance(error, PineconeConnectionError | PineconeTimeoutError):
        return StorageError(f"{address.shown} cannot be reached: {text}; see that it can be, and try again")
    return StorageError(f"{address.shown} refused: {text}")


def _scored(answer: Any) -> list[tuple[str, float]]:
    return [(str(match.id), float(match.score)) for match in answer.matches]


def _sparse(ids: Any, weights: Any) -> dict[str, list[Any]]:
    ids, weights = np.asarray(ids), np.asarray(weights)
    if len(ids) > _MOST_WORDS:
        heaviest = np.sort(np.argpartition(-weights, _MOST_WORDS)[:_MOST_WORDS])
        ids, weights = ids[heaviest], weights[heaviest]
    present = weights > 0
    return {"indices": ids[present].tolist(), "values": weights[present].astype(float).tolist()}


def _sample(point: str) -> int:
    return xxhash.xxh32_intdigest(point.encode()) % _PARTS[-1]


def _fitted(text: str, room: int) -> str:
    """The beginning that fits when it is written as JSON, where a letter may need several bytes."""
    text = cut(text, max(room, 0))
    while text and (over := len(msgspec.json.encode(text)) - 2 - room) > 0:
        text = cut(text, max(len(text.encode()) - max(over // 6, 1), 0))
    return text
