"""The data directory: one process at a time, in a format that this version knows.

headrace.json   the format's version
lock            held with flock while a process has the directory open; the kernel lets go when that process dies
log/  journal/  dead_letters.db  tables/  collections/  indexes/  embeddings.db  packs.db  enrichments.db
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import BinaryIO

from headrace.errors import LockedError, StorageError
from headrace.stores import disk

FORMAT = 1
_FORMAT_FILE = "headrace.json"
_LOCK_FILE = "lock"
# What may be in a directory that is otherwise empty: the root of a file system, and an interrupted first start.
_IGNORED = frozenset({"lost+found", _LOCK_FILE, _FORMAT_FILE + ".tmp"})


class Layout:
    """Where things are in a data directory; nothing is opened or locked.

    Attributes:
        log: The folder of the push log.
        journal: The folder of the checkpoints.
        dead_letters: The database of the dead letters; other processes may read it while one has the directory open.
        published: The database of the keys that are published.
        recovery: The folder of the checkpoints of a Bytewax dataflow.
        tables: The folder of the tables' rows, a database each; other processes may read them.
        collections: The folder of the collections' records, a database each.
        indexes: The folder of the indexes that are kept here.
        embeddings: The database of what was embedded once.
        packs: The database of the contexts that were given out; other processes may read it.
        enrichments: The database of what waits for models, their answers, and what they cost.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.log = self.path / "log"
        self.journal = self.path / "journal"
        self.dead_letters = self.path / "dead_letters.db"
        self.published = self.path / "published.db"
        self.recovery = self.path / "recovery"
        self.tables = self.path / "tables"
        self.collections = self.path / "collections"
        self.indexes = self.path / "indexes"
        self.embeddings = self.path / "embeddings.db"
        self.packs = self.path / "packs.db"
        self.enrichments = self.path / "enrichments.db"


class DataDir(Layout):
    """A data directory, held by this process until `close()`.

    Raises:
        StorageError: It cannot be made, written or read, is not a data directory, or is of a newer version.
        LockedError: It is open already, in another process or in this one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        _make(self.path)
        self._descriptor: int | None = _lock(self.path)
        try:
            _check_format(self.path)
        except StorageError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the directory; again does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _make(path: Path) -> None:
    try:
        if path.exists() and not path.is_dir():
            raise StorageError(f"expected a directory for the data, found a file: {path}; name another with --data")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk.storage_error(error, f"cannot make the data directory {path}") from error


def _lock(path: Path) -> int:
    try:
        # The file is never deleted: a lock on a name that another process has just removed would protect nothing.
        descriptor = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise disk.storage_error(error, f"cannot write to the data directory {path}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace") or "unknown"
        os.close(descriptor)
        raise _locked(path, holder) from error
    except OSError as error:
        os.close(descriptor)
        raise disk.storage_error(error, f"cannot lock the data directory {path}") from error
    return descriptor


def _locked(path: Path, holder: str) -> LockedError:
    if holder == str(os.getpid()):
        return LockedError(f"this process (pid {holder}) has {path} open already: close that app first, or use another")
    return LockedError(f"another process (pid {holder}) has {path} open: stop it, or use another --data")


def _check_format(path: Path) -> None:
    file = path / _FORMAT_FILE
    try:
        if not file.exists():
            _refuse_foreign(path)

            def fill(target: BinaryIO) -> None:
                target.write(json.dumps({"format": FORMAT}).encode() + b"\n")

            disk.write_whole(file, fill)
        text = file.read_bytes()
    except OSError as error:
        raise disk.storage_error(error, f"cannot read {file}") from error
    try:
        found = json.loads(text)["format"]
    except (ValueError, KeyError, TypeError):
        raise StorageError(
            f'expected {file} to hold {{"format": {FORMAT}}}, found {text[:80]!r}; '
            "restore it from a backup, or name another directory with --data"
        ) from None
    if found != FORMAT:
        raise StorageError(
            f"expected data of format {FORMAT} in {path}, found format {found}: it was written by another version of "
            "headrace; run that version, or name another directory with --data"
        )


def _refuse_foreign(path: Path) -> None:
    """Keep `--data ~` from mixing our files with somebody's own."""
    foreign = sorted(one.name for one in path.iterdir() if one.name not in _IGNORED)
    if foreign:
        raise StorageError(
            f"expected a data directory or an empty one, found {', '.join(foreign[:3])}"
            f"{' and others' if len(foreign) > 3 else ''} in {path}; name another directory with --data"
        )
