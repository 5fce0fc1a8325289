"""The index of one's own in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.stores.vectors.local import LocalVectors
from headrace.testing.vector_data import COLUMNS, DIMENSION
from headrace.testing.vectors import VectorIndexContract


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVectors]:
    """A store whose process goes on from test to test, since an index in it is open."""
    store = LocalVectors("local:", path=tmp_path_factory.mktemp("local"))
    kept = store.open("kept", DIMENSION, COLUMNS)
    yield store
    kept.close()


class TestLocal(VectorIndexContract):
    @pytest.fixture(autouse=True)
    def _shared(self, shared: LocalVectors) -> None:
        self._store = shared

    def make(self) -> LocalVectors:
        return self._store
