"""What enrichments keep: the events that wait, how far each has come, answers, and what was spent.

One SQLite database. The events of an input are taken in with the position that they stand for, in one transaction, and
numbered: whatever they came from, from here on they have one order, which no restart changes. Each event leaves with
what came of it, in one transaction again: how far an enrichment has come, and the *outbox*, the one batch of derived
events that is being pushed. After a crash the outbox may or may not have been pushed; the push log tells, since
nothing else is pushed to that stream. So an event is neither lost nor doubled, wherever a process dies.

Source: the transactional outbox; Kleppmann, "Designing Data-Intensive Applications" (2017), ch. 11.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from headrace.stores.database import Database
from headrace.stores.frames import decode_frame, encode_frame

_SCHEMA = """
CREATE TABLE feeds (name TEXT NOT NULL, source TEXT NOT NULL, position TEXT NOT NULL, PRIMARY KEY (name, source));
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, received INTEGER NOT NULL, rows INTEGER NOT NULL,
    frame BLOB NOT NULL
);
CREATE INDEX entries_by_name ON entries (name, id);
CREATE TABLE progress (name TEXT PRIMARY KEY, entry INTEGER NOT NULL, row INTEGER NOT NULL);
CREATE TABLE outbox (name TEXT PRIMARY KEY, after INTEGER NOT NULL, frame BLOB, letters BLOB NOT NULL);
CREATE TABLE answers (
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, answer BLOB NOT NULL, at INTEGER NOT NULL
);
CREATE TABLE kept (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL);
INSERT INTO kept VALUES (1, 0);
CREATE TABLE spent (
    name TEXT NOT NULL, period TEXT NOT NULL, start INTEGER NOT NULL, tokens INTEGER NOT NULL, money REAL NOT NULL,
    PRIMARY KEY (name, period)
)"""
_VERSION = 1
_OVERHEAD = 64  # bytes that an answer takes beside its text
MOST_ENTRY_ROWS = 1_000

Letter = tuple[str, str, bytes]
"""What a dead letter is known by, its reason, and the event."""


@dataclass(frozen=True)
class Entry:
    """Events that were taken in together: at most a thousand.

    Attributes:
        id: Greater than that of all that were taken in before.
        received: When, in microseconds since the Unix epoch.
    """

    id: int
    received: int
    frame: pl.DataFrame


@dataclass(frozen=True)
class Outbox:
    """What is being pushed.

    Attributes:
        after: The push log's position before it.
        frame: The derived events, or None.
        letters: The dead letters.
    """

    after: int
    frame: pl.DataFrame | None
    letters: Sequence[Letter]


@dataclass(frozen=True)
class Spent:
    """What was spent in a period that began at `start`, microseconds since the Unix epoch."""

    start: int
    tokens: int
    money: float


class EnrichmentStore:
    """The database of an app's enrichments; for any number of threads.

    Args:
        path: Its file, made if it is not there.
        durable: Whether what is written is on the disk when a method returns.
        keep_bytes: Past this size the answers that are oldest are dropped.

    Raises:
        StorageError: It cannot be opened.
    """

    def __init__(self, path: Path, *, durable: bool = True, keep_bytes: int = 1 << 30) -> None:
        self._database = Database(path, _SCHEMA, _VERSION, "the enrichments", durable=durable)
        self._keep_bytes = keep_bytes

    # -- events that wait ------------------------------------------------------------------------------------------

    def position(self, name: str, source: str) -> Any | None:
        """How far an input has been taken in; None if nothing has been."""
        row = self._database.row("SELECT position FROM feeds WHERE name = ? AND source = ?", (name, source))
        return None if row is None else msgspec.json.decode(row[0])

    def take_in(self, name: str, source: str | None, position: Any, frames: Iterable[tuple[int, pl.DataFrame]]) -> int:
        """Takes events in, with the position of their input after them; returns the id of the last entry, or 0.

        Args:
            name: The enrichment.
            source: The input; None for events that are tried again.
            position: Plain JSON.
            frames: Each with when it was received.
        """
        last = 0
        with self._database.write() as run:
            for received, frame in frames:
                for part in frame.iter_slices(MOST_ENTRY_ROWS):
                    last = (
                        run.execute(
                            "INSERT INTO entries (name, received, rows, frame) VALUES (?, ?, ?, ?)",
                            (name, received, part.height, bytes(encode_frame(part))),
                        ).lastrowid
                        or 0
                    )
            if source is not None:
                run.execute(
                    "INSERT OR REPLACE INTO feeds VALUES (?, ?, ?)",
                    (name, source, msgspec.json.encode(position).decode()),
                )
        return last

    def progress(self, name: str) -> tuple[int, int]:
        """The entry that an enrichment is in, and how many of its rows are done."""
        row = self._database.row("SELECT entry, row FROM progress WHERE name = ?", (name,))
        return (0, 0) if row is None else (row[0], row[1])

    def waiting(self, name: str) -> tuple[int, int, int | None]:
        """The last entry's id, the rows of all that are kept, and when the first was received."""
        query = "SELECT coalesce(max(id), 0), coalesce(sum(rows), 0) FROM entries WHERE name = ?"
        with self._database.read() as run:
            last, rows = run.execute(query, (name,)).fetchone()
            first = run.execute("SELECT received FROM entries WHERE name = ? ORDER BY id LIMIT 1", (name,)).fetchone()
        return last, rows, None if first is None else first[0]

    def entries(self, name: str, after: int, limit: int) -> list[Entry]:
        """The next entries past one, at most `limit` of them."""
        query = "SELECT id, received, frame FROM entries WHERE name = ? AND id > ? ORDER BY id LIMIT ?"
        with self._database.read() as run:
            return [Entry(id, at, decode_frame(data)) for id, at, data in run.execute(query, (name, after, limit))]

    # -- what comes of them ----------------------------------------------------------------------------------------

    def decide(self, name: str, entry: int, row: int, finished: int, outbox: Outbox) -> None:
        """What came of the next events is settled: it will be pushed, whatever happens.

        Args:
            name: The enrichment.
            entry: The entry that it is in now.
            row: How many of its rows are done.
            finished: The last entry of which all rows are.
            outbox: What came of them; the one before must have been pushed.
        """
        frame = None if outbox.frame is None else bytes(encode_frame(outbox.frame))
        letters = msgspec.msgpack.encode(list(outbox.letters))
        with self._database.write() as run:
            run.execute("INSERT OR REPLACE INTO progress VALUES (?, ?, ?)", (name, entry, row))
            run.execute("DELETE FROM entries WHERE name = ? AND id <= ?", (name, finished))
            run.execute("INSERT INTO outbox VALUES (?, ?, ?, ?)", (name, outbox.after, frame, letters))

    def outbox(self, name: str) -> Outbox | None:
        """What may or may not have been pushed."""
        row = self._database.row("SELECT after, frame, letters FROM outbox WHERE name = ?", (name,))
        if row is None:
            return None
        letters = msgspec.msgpack.decode(row[2], type=list[Letter])
        return Outbox(row[0], None if row[1] is None else decode_frame(row[1]), letters)

    def pushed(self, name: str) -> None:
        """What was in the outbox has been pushed."""
        with self._database.write() as run:
            run.execute("DELETE FROM outbox WHERE name = ?", (name,))

    # -- answers ---------------------------------------------------------------------------------------------------

    def answers(self, keys: Sequence[bytes], since: int) -> dict[bytes, bytes]:
        """The answers that are there and not older than a time, by key; at most some hundred keys at a time."""
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, answer FROM answers WHERE key IN ({marks}) AND at >= ?"
        with self._database.read() as run:
            return dict(run.execute(query, (*keys, since)).fetchall())

    def keep(self, answers: Iterable[tuple[bytes, bytes]], at: int) -> None:
        """Keeps answers by key; past the limit the oldest go."""
        with self._database.write() as run:
            (bytes_now,) = run.execute("SELECT bytes FROM kept").fetchone()
            for key, answer in answers:
                old = run.execute("SELECT length(answer) FROM answers WHERE key = ?", (key,)).fetchone()
                run.execute("INSERT OR REPLACE INTO answers (key, answer, at) VALUES (?, ?, ?)", (key, answer, at))
                bytes_now += len(answer) + _OVERHEAD - (0 if old is None else old[0] + _OVERHEAD)
            if bytes_now > self._keep_bytes:
                wanted = bytes_now - self._keep_bytes * 9 // 10
                last = 0
                for number, size in run.execute("SELECT number, length(answer) FROM answers ORDER BY number"):
                    last, wanted = number, wanted - size - _OVERHEAD
                    bytes_now -= size + _OVERHEAD
                    if wanted <= 0:
                        break
                run.execute("DELETE FROM answers WHERE number <= ?", (last,))
            run.execute("UPDATE kept SET bytes = ?", (bytes_now,))

    def expire(self, before: int) -> None:
        """Drops the answers that are older than a time."""
        with self._database.write() as run:
            run.execute("DELETE FROM answers WHERE at < ?", (before,))
            run.execute(
                "UPDATE kept SET bytes = (SELECT coalesce(sum(length(answer) + ?), 0) FROM answers)", (_OVERHEAD,)
            )

    # -- what was spent --------------------------------------------------------------------------------------------

    def spent(self, name: str, period: str) -> Spent | None:
        """What an enrichment has spent in the last period of a length that it asked in."""
        query = "SELECT start, tokens, money FROM spent WHERE name = ? AND period = ?"
        row = self._database.row(query, (name, period))
        return None if row is None else Spent(*row)

    def spend(self, name: str, periods: dict[str, Spent]) -> None:
        """Notes what has been spent, by period."""
        with self._database.write() as run:
            run.executemany(
                "INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?, ?)",
                [(name, period, one.start, one.tokens, one.money) for period, one in periods.items()],
            )

    def close(self) -> None:
        """Lets go of the file; again does nothing."""
        self._database.close()
