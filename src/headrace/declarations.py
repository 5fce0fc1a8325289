"""What an app declares: streams, tables, the collections that keep tables searchable, and what it publishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.document import Column, TableSchema
from headrace.registry import DEFAULT as CONNECTORS
from headrace.schema import Schema

if TYPE_CHECKING:
    from headrace.documents.handlers import Handlers
    from headrace.documents.rank import Reranker


# What an index keeps of a point besides columns; no column of that name can be filtered by.
OWN = frozenset({"document", "text"})


@dataclass(frozen=True, eq=False)
class Stream:
    """A named, typed, unbounded sequence of events.

    Attributes:
        name: As in URLs.
        schema: The model's columns.
        url: Where events come from besides pushes; None for pushes only.
        lateness: How far back, in microseconds, reads with `now=` stay exact, and how long past their windows tiles are
            kept for events that come late.
        options: More of the source than its URL says; it may hold secrets, which are shown nowhere.
    """

    name: str
    schema: Schema
    url: str | None
    lateness: int
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def source(self) -> Any:
        """The source behind the URL; it holds nothing open until it is read.

        Raises:
            ConfigError: The URL or an option cannot be used.
        """
        assert self.url is not None
        return CONNECTORS.create("source", self.url, **self.options)


@dataclass(frozen=True)
class Publication:
    """A view that is published.

    Attributes:
        view: Its name.
        url: Where to.
        every: The shortest time between two rows of a key, in microseconds.
    """

    view: str
    url: str
    every: int


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with a primary key that are inserted, updated and deleted.

    Attributes:
        name: As in URLs.
        schema: Its types and its key.
        url: Where changes come from besides pushes; None for pushes only.
        history: For how long revisions that were replaced can be asked for, in microseconds.
        options: More of the source than its URL says; it may hold secrets, which are shown nowhere.
    """

    name: str
    schema: TableSchema
    url: str | None
    history: int
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def source(self) -> Any:
        """The source behind the URL; it holds nothing open until it is read.

        Raises:
            ConfigError: The URL or an option cannot be used.
        """
        assert self.url is not None
        return CONNECTORS.create("table", self.url, **self.options)


@dataclass(frozen=True, eq=False)
class Collection:
    """A table's documents, kept cleaned, chunked, embedded and searchable.

    Attributes:
        name: As in URLs and tools.
        about: What a model is told that it can find here.
        table: Whose documents they are.
        handlers: How each type of document is cleaned, chunked and embedded.
        index: Where the chunks are searched.
        rerank: What orders the best hits anew, or None.
        columns: What a search can filter by.
    """

    name: str
    about: str
    table: Table
    handlers: Handlers
    index: str
    rerank: Reranker | Callable[..., Any] | None
    columns: Mapping[str, Column]

    def pipeline(self, kind: str) -> str:
        """A text that changes when documents of a type would be made otherwise than they are now."""
        return f"{self.handlers.fingerprint(kind)}/{','.join(sorted(self.columns))}"

    def embedders(self) -> dict[str, Any]:
        """Of each type, its embedder or the name of it."""
        return {kind: self.handlers.embedder(kind) for kind in self.table.schema.models}

    def described(self, kind: str) -> str:
        """What is done with documents of a type, in a line."""
        handler = self.handlers.handler(kind)
        text = ", ".join(handler.text) if isinstance(handler.text, tuple) else "a function"
        embedder = handler.embed if isinstance(handler.embed, str) else handler.embed.name
        return f"{text} in chunks of at most {handler.chunking.tokens} tokens, embedded by {embedder}"
