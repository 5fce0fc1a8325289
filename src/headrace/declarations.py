"""What an app declares: streams, tables, the collections that keep tables searchable, and what it publishes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from headrace.arguments import Arguments
from headrace.document import Column, TableSchema
from headrace.errors import ConfigError, InputError
from headrace.parts import Recall, Search, Within
from headrace.registry import DEFAULT as CONNECTORS
from headrace.schema import Schema

if TYPE_CHECKING:
    from headrace.documents.handlers import Handlers
    from headrace.documents.rank import Reranker
    from headrace.enrich.spec import Llm


# What an index keeps of a point besides columns; no column of that name can be filtered by.
OWN = frozenset({"document", "text"})
# What a request for a context says besides its arguments: no parameter has such a name.
RESERVED = frozenset({"budget", "max_age", "on_stale", "after", "timeout", "consistent", "format"})
# Past this a budget is taken for a mistake: no model reads as much.
MOST_BUDGET = 10_000_000
OnStale = Literal["wait", "flag", "refuse"]
"""What is done with what is older than was asked for."""


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
        app: Whose it is.
    """

    name: str
    schema: Schema
    url: str | None
    lateness: int
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    app: Any = field(default=None, repr=False)

    def enrich(self, spec: Llm, *, name: str | None = None) -> Stream:
        """Declares a stream whose events are these with a model's answers: the columns of both.

        A model is asked beside the features, which never wait for it; the answers come in the order of the events.

        Args:
            spec: How it is asked: `hr.llm(…)`.
            name: In URLs; those of both models in snake_case if not given.

        Raises:
            ConfigError: The name is taken, the prompt names what is no column, or a field of the output is one already.
            SchemaError: A field of the output cannot be a column.
        """
        made: Stream = self.app.enrich(self, spec, name=name)
        return made

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

    def search(
        self, question: str, *, k: int = 5, where: Any = None, mode: str = "hybrid", diversity: float = 0.0
    ) -> Search:
        """The best passages for a question, as a part of a context; the arguments are those of `live.search`."""
        return Search(self, question, k, where, mode, diversity)

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


@dataclass(frozen=True, eq=False)
class Context:
    """What a model is given for a request: the parts that a function yields, read together, within a budget.

    Called with the function's arguments, it is a part of another context.

    Attributes:
        name: As in URLs and tools.
        about: What a model is told that it is.
        function: What yields the parts.
        arguments: What it takes.
        budget: Tokens.
        max_age: How far behind the world what is read may be, in microseconds; None for as far as it is.
        on_stale: What is done when it is further.
        consistent: Whether everything is read at one point.
        tokenizer: What counts tokens; None for an estimate.
    """

    name: str
    about: str
    function: Callable[..., Any]
    arguments: Arguments
    budget: int
    max_age: int | None
    on_stale: OnStale
    consistent: bool
    tokenizer: str | None

    @classmethod
    def of(
        cls,
        name: str,
        function: Callable[..., Any],
        budget: int,
        max_age: int | None,
        on_stale: OnStale,
        consistent: bool,
        tokenizer: str | None,
    ) -> Context:
        """Reads a function.

        Raises:
            ConfigError: It is none that can yield parts, or a parameter cannot be an argument of a request.
        """
        if not inspect.isfunction(function) or inspect.iscoroutinefunction(function):
            raise ConfigError(f"{name}: expected an ordinary function that yields parts, found {function!r}")
        if inspect.isasyncgenfunction(function):
            raise ConfigError(f"{name}: expected an ordinary function; parts are questions, nothing has to be awaited")
        arguments = Arguments.of(name, function, RESERVED)
        about = inspect.cleandoc(function.__doc__ or "")
        return cls(name, about, function, arguments, budget, max_age, on_stale, consistent, tokenizer)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON Schema of its arguments, in strict mode's subset."""
        return self.arguments.schema

    def __call__(self, *args: Any, **kwargs: Any) -> Within:
        """Its parts, as a part of another context.

        Raises:
            InputError: The arguments are not those of the function.
        """
        try:
            return Within(self, inspect.signature(self.function).bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise InputError(f"{self.name}: expected the arguments of its function, found others: {error}") from None


@dataclass(frozen=True, eq=False)
class Memory:
    """What was said in sessions: turns that are kept for a while, recalled and forgotten.

    Attributes:
        name: As in URLs.
        by: What a session's name is called in messages.
        keep: For how long a turn is kept, in microseconds.
        turns: How many turns are the latest: they are recalled as they are, and older ones summed up.
        subject: What is called in messages whom a turn is about; None if they do not say.
        summary: A function from the last summary and the turns since to the next, or what names a model: a text or
            an upstream; None for the extractive one.
        table: The turns; no table of the app's, for only a session's own are ever given out.
        summaries: The running summaries.
        collection: What finds turns by their meaning; likewise none of the app's.
    """

    name: str
    by: str
    keep: int
    turns: int
    subject: str | None
    summary: Callable[[str, list[Any]], str] | str | Any | None = field(repr=False)
    table: Table = field(repr=False)
    summaries: Table = field(repr=False)
    collection: Collection = field(repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        by: str,
        keep: int,
        turns: int,
        subject: str | None,
        summary: Callable[[str, list[Any]], str] | str | Any | None,
        embed: Any,
        index: str,
    ) -> Memory:
        """A memory with its private tables and collection; see `App.memory`.

        Raises:
            ConfigError: The index or the embedder is not known.
        """
        from headrace.documents.handlers import Handlers  # what has no documents loads none of it
        from headrace.documents.turns import SummaryRow, TurnRow

        CONNECTORS.find("vectors", index)
        if isinstance(embed, str):
            CONNECTORS.find("embed", embed)
        # A dot is in no name that can be declared: nothing of the app's own can be taken for these, or ask for them.
        label = f"memory.{name}"
        schema = TableSchema.of(label, [TurnRow], "key")
        table = Table(label, schema, None, 0)
        summaries = Table(f"{label}.summaries", TableSchema.of(f"{label}.summaries", [SummaryRow], "key"), None, 0)
        handlers = Handlers.of(schema, text="text", clean=None, chunk=None, embed=embed)
        columns = {column: schema.columns[column] for column in ("group", "number")}
        collection = Collection(label, "", table, handlers, index, None, columns)
        return cls(name, by, keep, turns, subject, summary, table, summaries, collection)

    def recall(self, session: str, question: str = "", turns: int | None = None, k: int = 3) -> Recall:
        """What a context yields for a session: its summary, its latest turns, and older ones that fit a question.

        Args:
            session: Whose; take it from who is asking, never from what a model says.
            question: What older turns are chosen by; empty for none.
            turns: How many of the latest; the memory's own number if not given.
            k: How many older ones.
        """
        return Recall(self, session, question, self.turns if turns is None else turns, k)
