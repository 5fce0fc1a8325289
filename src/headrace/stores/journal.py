"""Checkpoints as journalled changes: each one writes the rows that changed, and compaction keeps the whole small.

The theory is that of a log-structured merge tree with one level: a checkpoint is a *delta*, a small file of rows; all
deltas folded in order (a row replaces the older one with the same identity, then expired tiles are dropped) are the
state. Folding is associative, so any first part of the sequence may be replaced by its fold, the *base*. A base is made
when the deltas have outgrown it: each byte is then rewritten once per doubling, never once per checkpoint.

`000000000007.delta` is the seventh checkpoint; `000000000007.base` is the fold of the first seven. Loading takes the
newest base and the deltas numbered above it. Files are written whole or not at all, and a base's sources are deleted
only once it is durable: whatever moment a crash takes, what is left loads to the same state.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ClosedError, StorageError
from headrace.stores import disk
from headrace.stores.checkpoint import Checkpoint, Part, fold, read_checkpoint, write_checkpoint

__all__ = ["Checkpoint", "Journal", "Part"]

_LOG = logging.getLogger(__name__)
_MIN_DELTAS = 8
# So many small files make a slow start, even if they are less than the base.
_MAX_DELTAS = 256


@dataclass(frozen=True)
class _File:
    number: int
    path: Path
    size: int


class Journal:
    """The checkpoints in one folder.

    Args:
        folder: Made if it is not there. The caller holds the data directory's lock.

    Raises:
        StorageError: The folder cannot be used, or a checkpoint in the middle is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        disk.make_directory(folder)
        self._lock = threading.Lock()  # the lists of files
        self._appending = threading.Lock()
        self._merging = threading.Lock()  # held by whoever reads the files, so that none is deleted under it
        self._base, self._deltas = _scan(folder)
        self._number = self._deltas[-1].number if self._deltas else self._base.number if self._base else 0
        self._compaction: threading.Thread | None = None
        self._closed = False
        # After a compaction that failed, the count of deltas at which it is tried again.
        self._retry_at = 0

    def load(self) -> Checkpoint | None:
        """All checkpoints folded into one, or None before the first.

        Raises:
            StorageError: A file is damaged.
        """
        with self._merging:
            base, deltas = self._files()
            return _fold_files(base, deltas)

    def append(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, durably.

        Raises:
            StorageError: It could not be written and is not part of the journal: the next one must hold its changes
                too.
            ClosedError: The journal is closed.
        """
        with self._appending:
            if self._closed:
                raise ClosedError("the journal is closed: open the app again to take checkpoints")
            number = self._number + 1
            path = self._folder / f"{number:012d}.delta"
            size = write_checkpoint(path, checkpoint)
            with self._lock:
                self._number = number
                self._deltas.append(_File(number, path, size))
            if self._due():
                self._compaction = threading.Thread(
                    target=self._compact_behind, name="headrace-compaction", daemon=True
                )
                self._compaction.start()

    def close(self) -> None:
        """Refuse further checkpoints and wait for a running compaction."""
        with self._appending:
            self._closed = True
        if self._compaction is not None:
            self._compaction.join()

    def _files(self) -> tuple[_File | None, list[_File]]:
        with self._lock:
            return self._base, list(self._deltas)

    def _due(self) -> bool:
        if self._compaction is not None and self._compaction.is_alive():
            return False
        base, deltas = self._files()
        if len(deltas) < max(_MIN_DELTAS, self._retry_at):
            return False
        grown = sum(one.size for one in deltas) >= (base.size if base else 0)
        return grown or len(deltas) >= _MAX_DELTAS

    def compact(self) -> None:
        """Fold all files into one base, on the caller's thread.

        Raises:
            StorageError: The base could not be written, or a file is damaged; nothing is lost.
        """
        with self._merging:
            base, deltas = self._files()
            merged = _fold_files(base, deltas)
            if merged is None or not deltas:
                return
            number = deltas[-1].number
            path = self._folder / f"{number:012d}.base"
            size = write_checkpoint(path, merged)
            with self._lock:
                self._base = _File(number, path, size)
                self._deltas = [one for one in self._deltas if one.number > number]
            _delete([base, *deltas] if base else deltas)

    def _compact_behind(self) -> None:
        try:
            self.compact()
            self._retry_at = 0
        except StorageError as error:
            # Nothing is lost: the deltas stay. A full disk fails the next checkpoint as well, and that one is told.
            self._retry_at = len(self._files()[1]) + _MIN_DELTAS
            _LOG.error("checkpoints could not be compacted, tried again after %d more: %s", _MIN_DELTAS, error)


def _fold_files(base: _File | None, deltas: list[_File]) -> Checkpoint | None:
    files = [base, *deltas] if base else deltas
    return fold(read_checkpoint(one.path) for one in files)


def _scan(folder: Path) -> tuple[_File | None, list[_File]]:
    """The newest base and the deltas after it; what an interrupted compaction left is deleted."""
    bases, deltas = _list(folder, "base"), _list(folder, "delta")
    base = bases[-1] if bases else None
    start = base.number if base else 0
    _delete(bases[:-1] + [one for one in deltas if one.number <= start])
    deltas = [one for one in deltas if one.number > start]
    for expected, one in enumerate(deltas, start + 1):
        if one.number != expected:
            raise StorageError(
                f"expected checkpoint {expected} in {folder}, found {one.path.name}: a file is missing; "
                "restore the data directory from a backup, or move it away to start empty"
            )
    return base, deltas


def _list(folder: Path, suffix: str) -> list[_File]:
    try:
        paths = sorted(folder.glob(f"[0-9]*.{suffix}"))
        return [_File(int(path.stem), path, path.stat().st_size) for path in paths]
    except OSError as error:
        raise disk.storage_error(error, f"cannot read {folder}") from error
    except ValueError as error:
        raise StorageError(f"expected only numbered files in {folder}: {error}; move the others out") from error


def _delete(files: Iterable[_File]) -> None:
    for one in files:
        try:
            one.path.unlink(missing_ok=True)
        except OSError as error:
            raise disk.storage_error(error, f"cannot delete {one.path}") from error
