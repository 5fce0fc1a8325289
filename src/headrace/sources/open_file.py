"""One open file, read forward by whole rows: text cut at row ends, JSON as a whole, Parquet by slices.

All reading is positional (`pread`), so a file's whole state is how far it has been used, and what is at that
offset can always be read again. A block is read, cut after its last row end, and the next begins at the cut:
the cut-off piece of a row is read twice, which the page cache makes cheap and which needs no buffer. A row
longer than a block is searched through block by block and then read in one piece, if it is within the limit;
past it only its length is known.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl

from headrace.sources.base import Skipped
from headrace.sources.file_url import FileUrl
from headrace.sources.framing import BOM, first_row_end, inside_after, last_row_end

EDGE = 256  # bytes at each end of what has been read that a mark covers
RAW = 4096  # bytes kept of what is skipped
SLICE_ROWS = 8192, 262_144  # the first and the largest slice of a Parquet file


@dataclass(frozen=True)
class Place:
    """How far a file has been used, and what tells that it is still the same file.

    Attributes:
        offset: The bytes before it are used.
        inode: The file's number, by which a renamed file is found.
        mark: A checksum of the first and the last bytes before `offset`.
        row: If not None, only this many rows of those bytes are used (Parquet).
    """

    offset: int = 0
    inode: int = 0
    mark: str = ""
    row: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a position."""
        value: dict[str, Any] = {"offset": self.offset, "inode": self.inode, "mark": self.mark}
        return value if self.row is None else value | {"row": self.row}


@dataclass(frozen=True)
class Piece:
    """What one step through a file gives: rows as bytes or as a frame, or something skipped."""

    data: bytes = b""
    frame: pl.DataFrame | None = None
    skipped: tuple[Skipped, ...] = field(default=())


class OpenFile(Protocol):
    """A file that is open; `close` it."""

    offset: int
    row: int | None

    def next(self, end: int, *, final: bool) -> Piece | None:
        """The next rows before byte `end`, or None if there is no whole one.

        Args:
            end: The file's size.
            final: Whether no more bytes will come, so that a last row without a newline is whole.
        """
        ...


class Handle:
    """A file's descriptor, and what has been read of it."""

    def __init__(self, path: str, url: FileUrl) -> None:
        self.path = path
        self.whole = url.format in ("json", "parquet")
        self._url = url
        # Unbuffered, and a file object rather than a bare descriptor: one that is forgotten is still closed.
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - `close` is the reader's
        self.inode = os.fstat(self._file.fileno()).st_ino
        self._reading = self._start(0, None)

    def _start(self, offset: int, row: int | None) -> OpenFile:
        fd, url = self._file.fileno(), self._url
        if url.format == "parquet":
            return ParquetFile(fd, self.path, url, offset, row)
        if url.format == "json":
            return JsonFile(fd, self.path, url, offset)
        return TextFile(fd, self.path, url, offset)

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._file.fileno()).st_size

    def place(self) -> Place:
        """How far it has been read."""
        offset = self._reading.offset
        return Place(offset, self.inode, mark(self._file.fileno(), offset), self._reading.row)

    def matches(self, place: Place) -> bool:
        """Whether this is the file of that place, with nothing before its offset changed."""
        size = self.size
        if size < place.offset or (self.whole and size != place.offset):
            return False
        return place.mark == mark(self._file.fileno(), place.offset)

    def stands_at(self, place: Place) -> bool:
        """Whether exactly so much of it has been read."""
        return (self._reading.offset, self._reading.row) == (place.offset, place.row)

    def seek(self, place: Place) -> None:
        """Go on from a place."""
        self._reading = self._start(place.offset, place.row)

    def next(self, end: int, *, final: bool) -> Piece | None:
        """See `OpenFile.next`."""
        return self._reading.next(end, final=final)

    def close(self) -> None:
        """Let go of the descriptor."""
        self._file.close()


class TextFile:
    """NDJSON and CSV: blocks cut at row ends; a CSV chunk is given the header, to decode on its own."""

    row: int | None = None

    def __init__(self, fd: int, path: str, url: FileUrl, offset: int) -> None:
        self.offset = offset
        self._fd, self._path, self._url = fd, path, url
        self._quoted = url.format == "csv"
        self._header = None if self._quoted else b""
        # No row ends between `offset` and `_scanned`; `_inside` says whether `_scanned` is inside quotes.
        # While a long row is being written, only what is new of it is searched.
        self._scanned = offset
        self._inside = False

    def next(self, end: int, *, final: bool) -> Piece | None:
        """See `OpenFile.next`."""
        if self._header is None:
            found = _header(self._fd, min(end, self._url.max_row))
            if found is None:
                return self._no_header(end, final)
            self._header, start = found
            self.offset = self._scanned = max(self.offset, start)
        start = self.offset
        if end < self._scanned:  # cut short and filled again behind the offset: search it anew
            self._scanned, self._inside = start, False
        taken = self._rows(end, final)
        if taken is None:
            return None
        if isinstance(taken, Skipped):
            return Piece(skipped=(taken,))
        if self._header:
            return Piece(self._header + taken)
        return Piece(taken.removeprefix(BOM) if start == 0 else taken)

    def _no_header(self, end: int, final: bool) -> Piece | None:
        """A CSV file without a whole header row: there are no rows yet, or never can be."""
        start, limit = self.offset, self._url.max_row
        if end >= limit and end > start:
            self.offset = end
            reason = f"the header row of a CSV file is longer than {limit} bytes"
            return Piece(skipped=(_skipped(self._fd, self._path, reason, start, end),))
        if final:
            self.offset = end
        return None

    def _rows(self, end: int, final: bool) -> bytes | Skipped | None:
        while self._scanned < end:
            block = os.pread(self._fd, min(self._url.chunk, end - self._scanned), self._scanned)
            if not block:
                return None  # it has been cut short meanwhile; the next look at it says so
            long_row = self._scanned > self.offset
            row_end = first_row_end if long_row else last_row_end
            cut = row_end(block, quoted=self._quoted, inside=self._inside)
            if final and not long_row and self._scanned + len(block) >= end:
                cut = len(block)
            if cut:
                return self._take(self._scanned + cut, None if long_row else block[:cut])
            self._inside = self._quoted and inside_after(block, inside=self._inside)
            self._scanned += len(block)
        return self._take(end, None) if final and self.offset < end else None

    def _take(self, stop: int, data: bytes | None) -> bytes | Skipped:
        start, limit = self.offset, self._url.max_row
        if stop - start > limit:
            reason = f"a row of {stop - start} bytes is longer than max_row, {limit} bytes"
            taken: bytes | Skipped = _skipped(self._fd, self._path, reason, start, stop)
        else:
            taken = os.pread(self._fd, stop - start, start) if data is None else data
        self.offset = self._scanned = stop
        self._inside = False
        return taken


