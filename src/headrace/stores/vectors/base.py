"""What a vector index is: points under stable ids, found by meaning (dense) and by words (sparse).

The index is a cache of what the collection's own records say: a hit counts only if the collection knows the chunk to
be alive in the revision that is read, so an index may be behind or ahead without a reader ever seeing half a revision.
What it must do is small: keep absolute points, forget deleted ones, and answer with ids and scores. Fusion, texts and
liveness are the collection's.

`headrace.testing.vectors.VectorIndexContract` holds this as tests; a new index subclasses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from headrace.document import Column
    from headrace.filters import Filter

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Terms:
    """Words as a sparse vector.

    Attributes:
        ids: Shape (n,), uint32, ascending, each once: hashes of the words.
        weights: Shape (n,), float32. Of a chunk, the part of BM25 that its own text decides (term frequency, dampened
            and normalised by length); of a query, how often the word was asked for. The index multiplies by the inverse
            document frequency, ln(1 + (N − df + 0.5) / (df + 0.5)), over the points that it holds.
    """

    ids: npt.NDArray[np.uint32]
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Point:
    """A chunk in an index.

    Attributes:
        id: A UUID's canonical text; stable over restarts.
        vector: Shape (dimension,), float32, of length 1.
        terms: Its words.
        payload: The document's key under "document", the text under "text", and the columns to filter by.
    """

    id: str
    vector: Vector
    terms: Terms
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """A question.

    Attributes:
        k: How many of each kind are wanted.
        vector: By meaning: shape (dimension,), float32, of length 1; None for words alone.
        terms: By words; None for meaning alone.
        where: Only points whose payload passes.
    """

    k: int
    vector: Vector | None = None
    terms: Terms | None = None
    where: Filter | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What an index found, best first: ids with cosine similarities, and ids with BM25 scores greater than 0."""

    dense: Sequence[tuple[str, float]] = field(default=())
    sparse: Sequence[tuple[str, float]] = field(default=())


class VectorIndex(Protocol):
    """One index that is open. Any thread may call any method."""

    def write(self, upserts: Sequence[Point], deletes: Sequence[str]) -> None:
        """Writes points and takes others away; durable when it returns, and seen by later searches.

        Deletes of unknown ids do nothing. An id is in one of the two at most.

        Raises:
            StorageError: Not all was written; writing the same again is harmless.
        """
        ...

    def search(self, query: Query) -> Found:
        """The best points.

        Raises:
            StorageError: The index is out of reach.
        """
        ...

    def ids(self) -> Iterable[str]:
        """The ids of all points, in no order; for reconciling after a crash."""
        ...

    def drop(self) -> None:
        """Takes the whole index away, and closes it."""
        ...

    def close(self) -> None:
        """Lets go of what it holds; more than once is harmless."""
        ...


class VectorStore(Protocol):
    """Where indexes are; made from its URL, and asked for one by name."""

    @property
    def remote(self) -> bool:
        """Whether it is a server elsewhere: slower, and it may be away."""
        ...

    def open(self, name: str, dimension: int, columns: Mapping[str, Column]) -> VectorIndex:
        """The index of that name, made if it is not there.

        Args:
            name: Letters, digits, '_' and '-'.
            columns: What its points are filtered by.

        Raises:
            ConfigError: There is one with another dimension.
            StorageError: It is out of reach or damaged.
        """
        ...
