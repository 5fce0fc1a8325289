"""One segment file of the push log: batches of records, each batch whole or torn.

    file   = magic(8) marker(8) batch*
    batch  = marker(8) first position(8) count(4) length of the rest(8) checksum(8)  entry{count} body{count}
    entry  = received(8) length(8) checksum(8)
    body   = length of the name(2) stream name, frame (Arrow IPC)

The theory: a batch is written by one commit and the next is begun only when this one has been synced. So after a
crash, bytes that are no batch can stand only behind the last whole one: a torn tail that nobody was told is stored,
to be cut. Bytes that are no batch *before* a whole one are damage to what was promised, and never cut. The two are told
apart by looking for the marker, 8 random bytes drawn for each file, so that no user's data can pass for a batch.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl

from headrace.errors import StorageError
from headrace.stores import disk
from headrace.stores.frames import checksum, decode_frame, encode_frame

MAGIC = b"HRLOG\x00\x00\x01"
SUFFIX = ".log"
_FILE = struct.Struct("<8s8s")
_BATCH = struct.Struct("<8sQIQQ")
_ENTRY = struct.Struct("<qQQ")
_NAME = struct.Struct("<H")


@dataclass(frozen=True)
class Entry:
    """One record as bytes, made outside every lock."""

    received: int
    name: bytes
    payload: memoryview
    checksum: int

    @classmethod
    def of(cls, stream: str, frame: pl.DataFrame, received: int) -> Entry:
        """Serialise a record."""
        text = stream.encode()
        name = _NAME.pack(len(text)) + text
        payload = encode_frame(frame)
        return cls(received, name, payload, checksum(name, payload))

    @property
    def size(self) -> int:
        """The bytes it takes in the file, its share of the batch's header left out."""
        return _ENTRY.size + len(self.name) + len(self.payload)


@dataclass(frozen=True)
class Batch:
    """A whole batch read back: where it stands and its bodies, not yet decoded."""

    offset: int
    end: int
    first: int
    bodies: list[tuple[int, bytes]]


class BadBatchError(Exception):
    """What stands at `offset` is not a whole batch."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def encode_batch(marker: bytes, first: int, entries: Sequence[Entry]) -> bytes:
    """The bytes of a batch whose first record has position `first`."""
    table = b"".join(_ENTRY.pack(e.received, len(e.name) + len(e.payload), e.checksum) for e in entries)
    length = sum(e.size for e in entries)
    seal = checksum(_BATCH.pack(marker, first, len(entries), length, 0), table)
    parts: list[bytes | memoryview] = [_BATCH.pack(marker, first, len(entries), length, seal), table]
    for entry in entries:
        parts += (entry.name, entry.payload)
    return b"".join(parts)


def stream_of(body: bytes) -> str:
    """The stream's name of a body whose checksum was right."""
    (length,) = _NAME.unpack_from(body)
    return body[_NAME.size : _NAME.size + length].decode()


def decode_body(body: bytes) -> tuple[str, pl.DataFrame]:
    """Stream name and frame of a body whose checksum was right."""
    (length,) = _NAME.unpack_from(body)
    start = _NAME.size + length
    return body[_NAME.size : start].decode(), decode_frame(memoryview(body)[start:])


def read_batches(file: BinaryIO, marker: bytes, size: int, offset: int = _FILE.size) -> Iterator[Batch]:
    """The batches from `offset` up to `size`, one at a time in memory.

    Raises:
        BadBatchError: Something else than a whole batch was met.
    """
    while offset < size:
        batch = _read_batch(file, marker, size, offset)
        yield batch
        offset = batch.end


