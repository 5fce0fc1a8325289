"""Manifests of packs at rest: what a model was given, when, and true to what.

A manifest is the plain pack with the hash of each item's text, compressed. Bounded in number, in bytes and in age: the
oldest go first, whenever some are added. SQLite, so that `headrace replay` reads them while a server writes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headrace.stores.database import Database
from headrace.units import DAY

_SCHEMA = """
CREATE TABLE packs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, context TEXT NOT NULL, at INTEGER NOT NULL,
    size INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX packs_by_time ON packs (at)"""
_VERSION = 1
MOST_PACKS = 100_000
MOST_BYTES = 1 << 30
LONGEST = 7 * DAY


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is kept of a pack.

    Attributes:
        at: When it was made, microseconds since the Unix epoch.
        pack: The pack as plain values, as `Pack.to_dict()` gives it.
        hashes: Of each section's items, in order: id and XXH3 (128 bits) of the text that was packed.
    """

    id: str
    context: str
    at: int
    pack: Mapping[str, Any]
    hashes: Sequence[Sequence[tuple[str, str]]]


class PackStore:
    """The manifests of an app; for any number of threads, and of processes that read.

    Args:
        path: The database's file, made if it is not there.
        durable: False for what is thrown away at the end.
        most: How many are kept.
        most_bytes: How many bytes of them, compressed.
        longest: For how long, in microseconds.

    Raises:
        StorageError: The file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        durable: bool = True,
        most: int = MOST_PACKS,
        most_bytes: int = MOST_BYTES,
        longest: int = LONGEST,
    ) -> None:
        self._database = Database(path, _SCHEMA, _VERSION, "the packs", durable=durable)
        self._most = most
        self._most_bytes = most_bytes
        self._longest = longest
        self._count: int
        self._bytes: int
        with self._database.read() as run:
            self._count, self._bytes = run.execute("SELECT count(*), coalesce(sum(size), 0) FROM packs").fetchone()

    def add(self, manifests: Sequence[Manifest], now: int) -> None:
        """Writes some, and lets go of the oldest past the bounds; one whose id is there already is passed over.

        Raises:
            StorageError: They could not be written; none was.
        """
        rows = []
        for one in manifests:
            body = zlib.compress(msgspec.json.encode((one.pack, one.hashes), enc_hook=str), 1)
            rows.append((one.id, one.context, one.at, len(body), body))
        with self._database.write() as run:
            added = [
                row[3]
                for row in rows
                if run.execute(
                    "INSERT OR IGNORE INTO packs (id, context, at, size, body) VALUES (?, ?, ?, ?, ?)", row
                ).rowcount
            ]
            count, size = self._count + len(added), self._bytes + sum(added)
            last = 0
            oldest = run.execute("SELECT number, size, at FROM packs ORDER BY number")
            for number, of, at in oldest:
                if count <= self._most and size <= self._most_bytes and at >= now - self._longest:
                    break
                last, count, size = number, count - 1, size - of
            if last:
                run.execute("DELETE FROM packs WHERE number <= ?", (last,))
        self._count, self._bytes = count, size

    def get(self, id: str) -> Manifest | None:
        """One manifest; None if there is none of that id."""
        with self._database.read() as run:
            row = run.execute("SELECT id, context, at, body FROM packs WHERE id = ?", (id,)).fetchone()
        if row is None:
            return None
        pack, hashes = msgspec.json.decode(zlib.decompress(row[3]))
        return Manifest(row[0], row[1], row[2], pack, [[(one, of) for one, of in section] for section in hashes])

    def newest(self, limit: int = 20) -> list[tuple[str, str, int]]:
        """The last ones: id, context and when it was made."""
        with self._database.read() as run:
            return run.execute("SELECT id, context, at FROM packs ORDER BY number DESC LIMIT ?", (limit,)).fetchall()

    @property
    def count(self) -> int:
        """How many are kept."""
        return self._count

    @property
    def bytes(self) -> int:
        """How many bytes of them."""
        return self._bytes

    def close(self) -> None:
        """Lets go of the file; again does nothing."""
        self._database.close()
