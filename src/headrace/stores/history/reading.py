"""A database of an app, read from beside the app: in another process, while it writes, or when it does not run.

SQLite's write-ahead log lets one process read while another writes, and neither waits. Such a reader takes no lock on
the data directory and changes no row. (SQLite may leave its two side files, `-wal` and `-shm`, beside the database.) A
copy that cannot be written at all, as on a read-only disk, is read as it stands.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from headrace.errors import InputError, StorageError

_BUSY = 30.0


class Reading:
    """A database that is read only; for any number of threads, one after the other.

    Args:
        path: Its file.
        version: The format that is expected.
        what: What errors call it.

    Raises:
        InputError: There is no such file.
        StorageError: It cannot be opened, or is of another format.
    """

    def __init__(self, path: Path, version: int, what: str) -> None:
        self._what = f"{what} in {path}"
        self._lock = threading.Lock()
        if not path.is_file():
            raise InputError(f"expected {self._what}, found no such file; name the data directory that the app runs on")
        with self._explained():
            self._connection = _open(path)
        try:
            with self._explained():
                (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found != version:
                raise StorageError(
                    f"expected {self._what} in format {version}, found {found}: another version of headrace wrote it; "
                    "export with that version"
                )
        except BaseException:
            self._connection.close()
            raise

    @contextlib.contextmanager
    def moment(self) -> Iterator[sqlite3.Connection]:
        """One moment: all statements of the block see the same state.

        Raises:
            StorageError: It could not be read.
        """
        with self._lock, self._explained():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"cannot read {self._what}: {error}; check the file and its permissions") from error

    def close(self) -> None:
        """Lets go of the file; again does nothing."""
        self._connection.close()


def _open(path: Path) -> sqlite3.Connection:
    """A connection that can only read, as far as that can be had.

    A write-ahead log needs a small file of shared memory beside it. Where none can be made nobody writes either, so a
    database without a log may be taken as one that never changes.
    """
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    log = path.with_name(path.name + "-wal")
    try:
        return _connected(address)
    except sqlite3.OperationalError:
        if log.exists() and log.stat().st_size:
            raise
        return _connected(f"{address}&immutable=1")


def _connected(address: str) -> sqlite3.Connection:
    made = sqlite3.connect(address, uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    try:
        # Opening is lazy; the first read is what finds out.
        made.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        made.close()
        raise
    return made
