"""Which keys of a view have been published and not taken back: what a topic may still show of it.

A key is written here before its row is published and removed after its tombstone is: whatever is interrupted, no row
stays published of which nobody knows, so none outlives its window there.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from headrace.errors import StorageError

_SCHEMA = "CREATE TABLE IF NOT EXISTS published (view TEXT, key BLOB, PRIMARY KEY (view, key)) WITHOUT ROWID"


class Published:
    """The published keys of an app's views; for any number of threads.

    Args:
        path: The database's file, made if it is not there; None keeps them in memory.

    Raises:
        StorageError: The file cannot be opened.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._where = "in memory" if path is None else str(path)
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(":memory:" if path is None else path, timeout=30, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            with self._database:
                self._database.execute(_SCHEMA)
        except sqlite3.Error as error:
            raise StorageError(f"the published keys {self._where} cannot be opened: {error}") from error

    def keys(self, view: str) -> list[bytes]:
        """The keys of a view that may be published."""
        with self._lock:
            try:
                found = self._database.execute("SELECT key FROM published WHERE view = ?", (view,)).fetchall()
            except sqlite3.Error as error:
                raise StorageError(f"the published keys {self._where} cannot be read: {error}") from error
        return [key for (key,) in found]

    def add(self, view: str, keys: Iterable[bytes]) -> None:
        """These keys are about to be published."""
        self._change("INSERT OR IGNORE INTO published VALUES (?, ?)", view, keys)

    def remove(self, view: str, keys: Iterable[bytes]) -> None:
        """These keys have been taken back."""
        self._change("DELETE FROM published WHERE view = ? AND key = ?", view, keys)

    def _change(self, statement: str, view: str, keys: Iterable[bytes]) -> None:
        with self._lock:
            try:
                with self._database:
                    self._database.executemany(statement, ((view, key) for key in keys))
            except sqlite3.Error as error:
                raise StorageError(f"the published keys {self._where} cannot be written: {error}") from error

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._database.close()
