"""Qdrant Edge in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.stores.vectors.edge import EdgeVectors
from headrace.testing.vector_data import COLUMNS, DIMENSION
from headrace.testing.vectors import VectorIndexContract


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeVectors]:
    """A store whose process goes on from test to test, since an index in it is open."""
    store = EdgeVectors("edge:", path=tmp_path_factory.mktemp("edge"))
    kept = store.open("kept", DIMENSION, COLUMNS)
    yield store
    kept.close()


class TestEdge(VectorIndexContract):
    @pytest.fixture(autouse=True)
    def _shared(self, shared: EdgeVectors) -> None:
        self._store = shared

    def make(self) -> EdgeVectors:
        return self._store
