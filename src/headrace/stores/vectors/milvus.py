"""Milvus: `milvus://host:19530?token_env=MILVUS_TOKEN`, or `milvus:./file.db` for Milvus Lite in this process.

An index is a collection: a dense vector (cosine, the server's own choice of index), the words' weights as a sparse
vector (inner product, exact), the words again as an array, and the marks of `headrace.stores.vectors.marks` as JSON.
Milvus computes BM25 from texts of its own only, so a question's weights are multiplied here by the inverse document
frequency, from counts that Milvus gives: of the points, and of those whose array has a word. On a server the array has
an inverted index for that, and counts are kept for a while (`headrace.stores.vectors.frequencies`).

Reads are strongly consistent, so a write is seen by the next search, at the price of a server's time tick (0.2 s or so
as servers are configured); counts are as they are. A text of more than 65,535 bytes is cut there to what Milvus takes.

Milvus Lite is a small reimplementation in Python: it has no index on arrays and none on JSON, so each count and each
filter reads every point. Measured on two cores with 20,000 points of 384 dimensions and 60 words each: 3,700 points a
second written, 0.6 s a search by meaning, 1.3 s filtered, 1.6 s by words and 2 s a count. It suits some thousands of
chunks. One process may have the file open. All that is here is tested against Lite, and nothing against a server.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pymilvus import DataType, MilvusClient, MilvusException

from headrace.document import Column
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.stores.vectors.base import Found, Point, Query
from headrace.stores.vectors.frequencies import Frequencies
from headrace.stores.vectors.marks import Marked, checks, marked
from headrace.stores.vectors.milvus_filter import condition
from headrace.stores.vectors.servers import Address, Shared, cut, fitting, parse, scrubbed, slices

T = TypeVar("T")
# Of each option: what it is for.
OPTIONS = {
    "token_env": "the environment's variable that holds the token, or user:password",
    "tls": "whether to use TLS",
    "db": "the database",
    "prefix": "what collections' names begin with",
    "timeout": "how long to wait for an answer",
}
_INDEXES = {
    "dense": {"index_type": "AUTOINDEX", "metric_type": "COSINE"},
    "words": {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"},
    "terms": {"index_type": "INVERTED"},
}
_BATCH = 500
_PAGE = 1_000
_MOST_WORDS = 4_096
_MOST_TEXT = 65_535
# The largest number that a dimension may have; a point without words has it, for a vector of nothing is no vector.
_LAST = 2**32 - 2
_NOTHING = 1e-9


class MilvusStore:
    """Indexes in a Milvus.

    Args:
        url: `milvus://[user:password@]host[:port]?…`, or `milvus:./file.db`.

    Raises:
        ConfigError: It is none.
    """

    def __init__(self, url: str) -> None:
        self.remote = url.partition(":")[2].startswith("//")
        self._address = address = parse(url, OPTIONS, slashes=self.remote)
        if not self.remote and not address.path.endswith(".db"):
            raise ConfigError(
                f"expected milvus://host:19530 or a file such as milvus:./chunks.db, found {address.shown}"
            )
        credentials = f"{address.user}:{address.password}" if address.password else address.user
        self._token = address.secret("token_env", "MILVUS_TOKEN") or credentials
        self._tls = address.flag("tls", default=False)
        self._timeout = address.seconds("timeout", "10s")
        self._prefix = address.options.get("prefix", "headrace_")
        self._shared = Shared(self._connect, lambda client: client.close())

    def _connect(self) -> _Client:
        address = self._address
        if self.remote:
            scheme = "https" if self._tls else "http"
            uri = f"{scheme}://{address.host or 'localhost'}:{address.port or 19530}"
        else:
            file = Path(address.path).resolve()
            file.parent.mkdir(parents=True, exist_ok=True)
            uri = str(file)
        try:
            client = MilvusClient(
                uri=uri, token=self._token or "", db_name=address.options.get("db", ""), timeout=self._timeout
            )
        except MilvusException as error:
            raise _told(error, address, self._token) from error
        return _Client(client, address, self._token, self._timeout, None if self.remote else uri)

    def open(self, name: str, dimension: int, columns: Mapping[str, Column]) -> MilvusIndex:
        """The index of that name, made if it is not there.

        Raises:
            ConfigError: There is one with another dimension, or of another kind.
            StorageError: It is out of reach.
        """
        client = self._shared.take()
        try:
            # Names in Milvus have no hyphen.
            plain = name.replace("-", "_")
            known = plain if plain == name else f"{plain}_{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
            index = MilvusIndex(client, f"{self._prefix}{known}", dimension, columns, self._shared.give)
            index.make()
        except BaseException:
            self._shared.give()
            raise
        return index


class MilvusIndex:
    """A collection of a Milvus; see the module."""

    def __init__(
        self, client: _Client, name: str, dimension: int, columns: Mapping[str, Column], released: Callable[[], None]
    ) -> None:
        self._client, self._name, self._dimension = client, name, dimension
        self._columns = dict(columns)
        self._released: Callable[[], None] | None = released
        self._lock = threading.Lock()
        # Lite reads every point for each count, one after the other.
        at_once = 1 if client.lite else 8
        self._frequencies = Frequencies(lambda: self._count(None), self._count, at_once=at_once)

    def make(self) -> None:
        """Makes what is not there.

        Raises:
            ConfigError: There is one of another shape.
        """
        if not self._ask("has_collection"):
            try:
                self._create()
            except StorageError:
                # Another process may have been first.
                if not self._ask("has_collection"):
                    raise
        fields = {field["name"]: field for field in self._ask("describe_collection")["fields"]}
        if not {"id", "dense", "words", "terms", "marks"} <= set(fields):
            raise ConfigError(
                f"the Milvus collection {self._name!r} was not made by Headrace: it has the fields "
                f"{', '.join(sorted(fields))}; use another prefix= or name"
            )
        held = int(fields["dense"]["params"]["dim"])
        if held != self._dimension:
            raise ConfigError(
                f"the Milvus collection {self._name!r} holds vectors of {held} numbers, and {self._dimension} are "
                "expected; use another name, or drop the index"
            )
        self._index()
        self._ask("load_collection")

    def _create(self) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=36)
        schema.add_field("document", DataType.VARCHAR, max_length=_MOST_TEXT)
        schema.add_field("text", DataType.VARCHAR, max_length=_MOST_TEXT)
        schema.add_field("dense", DataType.FLOAT_VECTOR, dim=self._dimension)
        schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_field("terms", DataType.ARRAY, element_type=DataType.INT64, max_capacity=_MOST_WORDS)
        schema.add_field("marks", DataType.JSON)
        self._ask("create_collection", schema=schema, consistency_level="Strong")

    def _index(self) -> None:
        # One that makes a collection may end before it has made the indexes.
        known = set(self._ask("list_indexes"))
        indexes = MilvusClient.prepare_index_params()
        for field, options in _INDEXES.items():
            if field not in known and not (self._client.lite and field == "terms"):
                indexes.add_index(field, index_name=field, **options)
        if len(indexes):
            # Waiting for it is what loading does, within its time.
            self._ask("create_index", index_params=indexes, sync=False)

    def write(self, upserts: Sequence[Point], deletes: Sequence[str]) -> None:
        """Writes points and takes others away, in batches."""
        fitting(upserts, self._dimension, self._name)
        try:
            for batch in slices(list({point.id: point for point in upserts}.values()), _BATCH):
                self._ask("upsert", data=[self._row(point) for point in batch])
            for gone in slices(list(deletes), _BATCH):
                self._ask("delete", ids=list(gone))
        finally:
            self._frequencies.changed(len(upserts) + len(deletes))

    def _row(self, point: Point) -> dict[str, Any]:
        words = _sparse(point.terms.ids, point.terms.weights)
        return {
            "id": point.id,
            "document": cut(str(point.payload.get("document", "")), _MOST_TEXT),
            "text": cut(str(point.payload.get("text", "")), _MOST_TEXT),
            "dense": point.vector,
            "words": words or {_LAST: _NOTHING},
            "terms": point.terms.ids[:_MOST_WORDS].tolist(),
            "marks": _listed(marked(point.payload, self._columns)),
        }

    def search(self, query: Query) -> Found:
        """The best points."""
        tree = checks(query.where, self._columns)
        if tree is False:
            return Found()
        where = condition(tree)
        dense: list[tuple[str, float]] = []
        sparse: list[tuple[str, float]] = []
        if query.vector is not None:
            dense = self._best("dense", query.vector.tolist(), query.k, where)
        if query.terms is not None and len(query.terms.ids):
            words = _sparse(query.terms.ids, query.terms.weights * self._frequencies.rarity(query.terms))
            sparse = [one for one in self._best("words", words, query.k, where) if one[1] > 1e-6]
        return Found(dense, sparse)

    def _best(self, field: str, asked: Any, k: int, where: str) -> list[tuple[str, float]]:
        answer = self._ask("search", data=[asked], anns_field=field, limit=k, filter=where, output_fields=["id"])
        return [(str(hit["id"]), float(hit["distance"])) for hit in answer[0]]

    def _count(self, term: int | None) -> int:
        where = "" if term is None else f"array_contains(terms, {term})"
        # What is counted a moment ago is good enough, but for Lite it is as good as now.
        level = "Strong" if self._client.lite else "Bounded"
        answer = self._ask("query", filter=where, output_fields=["count(*)"], consistency_level=level)
        return int(answer[0]["count(*)"])

    def ids(self) -> Iterator[str]:
        """The ids of all points, read in pages."""
        pages = self._ask("query_iterator", batch_size=_PAGE, filter="", output_fields=["id"])
        try:
            while page := self._client.told(pages.next):
                yield from (str(row["id"]) for row in page)
        finally:
            pages.close()

    def drop(self) -> None:
        """Takes the collection away, and closes."""
        self._ask("drop_collection")
        self.close()

    def close(self) -> None:
        """Lets go of the client; the last index of a store closes it."""
        with self._lock:
            released, self._released = self._released, None
        if released is not None:
            released()

    def _ask(self, method: str, **arguments: Any) -> Any:
        if self._released is None:
            raise ClosedError(f"the index {self._name!r} is closed")
        return self._client.ask(method, self._name, **arguments)


class _Client:
    """pymilvus, with a bound on its own retries and its errors told as ours."""

    def __init__(
        self, client: MilvusClient, address: Address, token: str | None, timeout: float, lite: str | None
    ) -> None:
        self._client, self._address, self._token, self._timeout = client, address, token, timeout
        self.lite = lite

    def ask(self, method: str, name: str, **arguments: Any) -> Any:
        """What Milvus answers to a method of its client about a collection.

        Raises:
            StorageError: It does not, or refuses.
        """
        return self.told(lambda: getattr(self._client, method)(name, timeout=self._timeout, **arguments))

    def told(self, call: Callable[[], T]) -> T:
        """What a call answers, its error told as ours."""
        try:
            return call()
        except MilvusException as error:
            raise _told(error, self._address, self._token) from error

    def close(self) -> None:
        self._client.close()
        if self.lite is not None:
            with suppress(ImportError):  # an older Lite ends with its client
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(self.lite)


def _told(error: MilvusException, address: Address, token: str | None) -> StorageError:
    secrets = (token, address.password)
    text = scrubbed(Exception(error.message), *secrets)
    return StorageError(
        f"{address.shown} did not do it (code {error.code}): {text}; see that it runs and can be reached"
    )


def _sparse(ids: Any, weights: Any) -> dict[int, float]:
    return {min(int(term), _LAST): float(weight) for term, weight in zip(ids, weights, strict=True) if weight > 0}


def _listed(marks: Marked) -> Marked:
    """Marks in which every value is a list, with its ends: one way to compare serves all columns."""
    for name, value in marks["is"].items():
        if not isinstance(value, list):
            marks["is"][name] = [value]
            if not isinstance(value, str | bool):
                marks["least"][name] = marks["most"][name] = value
    return marks
