"""What a collection knows of its chunks: which are alive in which document, and what an index still has to forget.

The records are the truth and an index a cache of them. A revision becomes visible in one transaction here (the flip):
the document's old chunks go, the new ones come, the position moves on. Before it, the new points are noted as
`pending` and written to the index; after it, the old ones are noted as `garbage` until the index has dropped them.
Whatever is interrupted, at the next start what is pending without being alive, and what is garbage, is dropped.

A reader holds a read transaction from before it asks the index until it has looked up what came back: hits that its
moment does not know do not count, and those it knows are still in the index, because garbage is only dropped when
readers older than its flip have gone.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headrace.stores.database import Database

_SCHEMA = """
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE spaces (space INTEGER PRIMARY KEY, spec TEXT NOT NULL, embedder TEXT NOT NULL, dimension INTEGER NOT NULL);
CREATE TABLE uses (kind TEXT NOT NULL, space INTEGER NOT NULL, live INTEGER NOT NULL, PRIMARY KEY (kind, space));
CREATE TABLE documents (
    key TEXT PRIMARY KEY, seq INTEGER NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL, source TEXT NOT NULL,
    trusted INTEGER NOT NULL, title TEXT NOT NULL, columns TEXT NOT NULL, pipeline TEXT NOT NULL, problem TEXT
) WITHOUT ROWID;
CREATE INDEX documents_by_pipeline ON documents (pipeline);
CREATE TABLE chunks (
    id TEXT PRIMARY KEY, space INTEGER NOT NULL, document TEXT NOT NULL, hash BLOB NOT NULL, number INTEGER NOT NULL,
    text TEXT NOT NULL, embedded TEXT, headings TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX chunks_by_document ON chunks (document, space);
CREATE TABLE pending (id TEXT PRIMARY KEY, space INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE garbage (id TEXT PRIMARY KEY, space INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO state VALUES ('position', '0')"""
_VERSION = 1
_CHUNK = "id, space, document, hash, number, text, embedded, headings, start, end"
_DOCUMENT = "key, seq, kind, at, source, trusted, title, columns, pipeline, problem"
_CHUNK_COLUMNS = 10
_ALIVE = f"""SELECT json_group_array(json_array(
    id, space, document, hex(hash), number, text, embedded, headings, start, "end", {_DOCUMENT}
)) FROM chunks JOIN documents ON key = document WHERE id IN (SELECT value FROM json_each(?))"""


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """A chunk that is alive.

    Attributes:
        embedded: What was embedded, where that is not `text`.
    """

    id: str
    space: int
    document: str
    hash: bytes
    number: int
    text: str
    embedded: str | None
    headings: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document as the collection has it.

    Attributes:
        columns: What it can be filtered by.
        pipeline: How it was made into chunks; another text means that it is to be made again.
        problem: Why it has no chunks, though it is there.
    """

    key: str
    seq: int
    kind: str
    at: int
    source: str
    trusted: bool
    title: str
    columns: Mapping[str, Any]
    pipeline: str
    problem: str | None = None


@dataclass(frozen=True)
class Space:
    """An embedder's vectors of a collection: one index.

    Attributes:
        spec: What the embedder was asked for by; None in its place where it was handed over as an object.
        embedder: Its name: what the vectors depend on.
        uses: The kinds of documents in it, and whether it is searched for them (else it is being filled).
    """

    number: int
    spec: str
    embedder: str
    dimension: int
    uses: Mapping[str, bool]


@dataclass(frozen=True)
class Flip:
    """What becomes visible at once.

    Attributes:
        documents: Those that are written.
        gone: The keys of those that are deleted.
        written: Chunks, new and kept (which may have moved).
        removed: The ids and spaces of chunks that are no more.
        position: The table's number that the collection has then followed; None where it does not move.
    """

    documents: Sequence[DocumentRecord]
    gone: Sequence[str]
    written: Sequence[ChunkRecord]
    removed: Sequence[tuple[str, int]]
    position: int | None


class Moment:
    """The records as they were at one moment."""

    def __init__(self, run: sqlite3.Connection) -> None:
        self._run = run
        # The first statement is what fixes the moment.
        self.position = int(run.execute("SELECT value FROM state WHERE name = 'position'").fetchone()[0])

    def spaces(self) -> list[Space]:
        """The spaces, in order of their numbers."""
        uses: dict[int, dict[str, bool]] = {}
        for kind, space, live in self._run.execute("SELECT kind, space, live FROM uses"):
            uses.setdefault(space, {})[kind] = bool(live)
        found = self._run.execute("SELECT space, spec, embedder, dimension FROM spaces ORDER BY space").fetchall()
        return [Space(n, spec, name, size, uses.get(n, {})) for n, spec, name, size in found]

    def searched(self) -> dict[int, set[str]]:
        """Of each space the kinds of documents that are searched there."""
        query = "SELECT json_group_array(json_array(kind, space)) FROM uses WHERE live"
        found: dict[int, set[str]] = {}
        for kind, space in self._gathered(query, ()):
            found.setdefault(space, set()).add(kind)
        return found

    def alive(self, ids: Iterable[str]) -> dict[str, tuple[ChunkRecord, DocumentRecord]]:
        """Those of the ids that are alive, with their documents."""
        rows = self._gathered(_ALIVE, (_json(list(ids)),))
        return {row[0]: (_gathered_chunk(row[:_CHUNK_COLUMNS]), _document(row[_CHUNK_COLUMNS:])) for row in rows}

    def of_document(self, key: str) -> list[ChunkRecord]:
        """A document's chunks in all spaces, in their order."""
        query = f"SELECT {_CHUNK} FROM chunks WHERE document = ? ORDER BY space, number"
        return [_chunk(row) for row in self._run.execute(query, (key,))]

    def documents(self, keys: Iterable[str]) -> dict[str, DocumentRecord]:
        """Those of the keys that are there."""
        query = f"SELECT {_DOCUMENT} FROM documents WHERE key = ?"
        found = (self._run.execute(query, (one,)).fetchone() for one in keys)
        return {row[0]: _document(row) for row in found if row is not None}

    def outdated(self, pipelines: Mapping[str, str], limit: int) -> list[str]:
        """Keys of documents that were made otherwise than `pipelines` says for their kind."""
        known = list(pipelines.values())
        marks = ", ".join("?" * len(known))
        query = f"SELECT key FROM documents WHERE pipeline NOT IN ({marks}) LIMIT ?"
        return [key for (key,) in self._run.execute(query, (*known, limit))]

    def missing(self, space: int, kind: str, after: str, limit: int) -> list[str]:
        """Keys, past `after`, of documents of a kind that may have no chunks in a space yet."""
        query = (
            "SELECT key FROM documents d WHERE kind = ? AND key > ? AND problem IS NULL AND NOT EXISTS ("
            "SELECT 1 FROM chunks WHERE document = d.key AND space = ?) ORDER BY key LIMIT ?"
        )
        return [key for (key,) in self._run.execute(query, (kind, after, space, limit))]

    def _gathered(self, query: str, values: Sequence[object]) -> list[Any]:
        """The rows that a statement makes one JSON array of."""
        found: list[Any] = msgspec.json.decode(self._run.execute(query, values).fetchone()[0])
        return found

    def counts(self) -> tuple[int, int, int]:
        """Documents, chunks, and documents with a problem."""
        one = self._run.execute(
            "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM chunks), "
            "(SELECT count(*) FROM documents WHERE problem IS NOT NULL)"
        ).fetchone()
        return one[0], one[1], one[2]

    def ids(self, space: int) -> Iterator[str]:
        """The ids of all chunks of a space."""
        for (found,) in self._run.execute("SELECT id FROM chunks WHERE space = ?", (space,)):
            yield found


class Records:
    """A collection's records; for any number of threads, of which one writes.

    Args:
        path: The database's file, made if it is not there.
        durable: Whether a flip is on the disk when it returns.

    Raises:
        StorageError: The file cannot be opened.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._database = Database(path, _SCHEMA, _VERSION, "the collection's records", durable=durable)

    @contextlib.contextmanager
    def moment(self) -> Iterator[Moment]:
        """The records as they are now, for as long as the block takes."""
        with self._database.read() as run:
            yield Moment(run)

    def intend(self, points: Iterable[tuple[str, int]]) -> None:
        """These points are about to be written to their spaces' indexes."""
        with self._database.write() as run:
            run.executemany("INSERT OR IGNORE INTO pending VALUES (?, ?)", points)
            # A point that comes back is no longer to be dropped.
            run.execute("DELETE FROM garbage WHERE id IN (SELECT id FROM pending)")

    def flip(self, flip: Flip) -> None:
        """Makes a batch of revisions visible, all at once and durably.

        Raises:
            StorageError: It could not be written; nothing of it is visible.
        """
        with self._database.write() as run:
            run.executemany("DELETE FROM documents WHERE key = ?", ((key,) for key in flip.gone))
            run.executemany(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        *(d.key, d.seq, d.kind, d.at, d.source, d.trusted, d.title),
                        _json(d.columns),
                        d.pipeline,
                        d.problem,
                    )
                    for d in flip.documents
                ),
            )
            run.executemany("DELETE FROM chunks WHERE id = ?", ((one,) for one, _ in flip.removed))
            run.executemany("INSERT OR REPLACE INTO garbage VALUES (?, ?)", flip.removed)
            run.executemany(
                "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        *(c.id, c.space, c.document, c.hash, c.number, c.text, c.embedded),
                        _json(c.headings),
                        c.start,
                        c.end,
                    )
                    for c in flip.written
                ),
            )
            run.execute("DELETE FROM pending")
            if flip.position is not None:
                run.execute("UPDATE state SET value = ? WHERE name = 'position'", (str(flip.position),))

    def garbage(self) -> list[tuple[str, int]]:
        """What indexes have to drop: ids and spaces."""
        with self._database.read() as run:
            return run.execute("SELECT id, space FROM garbage").fetchall()

    def dropped(self, ids: Iterable[str]) -> None:
        """These are dropped."""
        with self._database.write() as run:
            run.executemany("DELETE FROM garbage WHERE id = ?", ((one,) for one in ids))

    def recover(self) -> None:
        """After a start: what was about to be written and never became visible is garbage."""
        with self._database.write() as run:
            run.execute("DELETE FROM pending WHERE id IN (SELECT id FROM chunks)")
            run.execute("INSERT OR IGNORE INTO garbage SELECT id, space FROM pending")
            run.execute("DELETE FROM pending")

    def add_space(self, spec: str, embedder: str, dimension: int) -> int:
        """A new space; its number."""
        with self._database.write() as run:
            values = (spec, embedder, dimension)
            made = run.execute("INSERT INTO spaces (spec, embedder, dimension) VALUES (?, ?, ?)", values)
            assert made.lastrowid is not None
            return made.lastrowid

    def use(self, kind: str, space: int, *, live: bool) -> None:
        """A kind is in a space from now on; if `live`, it is searched there, and in no other space any more."""
        with self._database.write() as run:
            if live:
                run.execute("DELETE FROM uses WHERE kind = ?", (kind,))
            run.execute("INSERT OR REPLACE INTO uses VALUES (?, ?, ?)", (kind, space, live))

    def end_use(self, kind: str, space: int) -> None:
        """A kind is no longer filled into a space."""
        with self._database.write() as run:
            run.execute("DELETE FROM uses WHERE kind = ? AND space = ?", (kind, space))

    def remove_of_kind(self, space: int, kind: str, limit: int) -> int:
        """Takes some chunks of a kind out of a space that it is no longer in; returns how many."""
        query = (
            "SELECT c.id, c.space FROM chunks c JOIN documents d ON d.key = c.document "
            "WHERE c.space = ? AND d.kind = ? LIMIT ?"
        )
        with self._database.write() as run:
            found = run.execute(query, (space, kind, limit)).fetchall()
            run.executemany("INSERT OR REPLACE INTO garbage VALUES (?, ?)", found)
            run.executemany("DELETE FROM chunks WHERE id = ?", ((one,) for one, _ in found))
        return len(found)

    def remove_space(self, space: int) -> None:
        """A space that nothing uses is no more; its index has been dropped."""
        with self._database.write() as run:
            run.execute("DELETE FROM chunks WHERE space = ?", (space,))
            run.execute("DELETE FROM garbage WHERE space = ?", (space,))
            run.execute("DELETE FROM uses WHERE space = ?", (space,))
            run.execute("DELETE FROM spaces WHERE space = ?", (space,))

    def overwrite_deleted(self) -> None:
        """From now on what is deleted is overwritten in the file, too."""
        self._database.overwrite_deleted()

    def scrub(self) -> bool:
        """Empties the write-ahead log, which holds copies of what is deleted; False if a reader is in the way."""
        return self._database.scrub()

    def close(self) -> None:
        """Lets go of the file; again does nothing."""
        self._database.close()


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _chunk(row: Sequence[Any]) -> ChunkRecord:
    id, space, document, digest, number, text, embedded, headings, start, end = row
    path = tuple(msgspec.json.decode(headings))
    return ChunkRecord(id, space, document, digest, number, text, embedded, path, start, end)


def _gathered_chunk(row: Sequence[Any]) -> ChunkRecord:
    """Of a row in JSON, which has no bytes."""
    return _chunk((*row[:3], bytes.fromhex(row[3]), *row[4:]))


def _document(row: Sequence[Any]) -> DocumentRecord:
    key, seq, kind, at, source, trusted, title, columns, pipeline, problem = row
    known = msgspec.json.decode(columns)
    return DocumentRecord(key, seq, kind, at, source, bool(trusted), title, known, pipeline, problem)
