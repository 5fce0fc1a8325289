"""The exact index in memory: the contract, and BM25 as it is written down."""

from __future__ import annotations

import math
import uuid
from contextlib import closing

import numpy as np
import pytest

from headrace.errors import ClosedError, ConfigError
from headrace.stores.vectors.base import Point, Query, Terms
from headrace.stores.vectors.memory import MemoryVectors
from headrace.stores.vectors.postings import Postings
from headrace.testing.vector_data import COLUMNS, DIMENSION, point, unit
from headrace.testing.vectors import VectorIndexContract


class TestMemory(VectorIndexContract):
    durable = False

    def make(self) -> MemoryVectors:
        return MemoryVectors()


def test_the_url_takes_nothing_more() -> None:
    with pytest.raises(ConfigError, match="takes nothing more"):
        MemoryVectors("memory://elsewhere")


def test_a_closed_index_says_so() -> None:
    index = MemoryVectors().open("a", DIMENSION, COLUMNS)
    index.close()
    with pytest.raises(ClosedError):
        index.search(Query(1, unit(1)))


def test_scores_are_bm25_over_the_live_points() -> None:
    """Three points, one of which goes: the frequencies are those of the two that are left."""

    def terms(**weights: float) -> Terms:
        return Terms(np.array([ord(word) for word in weights], np.uint32), np.array(list(weights.values()), np.float32))

    with closing(MemoryVectors().open("a", DIMENSION, COLUMNS)) as index:
        points = [point(n) for n in range(3)]
        texts = [terms(a=1.5, b=1.0), terms(a=0.5), terms(a=2.0, b=3.0)]
        index.write([type(one)(one.id, one.vector, text, {}) for one, text in zip(points, texts, strict=True)], [])
        index.write([], [points[2].id])
        found = dict(index.search(Query(5, terms=terms(a=1.0, b=2.0))).sparse)
    a, b = math.log(1 + 0.5 / 2.5), math.log(1 + 1.5 / 1.5)
    assert found == pytest.approx({points[0].id: 1.5 * a + 2.0 * b, points[1].id: 0.5 * a})


def test_lists_are_written_anew_when_half_is_stale() -> None:
    """So they do not grow with the number of writes."""
    with closing(MemoryVectors().open("a", DIMENSION, COLUMNS)) as index:
        for turn in range(400):
            index.write([point(n, "mill river", unit(n, turn)) for n in range(5)], [])
        postings: Postings = index._open()._postings
        assert max(len(one.slots) for one in postings._lists.values()) < 200
        assert len(index._open()._stamps) <= 64


def test_words_stay_counted_when_many_points_go_at_once():
    """Taking points away one list at a time must not forget a list before all of its points are counted."""
    index = MemoryVectors("memory:").open("many", 4, {})
    vector = np.array([1, 0, 0, 0], dtype=np.float32)
    everywhere = Terms(np.array([7], dtype=np.uint32), np.array([1.0], dtype=np.float32))
    points = [Point(str(uuid.UUID(int=n)), vector, everywhere, {"document": str(n), "text": ""}) for n in range(400)]
    index.write(points, [])
    index.write([], [point.id for point in points[:399]])
    index.write(points[:10], [])
    assert len(index.search(Query(20, None, everywhere)).sparse) == 11
