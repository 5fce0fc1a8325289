"""The directory of an `edge:` index: which shards count, and which of their points are gone.

    manifest.json       the dimension, and the shards: sealed ones, oldest first, and at the end the one that is written
    shard-000007/       a shard of Qdrant Edge
    gone-000009.log     ids that are gone from sealed shards, which are never written: 16 bytes and the shard's number
    build/              what a builder reads and writes; worth nothing after a restart

A sealed shard never changes, so a builder may read a copy that shares its files. The manifest is written whole, and
whatever it does not name is taken away.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import ConfigError, StorageError
from headrace.stores.disk import make_directory, storage_error, write_whole

FORMAT = 1
_ENTRY = struct.Struct("<16sI")


class EdgeFiles:
    """Attributes:
    shards: Their numbers; the last one is written, the others are sealed.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        make_directory(path)
        self.path = path
        self._manifest = path / "manifest.json"
        self.shards, self._gone, self._next = self._read(dimension)
        self._log: int | None = None
        self._dimension = dimension

    def _read(self, dimension: int) -> tuple[list[int], int, int]:
        if not self._manifest.exists():
            return [], 0, 1
        try:
            found = msgspec.json.decode(self._manifest.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise StorageError(f"{self._manifest} cannot be read ({error}); drop the index") from error
        if found["format"] != FORMAT:
            raise StorageError(f"expected an index of format {FORMAT}, found {found['format']} in {self.path}")
        if found["dimension"] != dimension:
            raise ConfigError(
                f"the vector index in {self.path} holds vectors of {found['dimension']} numbers, found an embedder of "
                f"{dimension}; use another name, or drop the index"
            )
        return found["shards"], found["gone"], found["next"]

    def number(self) -> int:
        """A number that no shard has had."""
        self._next += 1
        return self._next - 1

    def shard(self, number: int) -> Path:
        return self.path / f"shard-{number:06}"

    @property
    def build(self) -> Path:
        """Where a builder works."""
        return self.path / "build"

    def _gone_path(self) -> Path:
        return self.path / f"gone-{self._gone:06}.log"

    def gone(self) -> list[tuple[bytes, int]]:
        """Points that are gone, and from which shard; half an entry at the end was never acknowledged."""
        path = self._gone_path()
        data = path.read_bytes() if path.exists() else b""
        whole = len(data) // _ENTRY.size * _ENTRY.size
        if whole < len(data):
            os.truncate(path, whole)
        return list(_ENTRY.iter_unpack(data[:whole]))

    def add_gone(self, entries: Iterable[tuple[bytes, int]]) -> None:
        """Points go from sealed shards."""
        data = b"".join(_ENTRY.pack(one, shard) for one, shard in entries)
        if not data:
            return
        try:
            if self._log is None:
                self._log = os.open(self._gone_path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            end = os.fstat(self._log).st_size
            if os.write(self._log, data) != len(data):
                os.ftruncate(self._log, end)
                raise StorageError(f"{self._gone_path()} was not written whole; free some space on that disk")
        except OSError as error:
            raise storage_error(error, f"cannot write {self._gone_path()}", path=self.path) from error

    def commit(self, shards: list[int], gone: list[tuple[bytes, int]]) -> None:
        """Other shards count from now on, and these points of them are gone."""
        self.close()
        self._gone = self.number()
        data = b"".join(_ENTRY.pack(one, shard) for one, shard in gone)
        write_whole(self._gone_path(), lambda file: _put(file, data))
        now = {
            "format": FORMAT,
            "dimension": self._dimension,
            "shards": shards,
            "gone": self._gone,
            "next": self._next,
        }
        write_whole(self._manifest, lambda file: _put(file, msgspec.json.encode(now)))
        self.shards = shards
        self.tidy()

    def tidy(self) -> None:
        """Takes away what the manifest does not name."""
        named = {self.shard(number) for number in self.shards} | {self._gone_path(), self._manifest}
        for path in self.path.iterdir():
            if path not in named and path != self.build:
                _remove(path)

    def copy(self, number: int, name: str) -> Path:
        """A copy of a sealed shard, to be opened beside it: the files are shared, but for its log, which is locked."""
        source, target = self.shard(number), self.build / name
        shutil.copytree(source, target, copy_function=_linked)
        return target

    def close(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None


def _linked(source: str, target: str) -> str:
    if "/wal/" in source:
        return shutil.copy2(source, target)
    os.link(source, target)
    return target


def _put(file: Any, data: bytes) -> None:
    file.write(data)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
