"""Qdrant Edge's own terms: shards, points, and conditions as its filters.

A filter of Edge's says true or not true; a condition of ours can also be unknown (see `filters`). So each is translated
twice, to what makes it true and to what makes it false, and a negation swaps the two.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from headrace.document import Column
from headrace.errors import StorageError
from headrace.filters import All, Any_, Compare, Filter, IsNull, Not, OneOf
from headrace.stores.vectors.wire import Batch, hashed

DENSE, WORDS = "dense", "words"
# No shard is indexed but by a builder.
_NEVER_KB = 1 << 40
_INDEX_KB = 1_000
_PAGE = 1_000
_EVERYTHING = edge.Filter(must=[])
_NOTHING = edge.Filter(must_not=[_EVERYTHING])
_BOUND = {"lt": "lt", "le": "lte", "gt": "gt", "ge": "gte"}


def config(dimension: int, *, indexed: bool) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(dimension, edge.Distance.Dot)},
        sparse_vectors={WORDS: edge.EdgeSparseVectorParams()},
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=1, indexing_threshold=_INDEX_KB if indexed else _NEVER_KB
        ),
        hnsw_config=edge.HnswIndexConfig(16, 128, _INDEX_KB, max_indexing_threads=1),
        max_search_threads=1,
    )


def made(path: Path, dimension: int, columns: Mapping[str, Column], *, indexed: bool = False) -> edge.EdgeShard:
    """A new shard in a directory that is not there yet.

    Raises:
        StorageError: It cannot be made.
    """
    kinds = edge.PayloadSchemaType
    try:
        path.mkdir(parents=True)
        shard = edge.EdgeShard.create(str(path), config(dimension, indexed=indexed))
        for name, column in columns.items():
            kind = kinds.Float if column.type == "float" else kinds.Integer
            shard.update(edge.UpdateOperation.create_field_index(name, kind))
    except Exception as error:
        raise StorageError(f"Qdrant Edge cannot make a shard in {path}: {error}") from error
    return shard


def loaded(path: Path) -> edge.EdgeShard:
    """A shard that is there.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        return edge.EdgeShard.load(str(path))
    except Exception as error:
        raise StorageError(f"Qdrant Edge cannot read {path} ({error}); drop the index, and it is built anew") from error


def update(shard: edge.EdgeShard, operation: edge.UpdateOperation) -> None:
    """A write, which the shard's own log keeps.

    Raises:
        StorageError: It was not written.
    """
    try:
        shard.update(operation)
    except Exception as error:
        raise StorageError(f"Qdrant Edge did not write: {error}") from error


def put(shard: edge.EdgeShard, batch: Batch) -> None:
    points = []
    for n, one in enumerate(batch.ids):
        vectors: dict[str, Any] = {DENSE: batch.vectors[n].tolist()}
        if len(batch.words[n]):
            vectors[WORDS] = edge.SparseVector(batch.words[n].tolist(), batch.weights[n].tolist())
        points.append(edge.Point(uuid.UUID(bytes=one), vectors, batch.payloads[n]))
    if points:
        update(shard, edge.UpdateOperation.upsert_points(points))


def delete(shard: edge.EdgeShard, ids: Iterable[bytes]) -> None:
    gone: list[Any] = [uuid.UUID(bytes=one) for one in ids]
    if gone:
        update(shard, edge.UpdateOperation.delete_points(gone))


def records(shard: edge.EdgeShard, vectors: list[str], *, payload: bool = False) -> Iterator[list[Any]]:
    """All points, a page at a time."""
    offset: Any = None
    while True:
        page, offset = shard.scroll(
            edge.ScrollRequest(offset=offset, limit=_PAGE, with_vector=vectors, with_payload=payload)
        )
        if page:
            yield page
        if offset is None:
            return


def nearest(shard: edge.EdgeShard, query: Any, using: str, k: int, where: Any) -> list[tuple[bytes, float]]:
    request = edge.QueryRequest(k, query=edge.Query.Nearest(query, using=using), filter=where)
    return [(one.id.bytes, one.score) for one in shard.query(request) if isinstance(one.id, uuid.UUID)]


def translated(where: Filter, columns: Mapping[str, Column]) -> edge.Filter:
    """What makes a condition true, as a filter."""
    return _true(where, columns)


def _true(where: Filter, columns: Mapping[str, Column]) -> edge.Filter:
    match where:
        case Compare(name, op, value):
            return edge.Filter(must=[_comparison(name, op, value, columns[name])])
        case OneOf(name, values):
            return _one_of(name, list(values), columns[name])
        case IsNull(name):
            return edge.Filter(must=[edge.IsEmptyCondition(name)])
        case Not(part):
            return _false(part, columns)
        case All(parts):
            return edge.Filter(must=[_true(part, columns) for part in parts])
        case Any_(parts):
            return edge.Filter(should=[_true(part, columns) for part in parts]) if parts else _NOTHING


def _false(where: Filter, columns: Mapping[str, Column]) -> edge.Filter:
    match where:
        case Compare(name, op, value):
            return _known_but(name, edge.Filter(must=[_comparison(name, op, value, columns[name])]), columns[name])
        case OneOf(name, values):
            return _known_but(name, _one_of(name, list(values), columns[name]), columns[name])
        case IsNull(name):
            return edge.Filter(must_not=[edge.IsEmptyCondition(name)])
        case Not(part):
            return _true(part, columns)
        case All(parts):
            return edge.Filter(should=[_false(part, columns) for part in parts]) if parts else _NOTHING
        case Any_(parts):
            return edge.Filter(must=[_false(part, columns) for part in parts])


def _known_but(name: str, condition: edge.Filter, column: Column) -> edge.Filter:
    """Where it does not hold; of single values only where there is one."""
    empty = [] if column.many else [edge.IsEmptyCondition(name)]
    return edge.Filter(must_not=[condition, *empty])


def _comparison(name: str, op: str, value: Any, column: Column) -> Any:
    if op in _BOUND:
        return edge.FieldCondition(name, range=edge.RangeFloat(**{_BOUND[op]: value}))
    same = _same(name, value, column)
    return same if op == "eq" else _known_but(name, edge.Filter(must=[same]), column)


def _same(name: str, value: Any, column: Column) -> Any:
    if column.type == "float":
        return edge.FieldCondition(name, range=edge.RangeFloat(gte=value, lte=value))
    return edge.FieldCondition(name, match=edge.MatchValue(hashed(value)))


def _one_of(name: str, values: list[Any], column: Column) -> edge.Filter:
    if not values:
        return _NOTHING
    if column.type == "float":
        return edge.Filter(should=[_same(name, value, column) for value in values])
    return edge.Filter(must=[edge.FieldCondition(name, match=edge.MatchAny([hashed(value) for value in values]))])
