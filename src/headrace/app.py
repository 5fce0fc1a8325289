"""What a user declares: an app with its streams and feature views. Nothing is started by declaring it."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from headrace.app_chats import AppChats
from headrace.app_contexts import AppContexts
from headrace.app_enrich import AppEnrichments, Enrichment
from headrace.app_memories import AppMemories
from headrace.declarations import OWN, Collection, Context, Memory, Publication, Table
from headrace.declarations import Stream as Stream
from headrace.document import Document, TableSchema
from headrace.errors import ConfigError, SchemaError, UnknownNameError, nearest
from headrace.features.spec import Feature
from headrace.features.view import View
from headrace.registry import DEFAULT as CONNECTORS
from headrace.schema import Event, Schema, snake_case
from headrace.units import duration

if TYPE_CHECKING:
    from headrace.serving.live import Live


class Clock(Protocol):
    """Where `now` comes from when it is not the events themselves."""

    def now(self) -> int:
        """Microseconds since the Unix epoch."""


class WallClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1000


class App(AppContexts, AppMemories, AppChats, AppEnrichments):
    """The declaration of streams and views, and how `now` is told.

    Args:
        name: What logs and the data directory call it.
        clock: "wall": now is the machine's clock. "event": now is the newest event time that a view's stream has seen
            (replays, tests). Or an object with `now()`, as `headrace.testing.VirtualClock`.
        online: Where reads go: "memory:", or "redis://host:6379/0". HEADRACE_ONLINE overrides it.
        runner: What moves the batches: "local" or "bytewax". HEADRACE_RUNNER overrides it.
        checkpoint: How often changed state is journalled.
        lag_limit: Reads are marked as `lagging` while the engine is further behind its input than this.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Literal["wall", "event"] | Clock = "wall",
        online: str = "memory:",
        runner: str = "local",
        checkpoint: str | timedelta | float = "5s",
        lag_limit: str | timedelta | float = "10s",
    ) -> None:
        if not name or not all(c.isalnum() or c in "-_." for c in name):
            raise ConfigError(f"expected an app's name of letters, digits, '-', '_' and '.', found {name!r}")
        if isinstance(clock, str) and clock not in ("wall", "event"):
            raise ConfigError(f'expected clock="wall", clock="event" or an object with now(), found {clock!r}')
        self.name = name
        self.event_time = clock == "event"
        self.clock: Clock = WallClock() if isinstance(clock, str) else clock
        self.online = os.environ.get("HEADRACE_ONLINE") or online
        self.runner = os.environ.get("HEADRACE_RUNNER") or runner
        self.checkpoint = duration(checkpoint)
        self.lag_limit = duration(lag_limit)
        self.streams: dict[str, Stream] = {}
        self.views: dict[str, View] = {}
        self.publications: list[Publication] = []
        self.tables: dict[str, Table] = {}
        self.collections: dict[str, Collection] = {}
        self.memories: dict[str, Memory] = {}
        self.contexts: dict[str, Context] = {}
        self.enrichments: dict[str, Enrichment] = {}

    def stream(
        self,
        model: type[Event],
        url: str | None = None,
        *,
        lateness: str | timedelta | float = "10s",
        name: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Stream:
        """Declares a stream of a model's events.

        Args:
            model: The events.
            url: A source such as ``file:///var/log/payments/*.ndjson?follow=true``. None: events come by push only.
            lateness: How long past their windows tiles are kept.
            name: In URLs; the model's name in snake_case if not given.
            options: Of the source, as in its URL's query; what stands here wins. Secrets belong here rather than there.

        Raises:
            ConfigError: The name is taken, or no source has the URL's scheme.
            SchemaError: The model cannot be a stream.
        """
        schema = Schema.of(model)
        label = _name(name or snake_case(model.__name__))
        _free(label, stream=self.streams, table=self.tables)
        if url is not None:
            CONNECTORS.find("source", url)
        stream = Stream(label, schema, url, duration(lateness, zero=True), dict(options or {}), self)
        self.streams[label] = stream
        return stream

    def features(
        self, stream: Stream | type[Event] | str, key: str | Sequence[str], *, name: str | None = None
    ) -> Callable[[type], View]:
        """Declares a class of features as a view: a decorator.

        Args:
            stream: What the features are computed from.
            key: The column, or columns, that say whose they are.
            name: In URLs and tools; the class's name in snake_case if not given.

        Raises:
            ConfigError: The name is taken, or the class holds something that is not a feature.
            SchemaError: A column that the stream does not have; the nearest one is suggested.
        """
        source = self.stream_of(stream)

        def declare(cls: type) -> View:
            label = _name(name or snake_case(cls.__name__))
            _free(label, view=self.views, collection=self.collections, context=self.contexts)
            view = View.declare(
                label,
                inspect.cleandoc(cls.__doc__ or ""),
                source.name,
                [key] if isinstance(key, str) else list(key),
                _declared(cls),
                source.schema.columns,
                source.schema.time,
            )
            self.views[label] = view
            return view

        return declare

    def publish(self, view: View | str, url: str, *, every: str | timedelta | float = "1s") -> None:
        """Publishes a view's rows to a sink: each key's whole row as JSON when it reads otherwise than before.

        Also when only time has passed: a total that falls as its window moves on is written again, and a key of which
        nothing is left is taken back (in a topic: a tombstone).

        Args:
            view: A view or its name.
            url: A sink such as ``kafka://localhost:9092/spending``, best a compacted topic.
            every: The shortest time between two rows of a key.

        Raises:
            UnknownNameError: There is no such view.
            ConfigError: No sink has the URL's scheme, or the view is published there already.
        """
        name = self.view_of(view).name
        CONNECTORS.find("sink", url)
        if any((one.view, one.url) == (name, url) for one in self.publications):
            raise ConfigError(f"the view {name!r} is published there already; once is enough")
        self.publications.append(Publication(name, url, duration(every)))

    def table(
        self,
        model: type[Document] | Sequence[type[Document]],
        url: str | None = None,
        *,
        key: str | Sequence[str] = "id",
        name: str | None = None,
        kind: str | None = None,
        version: str | None = None,
        history: str | timedelta | float = "30d",
        options: Mapping[str, Any] | None = None,
    ) -> Table:
        """Declares a table: rows with a key that are inserted, updated and deleted.

        Args:
            model: The rows; several models where the table holds several types of documents.
            url: A source of changes such as ``postgres://localhost/news?table=articles``. None: by push only.
            key: The column, or columns, that say which row it is.
            name: In URLs; the (first) model's name in snake_case if not given.
            kind: The column that says which of several types a row is, by the model's name in snake_case.
            version: A column that grows with each change of a row, where the source may tell an old one again later.
            history: For how long revisions that were replaced can be asked for.
            options: Of the source, as in its URL's query; what stands here wins. Secrets belong here rather than there.

        Raises:
            ConfigError: The name is taken, or no source has the URL's scheme.
            SchemaError: A model lacks the key, or several are not told apart.
        """
        models = list(model) if isinstance(model, Sequence) else [model]
        first = snake_case(models[0].__name__) if models and isinstance(models[0], type) else ""
        label = _name(name or first)
        _free(label, table=self.tables, stream=self.streams)
        schema = TableSchema.of(label, models, key, kind, version)
        if url is not None:
            CONNECTORS.find("table", url)
        table = Table(label, schema, url, duration(history, zero=True), dict(options or {}))
        self.tables[label] = table
        return table

    def collection(
        self,
        name: str,
        table: Table | str,
        *,
        text: Any = None,
        clean: Any = None,
        chunk: Any = None,
        embed: Any = "minilm",
        index: str = "local:",
        rerank: Any = None,
        filters: Sequence[str] | None = None,
        about: str = "",
    ) -> Collection:
        """Declares a collection: a table's documents, kept cleaned, chunked, embedded and searchable.

        What is done with a document is chosen by its type: `text`, `clean`, `chunk` and `embed` are each one for all
        types, or a dict from a model to what is done with it.

        Args:
            name: In URLs and tools.
            table: Whose documents they are.
            text: The columns that are searched, in order; the first of several is the title.
            clean: As `hr.clean()`; None for the default.
            chunk: As `hr.chunk()`, a splitter of LangChain's or Chonkie's, or a function from a text to texts.
            embed: "minilm", "static", "hash", "openai:NAME", "sentence-transformers:NAME", "fastembed:NAME", or an
                embedder.
            index: Where the chunks are searched: "local:", "edge:", "memory:", "qdrant://…", "postgres://…",
                "milvus:…", "pinecone:…".
            rerank: A function from a question and texts to scores, or an object with `scores`; orders the best anew.
            filters: The columns that searches may filter by; if not given, all that can be but those of `text`.
            about: What a model is told that it can find here.

        Raises:
            ConfigError: The name is taken, or an index or embedder is not known.
            SchemaError: A column that a type does not have.
        """
        label = _name(name)
        _free(label, collection=self.collections, view=self.views, context=self.contexts)
        source = self.table_of(table)
        CONNECTORS.find("vectors", index)
        from headrace.documents.handlers import Handlers

        handlers = Handlers.of(source.schema, text=text, clean=clean, chunk=chunk, embed=embed)
        columns = {one: column for one, column in source.schema.columns.items() if one not in OWN}
        unknown = set(filters or ()) - set(columns)
        if unknown:
            raise SchemaError(
                f"the table {source.name!r} cannot be filtered by {sorted(unknown)}; {nearest('', columns)}"
            )
        searched = {one for kind in source.schema.models for one in handlers.columns(kind)}
        kept = {one: column for one, column in columns.items() if one not in searched}
        if filters is not None:
            kept = {one: columns[one] for one in filters}
        made = Collection(label, inspect.cleandoc(about), source, handlers, index, rerank, kept)
        for spec in made.embedders().values():
            if isinstance(spec, str):
                CONNECTORS.find("embed", spec)
        self.collections[label] = made
        return made

    def table_of(self, given: Table | type[Document] | str) -> Table:
        """The table that a name, a model or a table stands for.

        Raises:
            UnknownNameError: There is none.
        """
        if isinstance(given, str) and given in self.tables:
            return self.tables[given]
        for table in self.tables.values():
            if table is given or (not isinstance(given, str) and given in table.schema.models.values()):
                return table
        shown = given if isinstance(given, str) else getattr(given, "name", None) or getattr(given, "__name__", given)
        raise UnknownNameError(f"no table {shown!r} in {self.name}; {nearest(str(shown), self.tables)}")

    def collection_of(self, given: Collection | str) -> Collection:
        """The collection that a name or a collection stands for.

        Raises:
            UnknownNameError: There is none.
        """
        if isinstance(given, Collection) and self.collections.get(given.name) is given:
            return given
        if isinstance(given, str) and given in self.collections:
            return self.collections[given]
        shown = given if isinstance(given, str) else getattr(given, "name", given)
        raise UnknownNameError(f"no collection {shown!r} in {self.name}; {nearest(str(shown), self.collections)}")

    def stream_of(self, given: Stream | type[Event] | str) -> Stream:
        """The stream that a name, a model or a stream stands for.

        Raises:
            UnknownNameError: There is none.
        """
        if isinstance(given, str) and given in self.streams:
            return self.streams[given]
        for stream in self.streams.values():
            if stream is given or stream.schema.model is given:
                return stream
        shown = given if isinstance(given, str) else getattr(given, "name", None) or getattr(given, "__name__", given)
        raise UnknownNameError(f"no stream {shown!r} in {self.name}; {nearest(str(shown), self.streams)}")

    def view_of(self, given: View | str) -> View:
        """The view that a name or a view stands for.

        Raises:
            UnknownNameError: There is none.
        """
        if isinstance(given, View) and self.views.get(given.name) is given:
            return given
        if isinstance(given, str) and given in self.views:
            return self.views[given]
        shown = given if isinstance(given, str) else getattr(given, "name", given)
        raise UnknownNameError(f"no view {shown!r} in {self.name}; {nearest(str(shown), self.views)}")

    def open(self, path: str | Path | None = None) -> Live:
        """Starts the app in this process.

        Args:
            path: The data directory; None keeps nothing on disk.

        Raises:
            LockedError: Another process has the directory open.
            StorageError: The directory cannot be read or written.
        """
        from headrace.serving.live import Live  # the declaration does not need the engine

        return Live(self, path)


def _free(label: str, **taken: Mapping[str, object]) -> None:
    """A name stands for one thing in URLs and among tools."""
    for kind, names in taken.items():
        if label in names:
            raise ConfigError(f"there is a {kind} {label!r} already; give this one another with name=")


def _name(label: str) -> str:
    if not label.replace("_", "a").replace("-", "a").isalnum() or len(label) > 64:
        raise ConfigError(f"expected a name of 1 to 64 letters, digits, '_' and '-', found {label!r}")
    return label


def _declared(cls: type) -> dict[str, Feature]:
    features: dict[str, Feature] = {}
    for owner in reversed(cls.__mro__[:-1]):
        for label, value in vars(owner).items():
            if isinstance(value, Feature):
                features[label] = value
            elif not label.startswith("_"):
                raise ConfigError(
                    f"{cls.__name__}.{label}: expected a feature such as hr.count(over='1h'), found {value!r}; "
                    "begin the name with '_' if it is none"
                )
    return features
