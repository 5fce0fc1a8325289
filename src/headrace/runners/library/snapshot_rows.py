"""What a snapshot's columns are, and its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.document import Column
from headrace.errors import InputError
from headrace.stores.history.vectors import StoredVectors
from headrace.stores.records import ChunkRecord, DocumentRecord
from headrace.units import from_micros

if TYPE_CHECKING:
    from headrace.declarations import Collection

_TIME = pl.Datetime("us", "UTC")
DOCUMENTS: dict[str, Any] = {
    "key": pl.String,
    "kind": pl.String,
    "version": pl.Int64,
    "at": _TIME,
    "source": pl.String,
    "trusted": pl.Boolean,
    "title": pl.String,
    "text": pl.String,
    "format": pl.String,
}
CHUNKS: dict[str, Any] = {
    "id": pl.String,
    "document": pl.String,
    "kind": pl.String,
    "version": pl.Int64,
    "at": _TIME,
    "source": pl.String,
    "trusted": pl.Boolean,
    "title": pl.String,
    "hash": pl.String,
    "number": pl.Int64,
    "headings": pl.List(pl.String),
    "text": pl.String,
    "embedded": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
    "embedder": pl.String,
    "vector": pl.List(pl.Float32),
}
_TYPES: dict[str, Any] = {"str": pl.String, "int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "time": _TIME}
_MOST_INT = 2**63 - 1


def column_names(collection: Collection) -> dict[str, str]:
    """The columns that documents are filtered by, and what a snapshot calls them.

    Its own go first: a model's `source` is `row_source` there. A column that is text in every type is left out, since
    `title` and `text` hold it clean.
    """
    handlers = collection.handlers.by_kind
    models = collection.table.schema.models

    def is_text(name: str) -> bool:
        read = [handlers[kind].text for kind, model in models.items() if name in model.model_fields]
        return all(isinstance(columns, tuple) and name in columns for columns in read)

    found: dict[str, str] = {}
    for name in collection.columns:
        shown = name
        while shown in DOCUMENTS or (shown != name and shown in collection.columns):
            shown = f"row_{shown}"
        if not is_text(name):
            found[name] = shown
    return found


def dtype(column: Column) -> Any:
    """The type of a column of a model in a snapshot."""
    one = _TYPES[column.type]
    return pl.List(one) if column.many else one


def typed(value: Any, column: Column) -> Any:
    """A value that documents are filtered by, as its column holds it.

    Raises:
        InputError: No column of that type can.
    """
    if column.type == "int" and any(abs(one) > _MOST_INT for one in (value if column.many else [value])):
        raise InputError("expected integers of 64 bits, which a column can hold, found a larger one")
    if column.type != "time":
        return value
    return [from_micros(one) for one in value] if column.many else from_micros(value)


def chunk_rows(
    documents: Iterable[tuple[DocumentRecord, list[ChunkRecord]]], embedders: Mapping[int, str], vectors: StoredVectors
) -> Iterator[dict[str, Any]]:
    """Each chunk with what is known of its document, its embedder and, where it is there, its vector."""
    for document, found in documents:
        for chunk in found:
            embedder = embedders[chunk.space]
            vector = vectors.get(chunk.hash, embedder)
            yield {
                "id": chunk.id,
                "document": chunk.document,
                "kind": document.kind,
                "version": document.seq,
                "at": from_micros(document.at),
                "source": document.source,
                "trusted": document.trusted,
                "title": document.title,
                "hash": chunk.hash.hex(),
                "number": chunk.number,
                "headings": list(chunk.headings),
                "text": chunk.text,
                "embedded": chunk.embedded or chunk.text,
                "start": chunk.start,
                "end": chunk.end,
                "embedder": embedder,
                "vector": None if vector is None else pl.Series(vector),
            }
