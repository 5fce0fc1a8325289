"""Manifests of packs at rest: what a model was given, when, and true to what.

A manifest is the plain pack with the hash of each item's text, compressed. Bounded in number, in bytes and in age: the
oldest go first, whenever some are added. SQLite, so that another process reads them while a server writes.

Beside it stand the rows that it holds something of, as digests: what is erased is found in packs by them, changed
there, overwritten in the file, and gone from the write-ahead log.
"""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
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
CREATE INDEX packs_by_time ON packs (at);
CREATE TABLE refs (ref BLOB NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (ref, number)) WITHOUT ROWID;
CREATE INDEX refs_by_pack ON refs (number)"""
_VERSION = 2
_AT_ONCE = 100
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
        refs: Digests of the rows that it holds something of; not read back.
    """

    id: str
    context: str
    at: int
    pack: Mapping[str, Any]
    hashes: Sequence[Sequence[tuple[str, str]]]
    refs: Collection[bytes] = ()


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
        self._database.overwrite_deleted()
        # A crash may have left a log with copies of what was being erased.
        self._unscrubbed = not self._database.scrub()
        self._most = most
        self._most_bytes = most_bytes
        self._longest = longest
        self._counting = threading.Lock()
        sums = self._database.row("SELECT count(*), coalesce(sum(size), 0) FROM packs")
        assert sums is not None
        self._count, self._bytes = int(sums[0]), int(sums[1])

    def add(self, manifests: Sequence[Manifest], now: int) -> None:
        """Writes some, and lets go of the oldest past the bounds; one whose id is there already is passed over.

        Raises:
            StorageError: They could not be written; none was.
        """
        rows = []
        for one in manifests:
            body = _packed(one)
            rows.append(((one.id, one.context, one.at, len(body), body), one.refs))
        # Cursors end, and the sums are noted, before another thread may write.
        with self._counting, self._database.write() as run, contextlib.closing(run.cursor()) as made:
            added = []
            for row, refs in rows:
                made.execute("INSERT OR IGNORE INTO packs (id, context, at, size, body) VALUES (?, ?, ?, ?, ?)", row)
                if made.rowcount:
                    added.append(row[3])
                    run.executemany("INSERT INTO refs VALUES (?, ?)", [(ref, made.lastrowid) for ref in refs])
            count, size = self._count + len(added), self._bytes + sum(added)
            last = 0
            with contextlib.closing(run.execute("SELECT number, size, at FROM packs ORDER BY number")) as oldest:
                for number, of, at in oldest:
                    if count <= self._most and size <= self._most_bytes and at >= now - self._longest:
                        break
                    last, count, size = number, count - 1, size - of
            if last:
                run.execute("DELETE FROM packs WHERE number <= ?", (last,))
                run.execute("DELETE FROM refs WHERE number <= ?", (last,))
            self._count, self._bytes = count, size
        self._scrub()

    def change(self, refs: Collection[bytes], changed: Callable[[Manifest], Manifest]) -> int:
        """Writes all manifests anew that hold something of these rows; how many there were.

        What they were is overwritten in the file.

        Raises:
            StorageError: They could not be written; ask again.
        """
        with self._database.read() as run:
            found = {
                number for ref in refs for (number,) in run.execute("SELECT number FROM refs WHERE ref = ?", (ref,))
            }
        numbers = sorted(found)
        for start in range(0, len(numbers), _AT_ONCE):
            self._change(numbers[start : start + _AT_ONCE], changed)
        self._unscrubbed = self._unscrubbed or bool(numbers)
        self._scrub()
        return len(numbers)

    def _scrub(self) -> None:
        """Empties the write-ahead log if it may hold what was erased; where a long read is in the way, next time."""
        if self._unscrubbed:
            self._unscrubbed = not self._database.scrub()

    def _change(self, numbers: Sequence[int], changed: Callable[[Manifest], Manifest]) -> None:
        grown = 0
        with self._counting, self._database.write() as run:
            for number in numbers:
                row = run.execute(
                    "SELECT id, context, at, body, size FROM packs WHERE number = ?", (number,)
                ).fetchone()
                if row is None:
                    continue
                made = changed(_manifest(row[:4]))
                body = _packed(made)
                run.execute("UPDATE packs SET body = ?, size = ? WHERE number = ?", (body, len(body), number))
                run.execute("DELETE FROM refs WHERE number = ?", (number,))
                run.executemany("INSERT INTO refs VALUES (?, ?)", [(ref, number) for ref in made.refs])
                grown += len(body) - row[4]
            self._bytes += grown

    def get(self, id: str) -> Manifest | None:
        """One manifest; None if there is none of that id."""
        row = self._database.row("SELECT id, context, at, body FROM packs WHERE id = ?", (id,))
        return None if row is None else _manifest(row)

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


def _packed(manifest: Manifest) -> bytes:
    return zlib.compress(msgspec.json.encode((manifest.pack, manifest.hashes), enc_hook=str), 1)


def _manifest(row: tuple[Any, ...]) -> Manifest:
    pack, hashes = msgspec.json.decode(zlib.decompress(row[3]))
    return Manifest(row[0], row[1], row[2], pack, [[(one, of) for one, of in section] for section in hashes])
