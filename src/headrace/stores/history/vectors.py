"""Vectors as the cache of embeddings has them, read from beside the app."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace.stores.history.reading import Reading

Vector = npt.NDArray[np.float32]
_FORMAT = 1
_QUERY = (
    "SELECT vector FROM entries JOIN vectors ON vectors.id = entries.id JOIN models ON models.id = entries.model "
    "WHERE entries.hash = ? AND models.name = ?"
)


class StoredVectors:
    """The vectors that are there; closed by leaving its `with` block. Nothing is marked as used by reading it here.

    Args:
        path: The cache's database; if there is none, no vector is there.

    Raises:
        StorageError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._reading = Reading(path, _FORMAT, "the embedding cache") if path.is_file() else None

    def get(self, hash: bytes, embedder: str) -> Vector | None:
        """The vector of what has this hash, by this embedder; None if it is not there."""
        if self._reading is None:
            return None
        with self._reading.moment() as run:
            row = run.execute(_QUERY, (hash, embedder)).fetchone()
        return None if row is None else np.frombuffer(row[0], dtype=np.float32)

    def __enter__(self) -> StoredVectors:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reading is not None:
            self._reading.close()
