"""A table at rest: its rows as they are now, every revision they went through, and where its sources stand.

It is a log and its newest state in one: each change gets the next number (`seq`), a row knows the number of its last
change, and a deleted row stays as a mark. So who follows the table asks for "what changed after n" and is told each
row once, as it is now, however often it changed meanwhile. A source's position is written in the transaction that
writes its rows: after a crash neither is ahead of the other.

A snapshot of a source is numbered; rows that it did not tell, and that came from the same source, are gone when it is
complete.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from headrace.stores.database import Database

_SCHEMA = """
CREATE TABLE rows (
    key TEXT PRIMARY KEY, seq INTEGER NOT NULL, kind TEXT NOT NULL, body BLOB, digest BLOB, at INTEGER NOT NULL,
    version INTEGER, source TEXT NOT NULL, trusted INTEGER NOT NULL, feed TEXT NOT NULL, scan INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX rows_by_seq ON rows (seq);
CREATE INDEX rows_by_feed ON rows (feed, scan);
CREATE TABLE history (
    seq INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, body BLOB, at INTEGER NOT NULL,
    stored INTEGER NOT NULL, source TEXT NOT NULL, trusted INTEGER NOT NULL
);
CREATE INDEX history_by_key ON history (key, seq);
CREATE INDEX history_by_time ON history (stored);
CREATE TABLE feeds (feed TEXT PRIMARY KEY, position TEXT, scan INTEGER NOT NULL);
CREATE TABLE last (seq INTEGER NOT NULL);
INSERT INTO last VALUES (0)"""
_VERSION = 1
_ROW = "key, seq, kind, body, at, source, trusted"


@dataclass(frozen=True, slots=True)
class Write:
    """A row to be written, or taken away.

    Attributes:
        body: The row as a JSON object; None deletes it.
        at: When it changed, microseconds since the Unix epoch.
        version: See `headrace.cdc.Change`.
    """

    key: str
    kind: str
    body: bytes | None
    at: int
    version: int | None = None
    source: str = ""
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Revision:
    """A row as the table has it; a `body` of None says that it was deleted."""

    key: str
    seq: int
    kind: str
    body: bytes | None
    at: int
    source: str
    trusted: bool


@dataclass(frozen=True)
class Applied:
    """What came of a batch: the table's number after it, and how many rows changed, were the same, or were older."""

    seq: int
    changed: int = 0
    same: int = 0
    older: int = 0


@dataclass(frozen=True)
class Feed:
    """What a batch of a source says besides its rows; see `headrace.sources.tables.Changes`."""

    name: str
    position: Any = None
    begins: bool = False
    complete: bool = False


class TableStore:
    """One table's rows; for any number of threads.

    Args:
        path: The database's file, made if it is not there.
        durable: Whether what is written is on the disk when `apply` returns.

    Raises:
        StorageError: The file cannot be opened.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._database = Database(path, _SCHEMA, _VERSION, "the table", durable=durable)
        # A number is given once: the next batch begins where the one before has ended, and is on the disk.
        self._numbering = threading.Lock()
        self._seq = self._number("SELECT seq FROM last")

    @property
    def seq(self) -> int:
        """The number of the last change."""
        return self._seq

    def apply(self, writes: Iterable[Write | None], feed: Feed, now: int) -> Applied:
        """Writes a batch, durably: all of it, and where its source stands, or nothing.

        Args:
            writes: In order; None is a truncate: every row that came from this feed is gone.
            now: Microseconds since the Unix epoch.

        Raises:
            StorageError: It could not be written.
        """
        with self._numbering:
            with self._database.write() as run:
                batch = _Batch(run, feed, self._seq, now)
                for write in writes:
                    if write is None:
                        batch.delete_where("feed = ?", (feed.name,))
                    else:
                        batch.write(write)
                if feed.complete:
                    batch.delete_where("feed = ? AND scan < ?", (feed.name, batch.scan))
                batch.finish()
            self._seq = batch.seq
        return Applied(batch.seq, batch.changed, batch.same, batch.older)

    def touch(self, key: str) -> None:
        """Gives a row the next number, as if it had changed: who follows the table is told it again."""
        with self._numbering:
            with self._database.write() as run:
                if run.execute("UPDATE rows SET seq = ? WHERE key = ?", (self._seq + 1, key)).rowcount == 0:
                    return
                run.execute("UPDATE last SET seq = ?", (self._seq + 1,))
            self._seq += 1

    def position(self, feed: str) -> Any | None:
        """Where a source stands; None if it was never read."""
        found = self._database.row("SELECT position FROM feeds WHERE feed = ?", (feed,))
        return None if found is None or found[0] is None else msgspec.json.decode(found[0])

    def since(self, seq: int, limit: int, most_bytes: int, stop: int | None = None) -> tuple[list[Revision], int]:
        """What changed after `seq`, each row once and as it is now, and the change up to which that is all.

        About `limit` rows, one at least; rows past `most_bytes` together are left for the next call. A row that changed
        up to there and once more since is told as well: whoever has followed so far has seen its earlier change, too.

        Args:
            stop: The last change that is told; rows are told as they were after what is told, not as they are now.
        """
        found: list[Revision] = []
        size = 0
        with self._database.read() as run:
            upto: int = run.execute("SELECT seq FROM last").fetchone()[0]
            upto = upto if stop is None else min(upto, stop)
            query = f"SELECT {_ROW} FROM rows WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
            for row in run.execute(query, (seq, upto, limit + 1)):
                size += len(row[3] or b"")
                if len(found) == limit or (found and size > most_bytes):
                    upto = found[-1].seq
                    break
                found.append(_revision(row))
            found += self._again(run, seq, upto) if stop is None else self._earlier(run, seq, upto)
        return found, upto

    @staticmethod
    def _again(run: sqlite3.Connection, after: int, upto: int) -> list[Revision]:
        """Rows that changed in between, and once more since, as they are now."""
        query = (
            f"SELECT {_ROW} FROM rows WHERE seq > ?2 AND key IN "
            "(SELECT key FROM history WHERE seq > ?1 AND seq <= ?2) ORDER BY seq"
        )
        return [_revision(row) for row in run.execute(query, (after, upto))]

    @staticmethod
    def _earlier(run: sqlite3.Connection, after: int, upto: int) -> list[Revision]:
        """Rows that changed in between, and once more since, as they were then."""
        query = (
            "SELECT h.key, h.seq, h.kind, h.body, h.at, h.source, h.trusted FROM history h JOIN ("
            "SELECT key, max(seq) AS newest FROM history WHERE seq > ?1 AND seq <= ?2 GROUP BY key"
            ") n ON h.seq = n.newest JOIN rows r ON r.key = h.key WHERE r.seq > ?2 ORDER BY h.seq"
        )
        return [
            _revision((*row[:3], None if row[3] is None else zlib.decompress(row[3]), *row[4:]))
            for row in run.execute(query, (after, upto))
        ]

    def get(self, keys: Sequence[str]) -> dict[str, Revision]:
        """Rows by key; what is deleted or was never there is left out."""
        if not keys:
            return {}
        among = "(SELECT value FROM json_each(?))"
        query = f"SELECT {_ROW} FROM rows WHERE key IN {among} AND body IS NOT NULL"
        with self._database.read() as run:
            rows = run.execute(query, (msgspec.json.encode(list(keys)).decode(),)).fetchall()
        found = {row[0]: _revision(row) for row in rows}
        return {key: found[key] for key in keys if key in found}

    def count(self) -> int:
        """How many rows there are."""
        return self._number("SELECT count(*) FROM rows WHERE body IS NOT NULL")

    def waiting(self, seq: int) -> int:
        """How many rows changed after `seq`."""
        if seq >= self._seq:
            return 0
        return self._number("SELECT count(*) FROM rows WHERE seq > ?", (seq,))

    def _number(self, query: str, values: Sequence[object] = ()) -> int:
        found = self._database.row(query, values)
        assert found is not None
        return int(found[0])

    def as_of(self, *, seq: int | None = None, stored: int | None = None) -> Iterator[Revision]:
        """The rows as they were after a change, or at a time, by key; deleted ones are left out.

        Args:
            seq: After this change; None for the last one.
            stored: At this time, by when rows were stored, in microseconds since the Unix epoch.
        """
        most = (1 << 62) if seq is None else seq
        until = (1 << 62) if stored is None else stored
        query = (
            "SELECT h.key, h.seq, h.kind, h.body, h.at, h.source, h.trusted FROM history h JOIN ("
            "SELECT key, max(seq) AS newest FROM history WHERE seq <= ? AND stored <= ? GROUP BY key"
            ") n ON h.seq = n.newest WHERE h.body IS NOT NULL ORDER BY h.key"
        )
        with self._database.read() as run:
            for row in run.execute(query, (most, until)):
                yield _revision((*row[:3], zlib.decompress(row[3]), *row[4:]))

    def prune(self, before: int, passed: int) -> int:
        """Forgets revisions that were replaced before a time, and marks of deletions that all have followed.

        Args:
            before: Microseconds since the Unix epoch; what held then can still be asked for.
            passed: The change that everybody who follows the table has passed.

        Returns:
            How many revisions were forgotten.
        """
        replaced = (
            "DELETE FROM history WHERE stored < ?1 AND EXISTS ("
            "SELECT 1 FROM history later WHERE later.key = history.key AND later.seq > history.seq "
            "AND later.stored < ?1)"
        )
        gone = "DELETE FROM history WHERE stored < ?1 AND body IS NULL"
        marks = (
            "DELETE FROM rows WHERE body IS NULL AND seq <= ? AND NOT EXISTS ("
            "SELECT 1 FROM history WHERE history.key = rows.key)"
        )
        with self._database.write() as run:
            forgotten = run.execute(replaced, (before,)).rowcount + run.execute(gone, (before,)).rowcount
            run.execute(marks, (passed,))
        return forgotten

    def erase(self, keys: Iterable[str]) -> int:
        """Forgets every revision of rows that were deleted; returns how many there were."""
        forgotten = 0
        with self._database.write() as run:
            for key in keys:
                forgotten += run.execute(
                    "DELETE FROM history WHERE key = ?1 AND body IS NOT NULL "
                    "AND EXISTS (SELECT 1 FROM rows WHERE rows.key = ?1 AND rows.body IS NULL)",
                    (key,),
                ).rowcount
        return forgotten

    def close(self) -> None:
        """Lets go of the file; again does nothing."""
        self._database.close()


class _Batch:
    """One transaction's worth of changes."""

    def __init__(self, run: sqlite3.Connection, feed: Feed, seq: int, now: int) -> None:
        self._run = run
        self._feed = feed
        self._now = now
        self.seq = seq
        self.changed = self.same = self.older = 0
        found = run.execute("SELECT scan FROM feeds WHERE feed = ?", (feed.name,)).fetchone()
        self.scan = (found[0] if found else 0) + (1 if feed.begins else 0)

    def write(self, row: Write) -> None:
        digest = None
        if row.body is not None:
            mark = f"{row.kind}\0{row.source}\0{row.trusted:d}\0".encode()
            digest = xxhash.xxh3_128_digest(mark + row.body)
        old = self._run.execute(
            "SELECT digest, version, feed, scan, body IS NULL FROM rows WHERE key = ?", (row.key,)
        ).fetchone()
        if old is not None and _older(row, old[1], bool(old[4])):
            self.older += 1
            return
        if (old is None or old[4]) if row.body is None else (old is not None and old[0] == digest):
            self.same += 1
            if old is not None:
                self._run.execute(
                    "UPDATE rows SET version = coalesce(?, version), feed = ?, scan = ? WHERE key = ?",
                    (row.version, self._feed.name, self.scan, row.key),
                )
            elif row.version is not None:
                self._put(row, None)  # a deletion that came before what it deletes
            return
        self._put(row, digest)
        self._remember(row.key, row.kind, row.body, row.at, row.source, row.trusted)

    def _put(self, row: Write, digest: bytes | None) -> None:
        """Writes a row under the next number; a deletion without a version keeps the one that the row had."""
        self.seq += 1
        self.changed += 1
        mark = (self._feed.name, self.scan)
        self._run.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "seq = excluded.seq, kind = excluded.kind, body = excluded.body, digest = excluded.digest, "
            "at = excluded.at, version = coalesce(excluded.version, version), source = excluded.source, "
            "trusted = excluded.trusted, feed = excluded.feed, scan = excluded.scan",
            (*(row.key, self.seq, row.kind, row.body, digest, row.at, row.version, row.source, row.trusted), *mark),
        )

    def _remember(self, key: str, kind: str, body: bytes | None, at: int, source: str, trusted: bool) -> None:
        packed = None if body is None else zlib.compress(body, 1)
        self._run.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self.seq, key, kind, packed, at, self._now, source, trusted),
        )

    def delete_where(self, condition: str, values: tuple[Any, ...]) -> None:
        """Deletes rows that nobody named one by one."""
        query = f"SELECT key, kind, source, trusted FROM rows WHERE body IS NOT NULL AND {condition}"
        for key, kind, source, trusted in self._run.execute(query, values).fetchall():
            self._put(Write(key, kind, None, self._now, None, source, bool(trusted)), None)
            self._remember(key, kind, None, self._now, source, bool(trusted))
            # Nobody said what is the last version of the row: if it comes again, it is there again.
            self._run.execute("UPDATE rows SET version = NULL WHERE key = ?", (key,))

    def finish(self) -> None:
        position = msgspec.json.encode(self._feed.position).decode()
        self._run.execute("INSERT OR REPLACE INTO feeds VALUES (?, ?, ?)", (self._feed.name, position, self.scan))
        self._run.execute("UPDATE last SET seq = ?", (self.seq,))


def _older(row: Write, version: int | None, deleted: bool) -> bool:
    """Whether a change is one that came before what is there, and is told again."""
    if row.version is None or version is None:
        return False
    # What was deleted had this version already: the same one again is an old message, and not a new row.
    return row.version < version or (deleted and row.body is not None and row.version == version)


def _revision(row: tuple[Any, ...]) -> Revision:
    key, seq, kind, body, at, source, trusted = row
    return Revision(key, seq, kind, body, at, source, bool(trusted))
