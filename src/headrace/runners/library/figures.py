"""The counters of tables and collections, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TableFigures:
    """A table's counts since the start, and how it stands.

    Attributes:
        seq: The number of its last change.
        changed: Rows that were written or deleted.
        same: Rows that were told again, and were the same.
        older: Changes that came after a newer one of the same row.
        rejected: Inputs that became dead letters.
        lag: What its source still holds, by unit.
        problem: What is in the way of its source, which is tried again.
    """

    seq: int = 0
    rows: int = 0
    changed: int = 0
    same: int = 0
    older: int = 0
    rejected: int = 0
    lag: Mapping[str, int] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class CollectionFigures:
    """How a collection stands.

    Attributes:
        position: The table's number that it has followed.
        waiting: Changed rows of the table that it has not followed yet.
        behind: Seconds since the oldest of them was stored, as far as that is known.
        failed: Documents that could not be made into chunks.
        embedded: Chunks embedded since the start, or taken from the cache.
        kept: Chunks of changed documents that were there already.
        written: Points written to indexes.
        removed: Points dropped from them.
        filling: Indexes that are being filled anew.
        problem: What is in the way, and is tried again.
    """

    position: int = 0
    documents: int = 0
    chunks: int = 0
    failed: int = 0
    waiting: int = 0
    behind: float = 0.0
    embedded: int = 0
    kept: int = 0
    written: int = 0
    removed: int = 0
    filling: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class MemoryFigures:
    """A memory's counts since the start.

    Attributes:
        summaries: Summaries made, by what made them: "extractive", "function" or "model".
        failed: Those that the function or the model did not make, so that they were extracted.
    """

    summaries: Mapping[str, int] = field(default_factory=dict)
    failed: int = 0


@dataclass(frozen=True)
class LibraryFigures:
    """The counters of all tables, collections and memories."""

    tables: Mapping[str, TableFigures] = field(default_factory=dict)
    collections: Mapping[str, CollectionFigures] = field(default_factory=dict)
    memories: Mapping[str, MemoryFigures] = field(default_factory=dict)
