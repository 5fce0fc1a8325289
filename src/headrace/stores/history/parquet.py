"""Rows to Parquet files in bounded memory: a file a part, a part no larger than fits.

The same rows in the same order make the same parts and, with one version of Polars, the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from headrace.errors import StorageError
from headrace.stores import disk
from headrace.stores.history.folder import Folder, WrittenFile

MOST_ROWS = 16_384
MOST_BYTES = 32 << 20
PATTERN = "part-*.parquet"


class Parts:
    """Collects rows and writes them as `part-00000.parquet`, `part-00001.parquet`, …

    Args:
        folder: Where to.
        schema: The columns, in order.
    """

    def __init__(self, folder: Folder, schema: Mapping[str, Any]) -> None:
        self.files: list[WrittenFile] = []
        self.rows = 0
        self._folder = folder
        self._schema = pl.Schema(schema)
        self._held: list[tuple[Any, ...]] = []
        self._size = 0

    def add(self, row: Mapping[str, Any], size: int) -> None:
        """A row; `size` is about how many bytes it takes."""
        self._held.append(tuple(row.get(name) for name in self._schema))
        self._size += size
        self.rows += 1
        if len(self._held) >= MOST_ROWS or self._size >= MOST_BYTES:
            self._flush()

    def finish(self) -> Sequence[WrittenFile]:
        """Writes what is held; without any row, one file that has the columns."""
        if self._held or not self.files:
            self._flush()
        return self.files

    def _flush(self) -> None:
        columns = zip(*self._held, strict=True) if self._held else ([] for _ in self._schema)
        frame = pl.DataFrame(
            [
                pl.Series(name, list(values), dtype)
                for (name, dtype), values in zip(self._schema.items(), columns, strict=True)
            ]
        )
        name = f"part-{len(self.files):05}.parquet"
        path = self._folder.path / name
        try:
            frame.write_parquet(path, compression="zstd", statistics=True, row_group_size=MOST_ROWS)
        except OSError as error:
            raise disk.storage_error(error, f"cannot write {path}") from error
        except pl.exceptions.PolarsError as error:
            raise StorageError(f"cannot write {path}: {error}") from error
        self.files.append(self._folder.written(name, frame.height))
        self._held, self._size = [], 0


def scan(path: Path) -> pl.LazyFrame:
    """The rows of all parts, in order."""
    return pl.scan_parquet(path / PATTERN, glob=True)


def content(files: Sequence[WrittenFile]) -> str:
    """One SHA-256 for all: equal for snapshots that hold the same."""
    return hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()
