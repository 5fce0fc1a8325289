"""SQLite as the stores use it: write-ahead log, full sync, one writer, and readers who each see one moment.

In WAL mode a read transaction sees the database as of its first statement, whatever is written meanwhile, and neither
waits for the other: that is what lets a search read one revision of a collection while the next is being written.

Each step of a statement lets go of the interpreter, and has to wait for it again while another thread computes. Who
reads several rows for somebody who waits asks for all of them as one: a JSON array that SQLite makes.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headrace.errors import ClosedError, StorageError

_ADVICE = {
    sqlite3.SQLITE_FULL: "free some space on that disk",
    sqlite3.SQLITE_IOERR: "check that disk and the space on it",
    sqlite3.SQLITE_CANTOPEN: "check that the directory exists and is writable",
    sqlite3.SQLITE_READONLY: "make it writable for this user",
    sqlite3.SQLITE_NOTADB: "restore it from a backup, or move the file away to start without it",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup, or move the file away to start without it",
    sqlite3.SQLITE_BUSY: "another process has been writing for too long: try again",
}
_MOST_READERS = 32


class Database:
    """A database file; for any number of threads.

    Args:
        path: Its file, made if it is not there.
        schema: The statements that make its tables.
        version: The schema's number; a file of another one is refused.
        what: What errors call it.
        durable: Whether a transaction is on the disk when it returns; False for what is thrown away at the end.

    Raises:
        StorageError: It cannot be opened, or is of another version.
    """

    def __init__(self, path: Path, schema: str, version: int, what: str, *, durable: bool = True) -> None:
        self._path = path
        self._what = f"{what} in {path}"
        self._lock = threading.RLock()
        self._readers: list[sqlite3.Connection] = []
        self._reading = threading.BoundedSemaphore(_MOST_READERS)
        self._closed = False
        with explained(self._what, "open"):
            self._writer = self._connect()
        try:
            with explained(self._what, "open"):
                self._prepare(schema, version, durable)
        except BaseException:
            self._writer.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        made = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        made.execute("PRAGMA mmap_size = 268435456")
        return made

    def _prepare(self, schema: str, version: int, durable: bool) -> None:
        run = self._writer.execute
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        run("PRAGMA journal_size_limit = 67108864")
        (found,) = run("PRAGMA user_version").fetchone()
        if found == 0:
            with self.write() as database:
                for statement in schema.split(";\n"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {version}")
        elif found != version:
            raise StorageError(
                f"expected {self._what} in format {version}, found {found}: another version of headrace wrote it; "
                "run that version, or name another directory with --data"
            )

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: whole when the block ends, and nothing of it if the block raises.

        Raises:
            StorageError: It could not be written.
            ClosedError: The database is closed.
        """
        with self._lock:
            self._open()
            with explained(self._what, "write"), transaction(self._writer):
                yield self._writer

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One moment: all statements of the block see the same state.

        Raises:
            StorageError: It could not be read.
            ClosedError: The database is closed.
        """
        with self._reader() as connection:
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def row(self, query: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of one statement, which by itself sees one moment.

        Raises:
            StorageError: It could not be read.
            ClosedError: The database is closed.
        """
        with self._reader() as connection:
            found: tuple[Any, ...] | None = connection.execute(query, tuple(values)).fetchone()
            return found

    def overwrite_deleted(self) -> None:
        """From now on what is deleted is overwritten in the file, too."""
        with self._lock, explained(self._what, "open"):
            self._writer.execute("PRAGMA secure_delete = ON")

    def scrub(self) -> bool:
        """Empties the write-ahead log, which holds copies of what is deleted; False if a reader is in the way."""
        with self._lock:
            self._open()
            with explained(self._what, "write"):
                self._writer.execute("PRAGMA busy_timeout = 1000")
                try:
                    (busy, _, _) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                finally:
                    self._writer.execute("PRAGMA busy_timeout = 30000")
        return not busy

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._reading:
            with self._lock:
                self._open()
                connection = self._readers.pop() if self._readers else None
            with explained(self._what, "read"):
                if connection is None:
                    connection = self._connect()
                try:
                    yield connection
                finally:
                    self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed:
                self._readers.append(connection)
                return
        connection.close()

    def _open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._what} is closed: open the app again")

    def close(self) -> None:
        """Lets go of the file; again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            readers, self._readers = self._readers, []
        for connection in (*readers, self._writer):
            connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that writes: whole when the block ends, and nothing of it if the block raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, a full disk among them.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def explained(name: str, doing: str) -> Iterator[None]:
    """Errors of SQLite as StorageError, with what to do."""
    try:
        yield
    except sqlite3.Error as error:
        advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "see the cause")
        raise StorageError(f"cannot {doing} {name}: {error}; {advice}") from error
