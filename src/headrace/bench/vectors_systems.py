"""What the `vectors` benchmark measures: our indexes, each in a process of its own, and its peers in this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.bench.vectors_data import COLUMNS, DIMENSION, Chunks, id_of, number_of
from headrace.stores.vectors.base import Query, Terms, VectorIndex
from headrace.stores.vectors.hosted import HostedStore

Question = npt.NDArray[np.float32]


class Ours:
    """An index of Headrace's, with words and columns."""

    def __init__(self, store: HostedStore, chunks: Chunks) -> None:
        self._store, self._chunks = store, chunks
        self.index: VectorIndex = store.open("bench", DIMENSION, COLUMNS)

    def write(self, upserts: Sequence[int], deletes: Sequence[int]) -> None:
        self.index.write(self._chunks.points(upserts), [id_of(n) for n in deletes])

    def search(self, question: Question, k: int) -> list[int]:
        return [number_of(one) for one, _ in self.index.search(Query(k, question)).dense]

    def both(self, question: Question, terms: Terms, k: int) -> None:
        """By meaning and by words, as a collection asks."""
        self.index.search(Query(k, question, terms))

    def memory(self) -> int:
        """Resident bytes of the index's process and of what it has started."""
        return resident(self._store.pid or 0)

    def close(self) -> None:
        self.index.drop()


def resident(pid: int) -> int:
    """Resident bytes of a process and its children, shared pages counted once (Linux)."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += resident(int(child))
    except OSError:  # it has ended meanwhile, or there is no such file here
        return total
    return total


class Usearch:
    """HNSW in C++ that lets other threads run; in memory, nothing is durable."""

    def __init__(self, chunks: Chunks, folder: Path) -> None:  # noqa: ARG002 - of the same kind as the others
        self._chunks = chunks
        self._index = import_module("usearch.index").Index(ndim=DIMENSION, metric="ip", dtype="f16")

    def write(self, upserts: Sequence[int], deletes: Sequence[int]) -> None:
        if len(upserts):
            numbers = np.array(upserts, np.uint64)
            self._index.add(numbers, self._chunks.vectors[list(upserts)], threads=1)
        for number in deletes:
            self._index.remove(number)

    def search(self, question: Question, k: int) -> list[int]:
        found: list[int] = self._index.search(question, k, threads=1).keys.tolist()
        return found

    def close(self) -> None:
        self._index.reset()


class Hnswlib:
    """The reference HNSW; in memory, deletes are marks."""

    def __init__(self, chunks: Chunks, folder: Path) -> None:  # noqa: ARG002 - of the same kind as the others
        self._chunks = chunks
        self._index = import_module("hnswlib").Index(space="ip", dim=DIMENSION)
        self._index.init_index(len(chunks.vectors), ef_construction=128, M=16, allow_replace_deleted=True)
        self._index.set_ef(64)
        self._index.set_num_threads(1)

    def write(self, upserts: Sequence[int], deletes: Sequence[int]) -> None:
        for number in deletes:
            self._index.mark_deleted(number)
        if len(upserts):
            self._index.add_items(self._chunks.vectors[list(upserts)], list(upserts), replace_deleted=True)

    def search(self, question: Question, k: int) -> list[int]:
        found: list[int] = self._index.knn_query(question, k)[0][0].tolist()
        return found

    def close(self) -> None:
        del self._index


class Lance:
    """LanceDB: files of columns, each write a version; searched without an index, which would be built by hand."""

    def __init__(self, chunks: Chunks, folder: Path) -> None:
        self._chunks, pa = chunks, import_module("pyarrow")
        schema = pa.schema([("number", pa.int64()), ("vector", pa.list_(pa.float32(), DIMENSION))])
        self._table = import_module("lancedb").connect(folder).create_table("bench", schema=schema)

    def write(self, upserts: Sequence[int], deletes: Sequence[int]) -> None:
        if len(upserts):
            self._table.add([{"number": n, "vector": self._chunks.vectors[n]} for n in upserts])
        if len(deletes):
            self._table.delete(f"number in ({', '.join(map(str, deletes))})")

    def search(self, question: Question, k: int) -> list[int]:
        query: Any = self._table.search(question).distance_type("dot").limit(k)
        found: list[int] = query.select(["number", "_distance"]).to_arrow()["number"].to_pylist()
        return found

    def close(self) -> None:
        del self._table


class QdrantLocal:
    """qdrant-client's local mode: exact, in Python and NumPy; not made for several threads, so here they take turns."""

    def __init__(self, chunks: Chunks, folder: Path) -> None:  # noqa: ARG002 - of the same kind as the others
        self._chunks, self._models = chunks, import_module("qdrant_client.models")
        models = self._models
        self._client = import_module("qdrant_client").QdrantClient(":memory:")
        params = models.VectorParams(size=DIMENSION, distance=models.Distance.DOT)
        self._client.create_collection("bench", vectors_config=params)
        self._turn = threading.Lock()

    def write(self, upserts: Sequence[int], deletes: Sequence[int]) -> None:
        point = self._models.PointStruct
        points = [point(id=n, vector=self._chunks.vectors[n].tolist(), payload={"year": n % 40}) for n in upserts]
        with self._turn:
            if points:
                self._client.upsert("bench", points)
            if len(deletes):
                self._client.delete("bench", points_selector=self._models.PointIdsList(points=list(deletes)))

    def search(self, question: Question, k: int) -> list[int]:
        with self._turn:
            found = self._client.query_points("bench", query=question.tolist(), limit=k, with_payload=False).points
        return [int(one.id) for one in found]

    def close(self) -> None:
        self._client.close()


# The most chunks that each is asked to bear here; more would take hours to load, or seconds a search.
PEERS: dict[str, tuple[str, Callable[[Chunks, Path], Any], int]] = {
    "usearch": ("usearch", Usearch, 50_000),
    "hnswlib": ("hnswlib", Hnswlib, 50_000),
    "LanceDB": ("lancedb", Lance, 50_000),
    "qdrant-client local": ("qdrant-client", QdrantLocal, 10_000),
}


def ours(scheme: str, folder: Path, chunks: Chunks) -> Ours:
    """An index of ours in a folder."""
    if scheme == "local":
        from headrace.stores.vectors.local import LocalVectors

        return Ours(LocalVectors("local:", path=folder), chunks)
    from headrace.stores.vectors.edge import EdgeVectors

    return Ours(EdgeVectors("edge:", path=folder), chunks)
