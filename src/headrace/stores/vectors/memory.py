"""The index in memory: exact, and gone with the process. The other indexes are compared with it.

Every search compares the question with every vector, in one matrix product that lets other threads run. Vectors lie
in the rows of one growing matrix. A point that is written again gets a new row, so a row never changes while a search
reads it; the row of a point that went is used again when no search that began before is still under way.

Good for tests, and for up to some 100,000 chunks: 10 ms a search at 384 dimensions.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.errors import ClosedError, ConfigError
from headrace.filters import Filter, predicate
from headrace.stores.vectors.base import Found, Point, Query
from headrace.stores.vectors.postings import Postings, Stamps, View

if TYPE_CHECKING:
    from headrace.document import Column

Scores = npt.NDArray[np.float32]
_FIRST = 64


class MemoryVectors:
    """`memory:`; an index that is closed and opened again, by this object, holds what it held."""

    remote = False

    def __init__(self, url: str = "memory:", **_: Any) -> None:
        if url not in ("memory", "memory:", "memory://"):
            raise ConfigError(f'the vector index "memory:" takes nothing more, found {url!r}')
        self._lock = threading.Lock()
        self._held: dict[str, _Points] = {}

    def open(self, name: str, dimension: int, columns: Mapping[str, Column]) -> MemoryIndex:  # noqa: ARG002 - rows are tested one by one
        with self._lock:
            points = self._held.setdefault(name, _Points(dimension))
        if points.dimension != dimension:
            raise ConfigError(
                f"the vector index {name!r} holds vectors of {points.dimension} numbers, found an embedder of "
                f"{dimension}; use another name, or drop the index"
            )
        return MemoryIndex(points, lambda: self._drop(name, points))

    def _drop(self, name: str, points: _Points) -> None:
        with self._lock:
            if self._held.get(name) is points:
                del self._held[name]


class MemoryIndex:
    """One index that is open."""

    def __init__(self, points: _Points, dropped: Callable[[], None]) -> None:
        self._points: _Points | None = points
        self._dropped = dropped

    def _open(self) -> _Points:
        points = self._points
        if points is None:
            raise ClosedError("the vector index has been closed; open it again")
        return points

    def write(self, upserts: Sequence[Point], deletes: Sequence[str]) -> None:
        self._open().write(upserts, deletes)

    def search(self, query: Query) -> Found:
        return self._open().search(query)

    def ids(self) -> Iterable[str]:
        return self._open().ids()

    def drop(self) -> None:
        if self._points is not None:
            self._dropped()
        self.close()

    def close(self) -> None:
        self._points = None


class _Points:
    """The rows: a stamp of 0 is a row that nothing lives in."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = threading.Lock()
        self._vectors = np.zeros((_FIRST, dimension), np.float32)
        self._stamps: Stamps = np.zeros(_FIRST, np.uint32)
        self._held: list[Point | None] = [None] * _FIRST
        self._slot: dict[str, int] = {}
        self._postings = Postings()
        self._used = 0
        self._stamp = 0
        # Rows are used again once every search that began before they were left has ended.
        self._free: list[int] = []
        self._left: deque[tuple[int, list[int]]] = deque()
        self._searches: dict[int, int] = {}
        self._turn = 0

    def write(self, upserts: Sequence[Point], deletes: Sequence[str]) -> None:
        for point in upserts:
            if point.vector.shape != (self.dimension,):
                raise ConfigError(
                    f"expected vectors of {self.dimension} numbers, found the shape {point.vector.shape}; "
                    "the index was made for another embedder"
                )
        latest = {point.id: point for point in upserts}
        with self._lock:
            self._remove([*latest, *deletes])
            self._add(list(latest.values()))

    def _remove(self, ids: Sequence[str]) -> None:
        slots = [slot for one in ids if (slot := self._slot.pop(one, None)) is not None]
        if not slots:
            return
        self._stamps[slots] = 0
        gone = [point.terms.ids for slot in slots if (point := self._held[slot]) is not None]
        self._postings.remove(gone, self._stamps)
        self._turn += 1
        self._left.append((self._turn, slots))

    def _add(self, points: Sequence[Point]) -> None:
        slots = self._rows(len(points))
        stamps = range(self._stamp + 1, self._stamp + 1 + len(points))
        self._stamp += len(points)
        for slot, point in zip(slots, points, strict=True):
            self._vectors[slot] = point.vector
            self._held[slot] = point
            self._slot[point.id] = slot
        self._stamps[slots] = np.fromiter(stamps, np.uint32, len(points))
        self._postings.add([point.terms for point in points], slots, stamps)

    def _rows(self, count: int) -> list[int]:
        oldest = min(self._searches.values(), default=self._turn + 1)
        while self._left and self._left[0][0] <= oldest:
            self._free += self._left.popleft()[1]
        again = min(count, len(self._free))
        slots = [self._free.pop() for _ in range(again)]
        fresh = range(self._used, self._used + count - again)
        self._used = fresh.stop
        size = len(self._stamps)
        if self._used > size:
            more = max(size, self._used - size)
            # New arrays: a search goes on reading the old ones.
            self._vectors = np.concatenate([self._vectors, np.zeros((more, self.dimension), np.float32)])
            self._stamps = np.concatenate([self._stamps, np.zeros(more, np.uint32)])
            self._held = [*self._held, *[None] * more]
        return slots + list(fresh)

    def search(self, query: Query) -> Found:
        with self._lock:
            search = object()
            self._searches[id(search)] = self._turn
            used, vectors, held = self._used, self._vectors, self._held
            stamps = self._stamps[:used].copy()
            view = self._postings.view(query.terms, len(self._slot)) if query.terms is not None else None
        try:
            return _found(query, vectors[:used], held, stamps, view)
        finally:
            with self._lock:
                del self._searches[id(search)]

    def ids(self) -> list[str]:
        with self._lock:
            return list(self._slot)


def _found(query: Query, vectors: Scores, held: Sequence[Point | None], stamps: Stamps, view: View | None) -> Found:
    live = stamps > 0
    dense: list[tuple[str, float]] = []
    sparse: list[tuple[str, float]] = []
    if query.vector is not None:
        dense = _best(vectors @ query.vector, live, held, query.k, query.where)
    if view is not None:
        scores = view.scores(stamps)
        sparse = _best(scores, live & (scores > 0), held, query.k, query.where)
    return Found(dense, sparse)


def _best(
    scores: Scores, among: npt.NDArray[np.bool_], held: Sequence[Point | None], k: int, where: Filter | None
) -> list[tuple[str, float]]:
    """The k best, tested by the filter in the order of their scores and no further than needed."""
    slots = np.flatnonzero(among)
    passing = predicate(where) if where is not None else None
    found: list[tuple[str, float]] = []
    take = k
    while len(found) < k and len(slots):
        top = slots
        if len(slots) > take:
            cut = np.argpartition(-scores[slots], take - 1)
            top, slots = slots[cut[:take]], slots[cut[take:]]
        else:
            slots = slots[:0]
        for slot in top[np.argsort(-scores[top], kind="stable")].tolist():
            point = held[slot]
            if point is not None and (passing is None or passing(point.payload) is True):
                found.append((point.id, float(scores[slot])))
        take *= 4
    return found[:k]
