"""The cache of embeddings: a vector by the hash of its text and the name of its embedder; outlives restarts.

SQLite in WAL mode with synchronous=NORMAL: after a kill nothing is lost that a transaction has committed, after a power
cut the last ones may be, and what a cache has lost is made again. A cache that cannot be read is thrown away and begun
anew, for the same reason.

Which vectors are there and when each was last used is kept apart from the vectors: 16 bytes of hash are looked up
without reading 1.5 kB beside them, and new vectors are appended wherever their random hashes sort. Vectors are float32,
as the embedder gave them.

What has been used longest ago goes first, by generations: a generation ends when a sixteenth of the room has been
written, and a vector is marked as used at most once in each, so that reading costs next to no writing.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace.errors import ClosedError, StorageError
from headrace.stores.database import transaction

Vector = npt.NDArray[np.float32]

_LOG = logging.getLogger(__name__)
_VERSION = 1
_OVERHEAD = 96  # bytes that an entry takes beside its vector: its hash, twice, and SQLite's own
_AT_ONCE = 500  # hashes a query
_GENERATIONS = 16
_SCHEMA = (
    "CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, hash BLOB NOT NULL, model INTEGER NOT NULL, used INTEGER NOT NULL, "
    "size INTEGER NOT NULL)",
    "CREATE UNIQUE INDEX entries_by_hash ON entries (hash, model)",
    "CREATE TABLE vectors (id INTEGER PRIMARY KEY, vector BLOB NOT NULL)",
    f"PRAGMA user_version = {_VERSION}",
)


class EmbeddingCache:
    """Vectors by hash and model; for any number of threads of one process.

    Args:
        path: The database's file, made if it is not there; None keeps it in memory.
        keep_bytes: Past this size the vectors that were used longest ago are dropped.

    Raises:
        StorageError: The file cannot be opened.
    """

    def __init__(self, path: str | Path | None, *, keep_bytes: int = 4 << 30) -> None:
        self._name = "the embedding cache in memory" if path is None else f"the embedding cache in {path}"
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._closed = False
        with self._explained("open"):
            self._database = _open(path)
            self._models: dict[str, int] = {
                name: id for id, name in self._database.execute("SELECT id, name FROM models")
            }
            totals = "SELECT coalesce(sum(size), 0), coalesce(max(used), 0) FROM entries"
            self._bytes: int
            self._generation: int
            self._bytes, self._generation = self._database.execute(totals).fetchone()
        self._written = 0  # bytes in this generation

    def get(self, model: str, hashes: Sequence[bytes]) -> dict[bytes, Vector]:
        """The vectors that are there, by hash.

        Args:
            model: The embedder's name.
            hashes: 16 bytes each.

        Raises:
            StorageError: The file cannot be read.
        """
        found: dict[bytes, Vector] = {}
        with self._use("read"):
            number = self._models.get(model)
            if number is None:
                return found
            stale: list[tuple[int, int]] = []
            for begin in range(0, len(hashes), _AT_ONCE):
                part = hashes[begin : begin + _AT_ONCE]
                rows = self._database.execute(
                    f"SELECT hash, vector, entries.id, used FROM entries JOIN vectors ON vectors.id = entries.id "
                    f"WHERE hash IN ({','.join('?' * len(part))}) AND model = ?",
                    (*part, number),
                )
                for hash, vector, id, used in rows:
                    found[hash] = np.frombuffer(vector, dtype=np.float32)
                    if used < self._generation:
                        stale.append((self._generation, id))
            if stale:
                with transaction(self._database):
                    self._database.executemany("UPDATE entries SET used = ? WHERE id = ?", stale)
        return found

    def put(self, model: str, vectors: Sequence[tuple[bytes, Vector]]) -> None:
        """Keep vectors, all of them or, if there is an error, none; what is there already stays as it is.

        Args:
            model: The embedder's name.
            vectors: Each with the hash of its text, 16 bytes.

        Raises:
            StorageError: They could not be written.
        """
        if not vectors:
            return
        with self._use("write"):
            # The names are taken over only when the transaction is through.
            known = self._models.get(model)
            with transaction(self._database):
                if known is None:
                    known = self._database.execute("INSERT INTO models (name) VALUES (?)", (model,)).lastrowid or 0
                written = sum(self._add(known, hash, vector) for hash, vector in vectors)
                bytes_now, dropped = self._bytes + written, 0
                if bytes_now > self._keep_bytes:
                    dropped = self._make_room(bytes_now)
            self._models[model] = known
            self._bytes = bytes_now - dropped
            self._written += written
            if self._written > self._keep_bytes // _GENERATIONS:
                self._generation, self._written = self._generation + 1, 0

    @property
    def size(self) -> int:
        """Bytes of what is kept."""
        return self._bytes

    def count(self) -> int:
        """Vectors that are kept."""
        with self._use("read"):
            found: int = self._database.execute("SELECT count(*) FROM entries").fetchone()[0]
        return found

    def close(self) -> None:
        """Give the database back; again does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._database.close()

    def _add(self, model: int, hash: bytes, vector: Vector) -> int:
        raw = np.ascontiguousarray(vector, dtype=np.float32).tobytes()
        size = len(raw) + _OVERHEAD
        added = self._database.execute(
            "INSERT OR IGNORE INTO entries (hash, model, used, size) VALUES (?, ?, ?, ?)",
            (hash, model, self._generation, size),
        )
        if not added.rowcount:
            return 0
        self._database.execute("INSERT INTO vectors VALUES (?, ?)", (added.lastrowid, raw))
        return size

    def _make_room(self, size: int) -> int:
        """Drop the generations that were used longest ago, down to nine tenths of the room; returns the bytes."""
        wanted = size - self._keep_bytes * 9 // 10
        dropped: int = 0
        sizes = self._database.execute("SELECT used, sum(size) FROM entries GROUP BY used ORDER BY used").fetchall()
        for used, of_generation in sizes:
            if dropped >= wanted:
                break
            if dropped + of_generation <= wanted:
                ids = "SELECT id FROM entries WHERE used = ?"
                values: tuple[int, ...] = (used,)
                dropped += of_generation
            else:  # part of a generation: the first that were written
                each = max(
                    1, self._database.execute("SELECT max(size) FROM entries WHERE used = ?", (used,)).fetchone()[0]
                )
                ids = "SELECT id FROM entries WHERE used = ? ORDER BY id LIMIT ?"
                values = (used, -(-(wanted - dropped) // each))
                dropped += self._database.execute(
                    f"SELECT coalesce(sum(size), 0) FROM entries WHERE id IN ({ids})", values
                ).fetchone()[0]
            self._database.execute(f"DELETE FROM vectors WHERE id IN ({ids})", values)
            self._database.execute(f"DELETE FROM entries WHERE id IN ({ids})", values)
            if len(values) == 2:
                break
        return dropped

    @contextlib.contextmanager
    def _use(self, what: str) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._name} is closed: open the app again")
            with self._explained(what):
                yield

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"cannot {what} {self._name}: {error}; check that disk and the space on it") from error


def _open(path: str | Path | None) -> sqlite3.Connection:
    """The database with its tables; one that is damaged, or of another version, is begun anew."""
    try:
        return _prepared(path)
    except sqlite3.OperationalError:
        raise  # out of reach, not damaged
    except sqlite3.DatabaseError as error:
        _LOG.warning("the embedding cache in %s cannot be used (%s) and is begun anew", path, error)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        return _prepared(path)


def _prepared(path: str | Path | None) -> sqlite3.Connection:
    database = sqlite3.connect(
        ":memory:" if path is None else path, timeout=30, isolation_level=None, check_same_thread=False
    )
    try:
        run = database.execute
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA journal_size_limit = 16777216")
        version = run("PRAGMA user_version").fetchone()[0]
        if version == 0:
            run("PRAGMA page_size = 8192")
            run("PRAGMA journal_mode = WAL")
            run("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                run(statement)
            run("COMMIT")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"expected format {_VERSION}, found {version}")
        run("SELECT id, hash FROM entries LIMIT 1").fetchall()
    except BaseException:
        database.close()
        raise
    return database
