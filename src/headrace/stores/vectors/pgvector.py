"""Postgres with pgvector: `postgres://user:password@host/database?schema=headrace`.

An index is a table of points and a table of words, both written in one transaction. By meaning, an HNSW graph over
half-precision vectors is searched (cosine; `hnsw.iterative_scan`, so that a filter does not starve a search).

By words, BM25 is exact. The weights of a point are a `sparsevec`, and a query's inner product with it is the score once
the query's weights are multiplied by the inverse document frequency; the table of words counts the points that have
each. Scoring every point that has a common word would read the whole table, so the rare words go first (MaxScore:
Turtle and Flood, "Query evaluation: strategies and optimizations", 1995): what the common words could add at most is
known, and a point that has none of the rare ones is left out if that is less than the k-th best score found. A
`sparsevec` has a billion dimensions, so the hash of a word is folded into them: of 100,000 words about five pairs meet.

Measured on two cores with 50,000 points of 384 dimensions and 100 words (Zipf) each, 10 best asked: 890 points a second
are written, 256 at a time; by meaning 0.8 ms (p99 2.6), filtered to 1 % 0.4 ms and to 40 % 0.7 ms; by words 3 to 4 ms
for a question with a rare word, common ones or not (45 to 50 ms if every candidate were scored), 41 ms for common words
alone. A list of postings as a table of rows took three times the room and a hundred rows a point to write; a count of
each word by the inverted index 115 ms for five words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
from pgvector import HalfVector, SparseVector
from pgvector import Vector as FullVector
from psycopg import sql

from headrace.document import Column
from headrace.errors import ConfigError
from headrace.stores.vectors.base import Found, Point, Query, Terms, Vector
from headrace.stores.vectors.pgvector_filter import condition, payload, stored
from headrace.stores.vectors.pgvector_link import Connection, Link
from headrace.stores.vectors.pgvector_tables import DIMENSIONS, MOST_WORDS, Tables
from headrace.stores.vectors.servers import fitting

# Ids are told in pages of so many.
_PAGE = 10_000
# Points that the first look at a question's rare words may read.
_FEW = 2_000


class PgvectorStore:
    """Indexes in a Postgres.

    Args:
        url: `postgres://user:password@host:5432/database?…`.

    Raises:
        ConfigError: It is none.
    """

    remote = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._schema = Link(url).address.options.get("schema", "headrace")

    def open(self, name: str, dimension: int, columns: Mapping[str, Column]) -> PgvectorIndex:
        """The index of that name, made if it is not there.

        Raises:
            ConfigError: There is one with another dimension, or the server has no pgvector.
            StorageError: It is away.
        """
        link = Link(self._url)
        halved = link.address.choice("type", "halfvec", "vector") == "halfvec"
        if dimension > (4_000 if halved else 2_000):
            raise ConfigError(
                f"{link.shown}: expected at most 4000 dimensions with type=halfvec and 2000 with type=vector, which is "
                f"what pgvector indexes; found {dimension}"
            )
        tables = Tables(self._schema, name)
        try:
            link.run(lambda connection: tables.make(connection, dimension, columns, link.address))
        except BaseException:
            link.close()
            raise
        return PgvectorIndex(link, tables, dimension, halved, columns)


class PgvectorIndex:
    """An index in a Postgres; see the module."""

    def __init__(self, link: Link, tables: Tables, dimension: int, halved: bool, columns: Mapping[str, Column]) -> None:
        self._link = link
        self._tables = tables
        self._dimension = dimension
        self._kind: Any = HalfVector if halved else FullVector
        self._columns = dict(columns)

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, upserts: Sequence[Point], deletes: Sequence[str]) -> None:
        """Writes points and takes others away, in one transaction."""
        fitting(upserts, self._dimension, self._tables.name)
        if upserts or deletes:
            rows = list({point.id: self._row(point) for point in upserts}.values())
            heaviest = max((float(p.terms.weights.max()) for p in upserts if p.terms.weights.size), default=0.0)
            self._link.run(lambda connection: self._tables.write(connection, rows, list(deletes), heaviest))

    def _row(self, point: Point) -> tuple[Any, ...]:
        return (
            UUID(point.id),
            stored(str(point.payload.get("document", ""))),
            stored(str(point.payload.get("text", ""))),
            payload(point.payload, self._columns),
            self._kind(point.vector),
            _numbers(point.terms),
            _sparse(point.terms.ids, point.terms.weights),
        )

    # -- reading ---------------------------------------------------------------------------------------------------

    def search(self, query: Query) -> Found:
        """The best points."""
        parameters: list[Any] = []
        where = condition(query.where, self._columns, parameters) if query.where is not None else None
        return self._link.run(lambda connection: self._search(connection, query, where, parameters))

    def _search(self, on: Connection, query: Query, where: sql.Composable | None, given: list[Any]) -> Found:
        dense: list[tuple[str, float]] = []
        sparse: list[tuple[str, float]] = []
        if query.vector is not None:
            dense = self._meaning(on, query.vector, query.k, where, given)
        if query.terms is not None and len(query.terms.ids):
            sparse = self._words(on, query.terms, query.k, where, given)
        return Found(dense, sparse)

    def _meaning(
        self, on: Connection, vector: Vector, k: int, where: sql.Composable | None, given: list[Any]
    ) -> list[tuple[str, float]]:
        asked = self._kind(vector)
        rows = on.execute(self._tables.nearest(where), [asked, *given, asked, k]).fetchall()
        if len(rows) < k and where is not None:
            # The graph was left before k had passed: few pass, so all of those are compared.
            rows = on.execute(self._tables.nearest_of_few(where), [*given, asked, asked, k]).fetchall()
        return [(str(key), float(score)) for key, score in rows]

    def _words(
        self, on: Connection, terms: Terms, k: int, where: sql.Composable | None, given: list[Any]
    ) -> list[tuple[str, float]]:
        count, heaviest, known = self._tables.words(on, _numbers(terms))
        frequency = np.array([known.get(number, 0) for number in _numbers(terms)], np.float64)
        # Counts and points are written together, so no word is in more points than there are.
        weights = terms.weights * np.log1p((count - frequency + 0.5) / (frequency + 0.5))
        order = np.argsort(frequency)
        order = order[frequency[order] > 0]
        if not len(order):
            return []
        frequency, numbers = frequency[order], np.array(_numbers(terms))[order]
        asked = _sparse(terms.ids[order], weights[order])
        # What words could add at most, if all from this one on were in a point that has none of those before.
        beyond = np.append(np.cumsum((weights[order] * heaviest)[::-1])[::-1], 0.0)
        first = max(1, int(np.searchsorted(np.cumsum(frequency), _FEW, side="right")))

        def best(having: int) -> list[tuple[str, float]]:
            statement = self._tables.best(where)
            rows = on.execute(statement, [asked, numbers[:having].tolist(), *given, k]).fetchall()
            return [(str(key), float(score)) for key, score in rows]

        found = best(first)
        if first < len(order):
            floor = found[-1][1] if len(found) >= k else 0.0
            # One more look at most: this floor is already below the best k.
            needed = int(np.searchsorted(-beyond, -floor * (1 - 1e-5), side="right"))
            if needed > first:
                found = best(min(needed, len(order)))
        return found

    def ids(self) -> Iterator[str]:
        """The ids of all points, read in pages."""
        after: str | None = None
        while page := self._link.run(partial(self._tables.page, after, _PAGE)):
            yield from page
            after = page[-1]

    def drop(self) -> None:
        """Takes the tables away, and closes."""
        self._link.run(self._tables.drop)
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._link.close()


def _numbers(terms: Terms) -> list[int]:
    """Hashes of words as Postgres keeps 32 bits: signed."""
    numbers: list[int] = np.ascontiguousarray(terms.ids, dtype=np.uint32).view(np.int32).tolist()
    return numbers


def _sparse(ids: Any, weights: Any) -> SparseVector:
    """Weights under hashes that are folded into a billion; two that meet are added."""
    folded = np.asarray(ids, np.int64) % DIMENSIONS
    places, which = np.unique(folded, return_inverse=True)
    sums = np.zeros(len(places), np.float64)
    np.add.at(sums, which, np.asarray(weights, np.float64))
    if len(places) > MOST_WORDS:
        kept = np.sort(np.argpartition(-sums, MOST_WORDS)[:MOST_WORDS])
        places, sums = places[kept], sums[kept]
    return SparseVector(dict(zip(places.tolist(), sums.tolist(), strict=True)), DIMENSIONS)