def _read_batch(file: BinaryIO, marker: bytes, size: int, offset: int) -> Batch:
    file.seek(offset)
    head = file.read(_BATCH.size)
    if len(head) < _BATCH.size or head[:8] != marker:
        raise BadBatchError(offset, "expected the start of a batch")
    _, first, count, length, seal = _BATCH.unpack(head)
    # Lengths are believed only within the file: a damaged one must not ask for all of the memory.
    if offset + _BATCH.size + length > size or count * _ENTRY.size > length:
        raise BadBatchError(offset, f"expected {length:,} more bytes, found the end of the file")
    table = file.read(count * _ENTRY.size)
    if checksum(_BATCH.pack(marker, first, count, length, 0), table) != seal:
        raise BadBatchError(offset, "the checksum of a batch is wrong")
    bodies = []
    for received, body_length, body_seal in _ENTRY.iter_unpack(table):
        body = file.read(body_length)
        if len(body) < body_length or checksum(body) != body_seal:
            raise BadBatchError(offset, "the checksum of a record is wrong")
        bodies.append((received, body))
    return Batch(offset, offset + _BATCH.size + length, first, bodies)


def damaged(path: Path, offset: int, reason: str) -> StorageError:
    """The error for damage to what had been stored."""
    return StorageError(
        f"the push log is damaged: {path} at byte {offset:,}: {reason}. This is no unfinished write, so nothing "
        f"is cut: restore {path.parent.parent} from a backup, or move it away to start without what it holds"
    )


def expect(path: Path, batch: Batch, position: int) -> None:
    """Raise a `StorageError` unless the batch begins with `position`."""
    if batch.first != position:
        raise damaged(path, batch.offset, f"expected position {position}, found {batch.first}")


def open_marker(file: BinaryIO, path: Path) -> bytes:
    """The marker of an open segment."""
    head = file.read(_FILE.size)
    if len(head) < _FILE.size or head[:8] != MAGIC:
        raise damaged(path, 0, f"expected a log file to begin with {MAGIC!r}, found {head[:8]!r}")
    return head[8:]


def create(folder: Path, first: int) -> Path:
    """A new, empty segment, named by the position of the record that it will begin with."""
    path = folder / f"{first:020d}{SUFFIX}"

    def fill(file: BinaryIO) -> None:
        file.write(MAGIC + secrets.token_bytes(8))

    disk.write_whole(path, fill)
    return path


def recover(path: Path, sync: Callable[[int], None]) -> tuple[int, int]:
    """Find the end of the last segment, and cut a torn tail.

    Returns:
        The position that comes next, and the file's size.

    Raises:
        StorageError: Damage that is not a torn tail.
    """
    position = int(path.stem)
    try:
        with path.open("r+b") as file:
            marker = open_marker(file, path)
            size, end = path.stat().st_size, _FILE.size
            try:
                for batch in read_batches(file, marker, size):
                    expect(path, batch, position)
                    position += len(batch.bodies)
                    end = batch.end
            except BadBatchError as bad:
                if _whole_batch_after(file, marker, size, bad.offset):
                    raise damaged(path, bad.offset, bad.reason) from None
                file.truncate(end)
            # The last batch may have been written by a process that died before its sync returned: it is stored from
            # now on, so it has to be durable before anything is built on it.
            sync(file.fileno())
    except OSError as error:
        raise disk.storage_error(error, f"cannot read the push log {path}") from error
    return position, end


def _whole_batch_after(file: BinaryIO, marker: bytes, size: int, offset: int) -> bool:
    file.seek(offset + 1)
    rest = file.read()
    at = rest.find(marker)
    while at >= 0:
        try:
            _read_batch(file, marker, size, offset + 1 + at)
        except BadBatchError:
            at = rest.find(marker, at + 1)
        else:
            return True
    return False


class Writer:
    """The open end of the last segment. Used by one thread.

    Args:
        sync: Returns once what was written is durable; `disk.sync` but for tests of a failing disk.
    """

    def __init__(self, path: Path, end: int, sync: Callable[[int], None]) -> None:
        self.path = path
        self.end = end
        self._sync = sync
        self._descriptor = os.open(path, os.O_RDWR)
        self.marker = os.pread(self._descriptor, _FILE.size, 0)[8:]

    def write(self, data: bytes) -> None:
        """Write behind the last good batch, not yet durably. On an `OSError` call `cut`."""
        rest, offset = memoryview(data), self.end
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[written:], offset + written

    def cut(self) -> None:
        """Take back what `write` left unfinished."""
        os.ftruncate(self._descriptor, self.end)

    def commit(self, length: int) -> None:
        """Make the `length` bytes that `write` wrote durable."""
        self._sync(self._descriptor)
        self.end += length

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)
