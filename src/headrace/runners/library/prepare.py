"""A batch of revisions made into what is to be written: documents, chunks, and the points that are new.

A document is cleaned and cut for each space that its type is in (embedders differ in what they call a token), and only
chunks that were not there before are embedded. A document that cannot be made is there with its problem and without
chunks: what it said before is no longer true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from headrace.document import Column, Document
from headrace.documents.identity import identified
from headrace.documents.states import Chunk, Raw
from headrace.errors import InputError
from headrace.stores.records import ChunkRecord, DocumentRecord, Moment
from headrace.stores.tables import Revision
from headrace.units import to_micros

if TYPE_CHECKING:
    from headrace.declarations import Collection


@dataclass
class Prepared:
    """What a batch comes to.

    Attributes:
        documents: As they will be, by key.
        columns: What each is filtered by.
        chunks: What each document consists of, by (key, space).
        fresh: The chunks that no index has, by space.
        old: The chunks that documents had, by key.
        rewritten: Keys of documents whose kept points change, since what they are filtered by did.
        problems: Why documents cannot be made, by key.
        gone: The keys of documents that are deleted.
    """

    documents: dict[str, DocumentRecord] = field(default_factory=dict)
    chunks: dict[tuple[str, int], list[Chunk]] = field(default_factory=dict)
    fresh: dict[int, list[Chunk]] = field(default_factory=dict)
    old: dict[str, list[ChunkRecord]] = field(default_factory=dict)
    rewritten: set[str] = field(default_factory=set)
    problems: dict[str, tuple[str, Revision]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)


class Preparer:
    """Makes batches of one collection.

    Args:
        collection: What was declared; its name is part of every chunk's identity.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._name = collection.name
        self._schema = collection.table.schema
        self._handlers = collection.handlers
        self._columns = collection.columns

    def prepare(
        self, revisions: Sequence[Revision], spaces: Mapping[str, Mapping[int, Any]], moment: Moment
    ) -> Prepared:
        """Makes a batch.

        Args:
            revisions: Of each row the newest.
            spaces: Of each type, the spaces that it is in, with their embedders.
            moment: The records as they are.
        """
        made = Prepared()
        before = moment.documents(one.key for one in revisions)
        for revision in revisions:
            made.old[revision.key] = moment.of_document(revision.key)
            if revision.body is None or revision.kind not in self._schema.models:
                made.gone.append(revision.key)
                continue
            try:
                self._one(made, revision, spaces.get(revision.kind, {}), before.get(revision.key))
            except InputError as error:
                self.fail(made, revision, str(error))
        return made

    def _one(
        self, made: Prepared, revision: Revision, spaces: Mapping[int, Any], before: DocumentRecord | None
    ) -> None:
        document = self._schema.load(revision.kind, revision.body or b"")
        raw = Raw(revision.key, revision.kind, document, revision.seq, revision.at, revision.source, revision.trusted)
        cleaned = self._handlers.cleaned(raw)
        known = {chunk.id for chunk in made.old[revision.key]}
        for number, embedder in spaces.items():
            pieces = self._handlers.pieces(cleaned, embedder)
            chunks = identified(f"{self._name}/{embedder.name}", revision.key, pieces)
            made.chunks[revision.key, number] = chunks
            made.fresh.setdefault(number, []).extend(chunk for chunk in chunks if chunk.id not in known)
        columns = columns_of(document, self._columns)
        if before is not None and dict(before.columns) != columns:
            made.rewritten.add(revision.key)
        made.documents[revision.key] = self._record(revision, cleaned.title, columns)

    def _record(self, revision: Revision, title: str, columns: Mapping[str, Any]) -> DocumentRecord:
        return DocumentRecord(
            revision.key,
            revision.seq,
            revision.kind,
            revision.at,
            revision.source,
            revision.trusted,
            title,
            columns,
            self._collection.pipeline(revision.kind),
        )

    def fail(self, made: Prepared, revision: Revision, reason: str) -> None:
        """Takes a document's chunks out of a batch: it is there, and cannot be searched."""
        for key, number in [one for one in made.chunks if one[0] == revision.key]:
            lost = {chunk.id for chunk in made.chunks.pop((key, number))}
            made.fresh[number] = [chunk for chunk in made.fresh.get(number, []) if chunk.id not in lost]
        made.rewritten.discard(revision.key)
        made.documents[revision.key] = replace(self._record(revision, "", {}), problem=reason)
        made.problems[revision.key] = (reason, revision)


def columns_of(document: Document, columns: Mapping[str, Column]) -> dict[str, Any]:
    """What a document is filtered by, as JSON: times in microseconds since the Unix epoch."""
    return {name: _plain(value) for name in columns if (value := getattr(document, name, None)) is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, datetime):
        return to_micros(value)
    if isinstance(value, date):
        return to_micros(datetime(value.year, value.month, value.day))
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(one) for one in value if one is not None]
        return sorted(items, key=repr) if isinstance(value, set | frozenset) else items
    return value


def difference(made: Prepared) -> tuple[list[ChunkRecord], list[tuple[str, int]], int]:
    """What a batch writes to the records and takes from them, and how many chunks stayed."""
    written: list[ChunkRecord] = []
    removed: list[tuple[str, int]] = []
    kept = 0
    for key, old in made.old.items():
        before = {chunk.id: chunk for chunk in old}
        after = {
            chunk.id: _record(chunk, number)
            for (document, number), chunks in made.chunks.items()
            if document == key
            for chunk in chunks
        }
        written += [record for one, record in after.items() if before.get(one) != record]
        removed += [(one, chunk.space) for one, chunk in before.items() if one not in after]
        kept += len(before.keys() & after.keys())
    return written, removed, kept


def _record(chunk: Chunk, space: int) -> ChunkRecord:
    return ChunkRecord(
        chunk.id,
        space,
        chunk.document,
        bytes.fromhex(chunk.hash),
        chunk.number,
        chunk.text,
        None if chunk.embedded == chunk.text else chunk.embedded,
        chunk.headings,
        chunk.start,
        chunk.end,
    )
