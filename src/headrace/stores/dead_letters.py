"""Dead letters: inputs that could not be used, whole, with the reason, until they are replayed or removed.

SQLite, so that `headrace dead-letters list` reads them while the server writes: in WAL mode readers and the writer do
not wait for each other. synchronous=FULL: a source's position is checkpointed past the rows that were set aside, so
they must be as durable as the checkpoint, also in a power cut; it costs one sync for each batch that has rejects.
Counts and sizes are kept by triggers, in the transaction that changes them, so they are right whichever process does.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ClosedError, StorageError, UnknownNameError
from headrace.stores.database import explained, transaction

_LOG = logging.getLogger(__name__)
_VERSION = 1
# What a row costs beside its texts and bytes; also keeps millions of empty ones from being free.
_OVERHEAD = 100
_LARGEST = 900_000_000  # SQLite's limit for one value is 1,000,000,000 bytes
_SCHEMA = f"""
CREATE TABLE letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL,
    at INTEGER NOT NULL, size INTEGER NOT NULL, raw BLOB NOT NULL, identity TEXT UNIQUE
);
CREATE INDEX letters_of_stream ON letters (stream, id);
CREATE TABLE totals (stream TEXT PRIMARY KEY, letters INTEGER NOT NULL, size INTEGER NOT NULL);
CREATE TABLE dropped (letters INTEGER NOT NULL);
INSERT INTO dropped VALUES (0);
CREATE TRIGGER letter_added AFTER INSERT ON letters BEGIN
    INSERT INTO totals VALUES (new.stream, 1, new.size)
    ON CONFLICT (stream) DO UPDATE SET letters = letters + 1, size = size + new.size;
END;
CREATE TRIGGER letter_removed AFTER DELETE ON letters BEGIN
    UPDATE totals SET letters = letters - 1, size = size - old.size WHERE stream = old.stream;