class JsonFile:
    """A JSON array or object has no rows that can be cut without parsing: the whole file is one piece."""

    row: int | None = None

    def __init__(self, fd: int, path: str, url: FileUrl, offset: int) -> None:
        self.offset = offset
        self._fd, self._path, self._limit = fd, path, url.max_row

    def next(self, end: int, *, final: bool) -> Piece | None:
        """See `OpenFile.next`."""
        if self.offset >= end:
            return None
        if end > self._limit:
            self.offset = end
            reason = f"a JSON file of {end} bytes is longer than max_row, {self._limit} bytes; use NDJSON"
            return Piece(skipped=(_skipped(self._fd, self._path, reason, 0, end),))
        data = os.pread(self._fd, end, 0).removeprefix(BOM)
        text = data.strip()
        # While it is followed, one that is not closed is still being written.
        if not final and not (text.endswith(b"]") if text.startswith(b"[") else text.endswith(b"}")):
            return None
        self.offset = end
        return Piece(data) if text else None


class ParquetFile:
    """Slices of rows, read by Polars, which decodes only the row groups that a slice touches."""

    def __init__(self, fd: int, path: str, url: FileUrl, offset: int, row: int | None) -> None:
        self.offset, self.row = offset, row
        self._fd, self._path, self._chunk = fd, path, url.chunk
        self._inode = os.fstat(fd).st_ino
        self._rows: int | None = None
        self._step = 0

    def next(self, end: int, *, final: bool) -> Piece | None:
        """See `OpenFile.next`."""
        if self.offset >= end and self.row is None:
            return None
        # The footer is written last: without it the file is not finished.
        if not final and os.pread(self._fd, 4, max(end - 4, 0)) != b"PAR1":
            return None
        row = self.row or 0
        try:
            # Polars opens it by its name, which may be another file's by now.
            if not self._still_there():
                return self._give_up(f"deleted or replaced before it was read from row {row} on", end)
            frame = self._slice(row, end)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            return self._give_up(f"not a Parquet file that can be read, from row {row} on: {error}", end)
        done = row + frame.height
        self.offset, self.row = end, None if done >= (self._rows or 0) else done
        return Piece(frame=frame) if frame.height else None

    def _still_there(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            return False

    def _give_up(self, reason: str, end: int) -> Piece:
        self.offset, self.row = end, None
        return Piece(skipped=(_skipped(self._fd, self._path, reason, 0, end),))

    def _slice(self, row: int, size: int) -> pl.DataFrame:
        lazy = pl.scan_parquet(self._path, glob=False, hive_partitioning=False)
        if self._rows is None:
            self._rows = int(lazy.select(pl.len()).collect().item())
            # Compressed bytes are the first guess at a row's size; after that, what a row took in memory.
            self._step = min(SLICE_ROWS[0], self._chunk * max(self._rows, 1) // max(size, 1))
        frame = lazy.slice(row, max(self._step, 1)).collect()
        if frame.height:
            each = max(int(frame.estimated_size()) // frame.height, 1)
            self._step = min(SLICE_ROWS[1], self._chunk // each)
        elif row < self._rows:
            raise pl.exceptions.ComputeError(f"expected {self._rows} rows, found {row}")
        return frame


def mark(fd: int, offset: int) -> str:
    """A checksum of the first and the last bytes before an offset, by which a file is known again.

    An inode number is given to the next file as soon as one is deleted, and a file that was emptied and
    filled again keeps its own, so neither it nor the size can tell; the content can.
    """
    first = os.pread(fd, min(EDGE, offset), 0)
    last = os.pread(fd, min(EDGE, offset), max(offset - EDGE, 0))
    return f"{zlib.crc32(last, zlib.crc32(first)):08x}"


def _header(fd: int, end: int) -> tuple[bytes, int] | None:
    """The first row that is not blank, without a byte order mark, and its end; None if it has none yet."""
    size = 1 << 16
    while True:
        block = os.pread(fd, min(size, end), 0)
        start = len(BOM) if block.startswith(BOM) else 0
        start = len(block) - len(block[start:].lstrip(b"\r\n"))
        length = first_row_end(block[start:], quoted=True)
        if length:
            return block[start : start + length], start + length
        if size >= end:
            return None
        size *= 4


def _skipped(fd: int, path: str, reason: str, start: int, end: int) -> Skipped:
    return Skipped(reason, os.pread(fd, min(RAW, end - start), start), path, start, end)
