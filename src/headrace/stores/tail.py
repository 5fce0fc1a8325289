"""Reading the push log as it grows, beside the engine: from any position, each record once, in order.

A record is written in a batch, and the log's position passes it only once the batch is durable. So a reader that stays
behind that position meets whole batches only, without a lock: it keeps the file open and remembers where it stands. At
a segment's end the next one is named by the position that comes next.

Without a data directory there are no files: `KeptLog` holds the records in memory until they are let go of.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from headrace.errors import StorageError
from headrace.stores import disk, segment
from headrace.stores.datadir import Layout
from headrace.stores.log import FileLog, MemoryLog, PushLog, Record
from headrace.stores.segment import BadBatchError


class KeptLog(MemoryLog):
    """A push log in memory that keeps its records until `truncate`."""

    def __init__(self, deliver: Callable[[Record], None]) -> None:
        super().__init__(self._keep)
        self._hand_on = deliver
        self._records: deque[Record] = deque()
        self._kept = threading.Lock()

    @property
    def first(self) -> int:
        """The position of the oldest record that is kept."""
        with self._kept:
            return self._records[0].position if self._records else self.position + 1

    def _keep(self, record: Record) -> None:
        with self._kept:
            self._records.append(record)
        self._hand_on(record)

    def replay(self, after: int) -> Iterator[Record]:
        """The records past `after` that are kept."""
        with self._kept:
            return iter([one for one in self._records if one.position > after])

    def truncate(self, upto: int) -> None:
        """Lets go of the records up to `upto`."""
        with self._kept:
            while self._records and self._records[0].position <= upto:
                self._records.popleft()


def push_log(layout: Layout | None, deliver: Callable[[Record], None], *, kept: bool) -> PushLog:
    """A data directory's push log; or one in memory, which keeps its records if somebody reads beside the engine."""
    if layout is not None:
        return FileLog(layout.log, deliver)
    return KeptLog(deliver) if kept else MemoryLog(deliver)


class LogTail:
    """A reading of the push log that goes on; for one thread.

    Args:
        log: The log.
        folder: Its folder; None for one in memory.
        after: Where to go on: the position of the last record that was read.
    """

    def __init__(self, log: PushLog, folder: Path | None, after: int) -> None:
        self._log, self._folder = log, folder
        self._file: BinaryIO | None = None
        self._path = Path()
        self._marker = b""
        self._offset = 0
        self._begins = 0  # the position of the record that the batch at the offset begins with
        self.position = after
        self.missing = 0  # records that were let go of before they were read

    def read(self, stream: str, most_rows: int) -> list[Record]:
        """The next records of a stream, about so many rows of them; nothing if there are none now.

        `position` is that of the last record that was passed, of whichever stream.

        Raises:
            StorageError: The log cannot be read, or is damaged.
        """
        if self._folder is None:
            return self._from_memory(stream, most_rows)
        found: list[Record] = []
        rows = 0
        upto = self._log.position
        try:
            while self.position < upto and rows < most_rows:
                for record in self._batch(stream):
                    found.append(record)
                    rows += record.frame.height
        except BadBatchError as bad:
            raise segment.damaged(self._path, bad.offset, bad.reason) from None
        except OSError as error:
            raise disk.storage_error(error, f"cannot read {self._path}") from error
        return found

    def close(self) -> None:
        """Gives the file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _from_memory(self, stream: str, most_rows: int) -> list[Record]:
        found: list[Record] = []
        rows = 0
        for record in self._log.replay(self.position):
            self.position = record.position
            if record.stream == stream:
                found.append(record)
                rows += record.frame.height
                if rows >= most_rows:
                    break
        return found

    def _batch(self, stream: str) -> list[Record]:
        """The next batch's records of a stream; the batch is whole, since the log's position is past it."""
        if self._file is None:
            self._find()
        assert self._file is not None
        assert self._folder is not None
        if self._offset >= self._size():
            self._open(self._folder / f"{self._begins:020d}{segment.SUFFIX}")
        batch = next(segment.read_batches(self._file, self._marker, self._size(), self._offset))
        segment.expect(self._path, batch, self._begins)
        self._offset, self._begins = batch.end, batch.first + len(batch.bodies)
        found = []
        for position, (received, body) in enumerate(batch.bodies, batch.first):
            if position > self.position and segment.stream_of(body) == stream:
                found.append(Record(position, stream, received, segment.decode_body(body)[1]))
        self.position = max(self.position, self._begins - 1)
        return found

    def _size(self) -> int:
        assert self._file is not None
        return os.fstat(self._file.fileno()).st_size

    def _find(self) -> None:
        """Opens the segment that holds the next record; the oldest one if that is gone."""
        first = self._log.first
        if self.position + 1 < first:
            self.missing += first - 1 - self.position
            self.position = first - 1
        assert self._folder is not None
        starts = sorted(int(path.stem) for path in self._folder.glob(f"*{segment.SUFFIX}"))
        fitting = [one for one in starts if one <= self.position + 1]
        if not fitting:
            raise StorageError(f"expected a segment with record {self.position + 1} in {self._folder}, found none")
        self._open(self._folder / f"{fitting[-1]:020d}{segment.SUFFIX}")

    def _open(self, path: Path) -> None:
        self.close()
        self._file = path.open("rb")
        self._path, self._begins = path, int(path.stem)
        self._marker = segment.open_marker(self._file, path)
        self._offset = self._file.tell()