END;
PRAGMA user_version = {_VERSION};
"""
_COLUMNS = "id, stream, source, reason, raw, at"


@dataclass(frozen=True)
class DeadLetter:
    """One input that could not be used.

    Attributes:
        id: Grows, and is never given twice.
        source: Where it came from: the name of a source, or how it was pushed.
        raw: The original bytes.
        at: When it was set aside, microseconds since the Unix epoch.
    """

    id: int
    stream: str
    source: str
    reason: str
    raw: bytes
    at: int


class DeadLetters:
    """The dead letters of an app; for any number of threads, and of processes.

    Args:
        path: The database's file, made if it is not there; None keeps them in memory.
        keep_bytes: Past this size the oldest are dropped, and counted in `dropped`.

    Raises:
        StorageError: The file cannot be opened, or is not a database of dead letters.
    """

    def __init__(self, path: str | Path | None, *, keep_bytes: int = 1 << 30) -> None:
        self._name = "the dead letters in memory" if path is None else f"the dead letters in {path}"
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._closed = False
        with explained(self._name, "open"):
            self._database = sqlite3.connect(
                ":memory:" if path is None else path, timeout=30, isolation_level=None, check_same_thread=False
            )
        try:
            with explained(self._name, "open"):
                self._prepare()
        except StorageError:
            self._database.close()
            raise

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA journal_size_limit = 16777216")
        (version,) = run("PRAGMA user_version").fetchone()
        if version == 0:
            with transaction(self._database):
                # Asked again under the lock: another process may have made the tables just now.
                if run("PRAGMA user_version").fetchone() == (0,):
                    for statement in _statements(_SCHEMA):
                        run(statement)
        elif version != _VERSION:
            raise StorageError(
                f"expected {self._name} in format {_VERSION}, found {version}: they were written by another version of "
                "headrace; run that version, or name another directory with --data"
            )

    def add(
        self, stream: str, source: str, at: int, letters: Iterable[tuple[str, bytes]], once: str | None = None
    ) -> None:
        """Set inputs aside, all of them or, if there is an error, none.

        Args:
            letters: The reason and the original bytes of each.
            once: What these letters were part of; the same letters of the same part are not kept twice, as when an
                input is read again after a crash.

        Raises:
            StorageError: They could not be written.
        """
        self.add_each(
            stream,
            at,
            [
                (source, reason, raw, None if once is None else f"{stream}/{once}#{number}")
                for number, (reason, raw) in enumerate(letters)
            ],
        )

    def add_each(self, stream: str, at: int, letters: Iterable[tuple[str, str, bytes, str | None]]) -> None:
        """Set inputs aside that came from different places, all of them or, if there is an error, none.

        Args:
            letters: Of each, the source, the reason, the original bytes, and what it is known by: of letters with the
                same identity the first is kept.

        Raises:
            StorageError: They could not be written.
        """
        rows = [
            (stream, source, reason, at, _OVERHEAD + len(raw) + len(reason) + len(source), raw, identity)
            for source, reason, raw, identity in letters
        ]
        fitting = [row for row in rows if row[4] <= min(self._keep_bytes, _LARGEST)]
        if not rows:
            return
        with self._use("write"), transaction(self._database):
            self._database.executemany(
                "INSERT OR IGNORE INTO letters (stream, source, reason, at, size, raw, identity) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                fitting,
            )
            dropped = len(rows) - len(fitting) + self._make_room()
            self._database.execute("UPDATE dropped SET letters = letters + ?", (dropped,))
        if dropped:
            _LOG.warning(
                "%d dead letters were dropped to keep %s below %d bytes", dropped, self._name, self._keep_bytes
            )

    def _make_room(self) -> int:
        """Drop the oldest until what is kept fits; returns how many."""
        excess = self._one("SELECT coalesce(sum(size), 0) FROM totals") - self._keep_bytes
        if excess <= 0:
            return 0
        last = 0
        for last, size in self._database.execute("SELECT id, size FROM letters ORDER BY id"):  # noqa: B007
            excess -= size
            if excess <= 0:
                break
        return self._database.execute("DELETE FROM letters WHERE id <= ?", (last,)).rowcount

    def list(
        self, stream: str | None = None, limit: int = 100, after: int = 0, *, preview: int | None = None
    ) -> list[DeadLetter]:
        """The oldest `limit` letters whose id is greater than `after`, in order.

        Args:
            stream: Only those of this stream.
            preview: Give only this many bytes of each `raw`: one input may have been 50 MB.
        """
        raw = "raw" if preview is None else f"substr(raw, 1, {int(preview)})"
        where = "id > ?" if stream is None else "stream = ? AND id > ?"
        values = (after, limit) if stream is None else (stream, after, limit)
        with self._use("read"):
            found = self._database.execute(
                f"SELECT id, stream, source, reason, {raw}, at FROM letters WHERE {where} ORDER BY id LIMIT ?", values
            )
            return [DeadLetter(*row) for row in found]

    def get(self, id: int) -> DeadLetter:
        """One letter.

        Raises:
            UnknownNameError: There is none of that id.
        """
        with self._use("read"):
            row = self._database.execute(f"SELECT {_COLUMNS} FROM letters WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise UnknownNameError(
                f"expected the id of a dead letter, found {id}: it was never given, or that letter has been replayed, "
                "removed or dropped; list them to see which there are"
            )
        return DeadLetter(*row)

    def remove(self, ids: Iterable[int]) -> None:
        """Delete letters; an id that is not there is passed over."""
        with self._use("write"), transaction(self._database):
            self._database.executemany("DELETE FROM letters WHERE id = ?", [(one,) for one in ids])

    def count(self) -> dict[str, int]:
        """How many letters each stream has; streams without any are left out."""
        with self._use("read"):
            rows: Sequence[tuple[str, int]] = self._database.execute(
                "SELECT stream, letters FROM totals WHERE letters > 0 ORDER BY stream"
            ).fetchall()
        return dict(rows)

    @property
    def dropped(self) -> int:
        """How many letters have been dropped for want of room, ever."""
        with self._use("read"):
            return self._one("SELECT letters FROM dropped")

    def close(self) -> None:
        """Give the database back; again does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._database.close()

    def _one(self, query: str) -> int:
        value: int = self._database.execute(query).fetchone()[0]
        return value

    @contextlib.contextmanager
    def _use(self, what: str) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._name} are closed: open the app again")
            with explained(self._name, what):
                yield


def _statements(script: str) -> Iterator[str]:
    """The statements of a script: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
