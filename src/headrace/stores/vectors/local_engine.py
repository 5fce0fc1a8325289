"""What `local:` keeps one index with: vectors in cells, words in inverted lists, columns as arrays, and a log on disk.

Everything is in memory and is searched there; the disk is for the next start. A write is appended to the log, then
taken in, a few points at a time. When the log has grown, a copy of the process writes a checkpoint: `fork` gives it the
memory as it was at that moment, and this one goes on. (Threads, which fork must not be mixed with, there are none of
then: the one that waits for the disk has ended with its write.)
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from headrace.document import Column
from headrace.filters import Filter
from headrace.stores.disk import write_whole
from headrace.stores.vectors.base import Terms, Vector
from headrace.stores.vectors.cells import Cells
from headrace.stores.vectors.columns import Columns
from headrace.stores.vectors.local_files import Files
from headrace.stores.vectors.local_image import Image, read_image, write_image
from headrace.stores.vectors.postings import Postings
from headrace.stores.vectors.wire import Batch, Frame, Ranked, unpack_write

# Points that are taken in between two looks at the sockets: about 3 ms.
SLICE = 32
# A checkpoint is written when the logs hold so much, and half of what the last one holds.
WORTH_SAVING = 64 << 20
_LOOK = 0.1
_RETRY = 60.0


class LocalEngine:
    """One index; made by `child.Server`, which calls it from one thread."""

    def __init__(self, path: Path, dimension: int, columns: dict[str, Column]) -> None:
        self._dimension = dimension
        self._files = Files(path, dimension, {name: [one.type, one.many] for name, one in columns.items()})
        self._cells = Cells(dimension)
        self._postings = Postings()
        self._columns = Columns(columns)
        self._slot: dict[bytes, int] = {}
        self._id: list[bytes] = []
        self._words: list[bytes] = []
        self._stamps: npt.NDArray[np.uint32] = np.zeros(64, np.uint32)
        self._stamp = 0
        self._free: list[int] = []
        # A checkpoint in the making: its process, its file, and how much had been logged when it began.
        self._saver: tuple[int, Path, int] | None = None
        self._not_before = 0.0
        # Values of a column that was of another type are not what is asked for now.
        self._stale = {
            name for name, kind in self._files.columns.items() if name in columns and _kind(columns[name]) != kind
        }
        self._load()

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, frame: Frame) -> Iterator[bool]:
        batch = unpack_write(frame, self._dimension)
        for _ in self._files.append(frame.whole):
            yield True
        for start in range(0, len(batch.deletes), 2 * SLICE):
            self._remove(batch.deletes[start : start + 2 * SLICE])
            yield False
        for start in range(0, len(batch.ids), SLICE):
            self._put(batch.part(start, start + SLICE))
            yield False

    def _put(self, batch: Batch) -> None:
        self._remove(batch.ids)
        slots = self._rows(len(batch.ids))
        for slot, one, words, weights in zip(slots, batch.ids, batch.words, batch.weights, strict=True):
            self._slot[one] = slot
            self._id[slot] = one
            self._words[slot] = words.tobytes() + weights.tobytes()
        stamps = np.arange(self._stamp + 1, self._stamp + 1 + len(slots), dtype=np.uint32)
        self._stamp += len(slots)
        self._stamps[slots] = stamps
        self._postings.add(batch.terms(), slots, stamps.tolist())
        self._columns.put(slots, batch.payloads)
        self._cells.add(np.array(slots, np.int32), batch.vectors)

    def _remove(self, ids: Sequence[bytes]) -> None:
        slots = [slot for one in ids if (slot := self._slot.pop(one, None)) is not None]
        if not slots:
            return
        self._stamps[slots] = 0
        self._postings.remove([self._terms_of(slot).ids for slot in slots], self._stamps)
        self._columns.clear(slots)
        self._cells.remove(slots)
        self._free += slots

    def _rows(self, count: int) -> list[int]:
        again = min(count, len(self._free))
        slots = [self._free.pop() for _ in range(again)]
        fresh = range(len(self._id), len(self._id) + count - again)
        self._id += [b""] * len(fresh)
        self._words += [b""] * len(fresh)
        if len(self._id) > len(self._stamps):
            more = max(len(self._id) - len(self._stamps), len(self._stamps))
            self._stamps = np.concatenate([self._stamps, np.zeros(more, np.uint32)])
        return slots + list(fresh)

    # -- searching -------------------------------------------------------------------------------------------------

    def search(self, k: int, vector: Vector | None, terms: Terms | None, where: Filter | None) -> tuple[Ranked, Ranked]:
        stamps = self._stamps[: len(self._id)]
        passing = None if where is None else self._columns.passing(where, len(stamps)) & (stamps > 0)
        dense: list[tuple[bytes, float]] = []
        if vector is not None:
            dense = [(self._id[slot], score) for slot, score in self._cells.search(vector, k, passing)]
        if terms is None:
            return dense, []
        view = self._postings.view(terms, len(self._slot))
        sparse = [(self._id[slot], score) for slot, score in view.best(k, stamps, passing, self._terms_of)]
        return dense, sparse

    def _terms_of(self, slot: int) -> Terms:
        data = self._words[slot]
        count = len(data) // 8
        return Terms(np.frombuffer(data, np.uint32, count), np.frombuffer(data, np.float32, count, 4 * count))

    def ids(self) -> Iterator[bytes]:
        return iter(self._slot)

    # -- keeping ---------------------------------------------------------------------------------------------------

    def background(self) -> float | None:
        if self._saver is not None:
            return _LOOK if self._saving() else None
        if self._files.logged < max(WORTH_SAVING, self._files.saved // 2):
            return None
        if time.monotonic() < self._not_before:
            return _RETRY
        self._save()
        return _LOOK

    def _save(self) -> None:
        path, logged = self._files.rotate(), self._files.logged
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self._saver = (pid, path, logged)
            return
        try:
            # The sockets: the parent must see this process's own end, not that of its copies.
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.nice(10)
            write_whole(path, self._write_image)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - nothing of the copy may run on as if it were the process
            traceback.print_exc()
        finally:
            os._exit(1)

    def _saving(self) -> bool:
        """Whether the checkpoint is still in the making; if it is done, older files go."""
        if self._saver is None:
            return False
        pid, path, logged = self._saver
        done, status = os.waitpid(pid, os.WNOHANG)
        if not done:
            return True
        self._saver = None
        if status == 0:
            self._files.saved_at(path, self._files.logged - logged)
        else:
            # It has said why; the logs are whole, so nothing is lost but time at the next start.
            self._not_before = time.monotonic() + _RETRY
        return False

    def _write_image(self, file: BinaryIO) -> None:
        centroids, members, vectors = self._cells.dump()
        slots = np.concatenate([np.empty(0, np.int32), *members])
        number = np.zeros(len(self._stamps), np.int32)
        number[slots] = np.arange(len(slots), dtype=np.int32)
        words, entries, weights = self._postings.dump(self._stamps)
        write_image(
            file,
            Image(
                centroids,
                [len(one) for one in members],
                vectors,
                [self._id[slot] for slot in slots.tolist()],
                [self._words[slot] for slot in slots.tolist()],
                words,
                [number[one] for one in entries],
                weights,
                self._columns.dump(slots),
            ),
        )

    def _load(self) -> None:
        path = self._files.checkpoint
        if path.exists():
            image = read_image(path, self._dimension)
            size = len(image.ids)
            self._cells = Cells.load(image.centroids, image.sizes, image.vectors[0])
            self._id, self._words = image.ids, image.texts
            self._slot = dict(zip(image.ids, range(size), strict=True))
            self._stamps = np.zeros(max(size, 64), np.uint32)
            self._stamps[:size] = np.arange(1, size + 1, dtype=np.uint32)
            self._stamp = size
            self._postings.load(image.words, image.entries, image.weights, self._stamps)
            self._columns.load({name: one for name, one in image.columns.items() if name not in self._stale}, size)
        for frame in self._files.replay():
            for payload in frame.header["payloads"] if self._stale else ():
                for name in self._stale & payload.keys():
                    del payload[name]
            batch = unpack_write(frame, self._dimension)
            self._remove(batch.deletes)
            if batch.ids:
                self._put(batch)

    def close(self) -> None:
        if self._saver is not None:
            os.kill(self._saver[0], signal.SIGKILL)
            os.waitpid(self._saver[0], 0)
        self._files.close()


def _kind(column: Column) -> list[object]:
    return [column.type, column.many]
