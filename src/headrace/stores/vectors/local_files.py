"""The files of a local index: a log of the writes, and now and then a checkpoint of what they add up to.

    index.json                what the index is: its dimension and its columns
    log-000000000007          writes as they came, each with a checksum, synced before it is acknowledged
    checkpoint-000000000007   the whole index as it was before that log

The index is the newest checkpoint and the logs from it on. A write that was not whole when the process died was not
acknowledged: the log ends before it. Everything else is written whole or not at all (see `disk`).
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import xxhash

from headrace.errors import ConfigError, StorageError
from headrace.stores.disk import make_directory, storage_error, sync, sync_directory, write_whole
from headrace.stores.vectors.wire import LENGTHS, MOST_BODY, MOST_HEADER, Frame, Reader

FORMAT = 1
_SUM = struct.Struct("<Q")


class Files:
    """The directory of one index; the process that has it holds a lock on what it lies in.

    Attributes:
        columns: The columns that the index was last open with: [type, whether lists] of each.
        logged: Bytes in the logs since the checkpoint.
        saved: Bytes of the checkpoint.
    """

    def __init__(self, path: Path, dimension: int, columns: dict[str, list[Any]]) -> None:
        make_directory(path)
        self.path = path
        self.columns = self._meta(dimension, columns)
        self.logged = 0
        self._number = max([1, *(number for _, number in self._numbered("log-"))])
        self._log: int | None = None
        self._end = 0
        found = self._numbered("checkpoint-")
        self._base = max((number for _, number in found), default=0)
        self.saved = self.checkpoint.stat().st_size if found else 0

    def _meta(self, dimension: int, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        path = self.path / "index.json"
        now = {"format": FORMAT, "dimension": dimension, "columns": columns}
        try:
            meta: dict[str, Any] = msgspec.json.decode(path.read_bytes()) if path.exists() else now
        except (OSError, msgspec.DecodeError) as error:
            raise StorageError(f"{path} cannot be read ({error}); drop the index, and it is built anew") from error
        if meta["format"] != FORMAT:
            raise StorageError(f"expected an index of format {FORMAT}, found {meta['format']} in {path}")
        if meta["dimension"] != dimension:
            raise ConfigError(
                f"the vector index in {self.path} holds vectors of {meta['dimension']} numbers, found an embedder of "
                f"{dimension}; use another name, or drop the index"
            )
        if not path.exists() or meta != now:
            write_whole(path, lambda file: _put(file, msgspec.json.encode(now)))
        found: dict[str, list[Any]] = meta["columns"]
        return found

    def _numbered(self, prefix: str) -> list[tuple[Path, int]]:
        found = [(path, path.name.removeprefix(prefix)) for path in self.path.glob(f"{prefix}*")]
        return sorted((path, int(number)) for path, number in found if number.isdigit())

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint; there need not be one."""
        return self._named("checkpoint-", self._base)

    def _named(self, prefix: str, number: int) -> Path:
        return self.path / f"{prefix}{number:012}"

    def replay(self) -> Iterator[Frame]:
        """The writes since the checkpoint, oldest first; then the log goes on behind the last whole one.

        Raises:
            StorageError: A log before the last one is damaged.
        """
        logs = [(path, number) for path, number in self._numbered("log-") if number >= self._base]
        for path, number in logs:
            end = 0
            for frame, end in _frames(path):  # noqa: B007 - where the last one ends
                yield frame
            size = path.stat().st_size
            if end < size:
                if number != logs[-1][1]:
                    raise StorageError(f"{path} is damaged at byte {end}; drop the index, and it is built anew")
                os.truncate(path, end)
            self.logged += end
        self._tidy()

    def append(self, frame: memoryview) -> Iterator[None]:
        """A write, durable when this ends; it yields while the disk is waited for.

        Raises:
            StorageError: It could not be written; nothing of it is kept.
        """
        total = _SUM.pack(xxhash.xxh3_64_intdigest(frame))
        if self._log is None:
            self._log, self._end = self._opened()
        try:
            for part in (frame, memoryview(total)):
                while part:
                    part = part[os.write(self._log, part) :]
            yield from _synced(self._log)
        except OSError as error:
            failed = storage_error(error, f"cannot write {self.path}", path=self.path, needed=len(frame))
            self._abandon()
            raise failed from error
        self._end += len(frame) + len(total)
        self.logged += len(frame) + len(total)

    def _opened(self) -> tuple[int, int]:
        try:
            log = os.open(self._named("log-", self._number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            sync_directory(self.path)
        except OSError as error:
            raise storage_error(error, f"cannot write {self.path}") from error
        return log, os.fstat(log).st_size

    def _abandon(self) -> None:
        """After a failed write: the log ends before it, and the next one goes into a file of its own."""
        path, end = self._named("log-", self._number), self._end
        self.rotate()
        try:
            os.truncate(path, end)
        except OSError as error:
            raise storage_error(error, f"cannot take back half a write in {path}; restart") from error

    def rotate(self) -> Path:
        """Begins another log; the name for a checkpoint of everything before it."""
        self.close()
        self._number += 1
        return self._named("checkpoint-", self._number)

    def saved_at(self, path: Path, logged: int) -> None:
        """A checkpoint is there, of all but the last `logged` bytes of the logs: what is older may go."""
        self._base = int(path.name.removeprefix("checkpoint-"))
        self.saved = path.stat().st_size
        self.logged = logged
        self._tidy()

    def _tidy(self) -> None:
        for prefix in ("log-", "checkpoint-"):
            for path, number in self._numbered(prefix):
                if number < self._base:
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of the log."""
        if self._log is not None:
            os.close(self._log)
            self._log = None


def _synced(log: int) -> Iterator[None]:
    """Waits for the disk in a thread of its own: it may take long, and there are searches to answer.

    Raises:
        OSError: The disk failed.
    """
    failed: list[OSError] = []

    def wait() -> None:
        try:
            sync(log)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=wait, name="sync")
    thread.start()
    while thread.is_alive():
        yield
    thread.join()
    if failed:
        raise failed[0]


def _put(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _frames(path: Path) -> Iterator[tuple[Frame, int]]:
    """The whole writes of a log, and where each ends."""
    place = 0
    with path.open("rb") as file:
        while len(lengths := file.read(LENGTHS.size)) == LENGTHS.size:
            head, body = LENGTHS.unpack(lengths)
            if head > MOST_HEADER or body > MOST_BODY:
                return
            data = lengths + file.read(head + body)
            total = file.read(_SUM.size)
            if len(total) < _SUM.size or _SUM.unpack(total)[0] != xxhash.xxh3_64_intdigest(data):
                return
            frame = Reader().feed(data)
            if frame is None:
                return
            place += len(data) + _SUM.size
            yield frame, place
