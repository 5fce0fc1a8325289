"""What the adapters share: a question to a collection or a context, its answer as passages, and tools that are called.

A framework's retriever is a question whose words come last: all else (what is asked, how many, under which condition,
seeing which write) is settled when it is made, and may be set anew for one call. So a `Question` is frozen data that is
checked as a whole, before anything is asked; and an answer is the same `Passage` whether a search or a pack gave it,
with the same names in its metadata in every framework.

A client is a `Live`, a `Remote`, or one whose methods are awaited. What is not awaited is called on a thread where an
event loop asks, so that the loop is never held up; what is awaited is refused where no loop asks.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.errors import ConfigError, InputError, MissingDependencyError, UnknownNameError, nearest

if TYPE_CHECKING:
    from headrace.assembly.pack import Pack
    from headrace.runners.library.hits import Hit

DEFAULT_SECONDS = 10.0
_OF_COLLECTION = ("k", "where", "mode", "diversity")
_OF_CONTEXT = ("budget", "max_age", "on_stale")


@dataclass(frozen=True, slots=True)
class Passage:
    """What a retriever finds, before it is in a framework's words.

    Attributes:
        id: A chunk's, or an item's: the same in every answer, for as long as the text stays the same.
        text: As it is; nothing fences it.
        score: The higher the better, of this answer only.
        document: The key of its document; empty where it is from none.
        metadata: Plain JSON values, none of them nested but a document's own.
        span: Where it begins and ends in its document's clean text; None where that is not known.
    """

    id: str
    text: str
    score: float
    document: str
    metadata: dict[str, Any]
    span: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a retriever asks; `None` leaves the choice to what is asked.

    Attributes:
        collection: A collection or its name.
        context: Instead of one: a context or its name.
        k: Of a collection: how many passages.
        where: Of a collection: the condition that documents pass.
        mode: Of a collection: "hybrid", "ranks", "meaning" or "words".
        diversity: Of a collection: from 0 to 1.
        budget: Of a context: tokens.
        max_age: Of a context: how old may be what is read.
        on_stale: Of a context: "wait", "flag" or "refuse".
        argument: Of a context: which of its arguments the query is.
        arguments: Of a context: the others.
        after: The token of a write that the answer must see.
        timeout: How many seconds to wait for that, or for freshness.
    """

    collection: Any = None
    context: Any = None
    k: int | None = None
    where: Any = None
    mode: str | None = None
    diversity: float | None = None
    budget: int | None = None
    max_age: Any = None
    on_stale: str | None = None
    argument: str = "question"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    after: Any = None
    timeout: float = DEFAULT_SECONDS

    def __post_init__(self) -> None:
        if (self.collection is None) == (self.context is None):
            found = "neither" if self.collection is None else "both"
            raise ConfigError(f"retriever: expected collection= or context=, found {found}; give one of them")
        if self.context is None:
            self._refuse("collection", _OF_CONTEXT, "after= waits for a write there; a context knows freshness")
            if self.arguments:
                raise ConfigError("retriever: expected arguments= for a context only, found them for a collection")
        else:
            self._refuse("context", _OF_COLLECTION, "give what its function takes in arguments=")
            if self.argument in self.arguments:
                raise ConfigError(
                    f"retriever: expected {self.argument!r} to be the query, found it in arguments=, too; leave it out "
                    "there, or name another with argument="
                )

    def _refuse(self, kind: str, names: Sequence[str], instead: str) -> None:
        given = [f"{name}=" for name in names if getattr(self, name) is not None]
        if given:
            raise ConfigError(f"retriever: {', '.join(given)} does not go with a {kind}; {instead}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Question:
        """A question with these options.

        Raises:
            InputError: There is no such option.
            ConfigError: They do not go together.
        """
        return cls(**_known(options))

    def but(self, changes: Mapping[str, Any]) -> Question:
        """The same with something set anew; the errors are those of `of`."""
        return replace(self, **_known(changes)) if changes else self

    def ask(self, client: Any, query: str) -> list[Passage]:
        """The passages that answer a query; the errors are those of `Live.search` and `Live.context`."""
        if self.context is None:
            return _found(called(client, "search", self.collection, query, **self._given(_OF_COLLECTION)))
        return _packed(called(client, "context", self.context, **self._of_context(query)))

    async def ask_async(self, client: Any, query: str) -> list[Passage]:
        """As `ask`, for an event loop."""
        if self.context is None:
            return _found(await awaited(client, "search", self.collection, query, **self._given(_OF_COLLECTION)))
        return _packed(await awaited(client, "context", self.context, **self._of_context(query)))

    def _given(self, names: Sequence[str]) -> dict[str, Any]:
        given = {name: value for name in (*names, "after") if (value := getattr(self, name)) is not None}
        return given | {"timeout": self.timeout}

    def _of_context(self, query: str) -> dict[str, Any]:
        return {**self.arguments, self.argument: query, **self._given(_OF_CONTEXT)}


OPTIONS = tuple(one.name for one in fields(Question))
"""The names of all that a retriever can be told."""


def _known(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in options:
        if name not in OPTIONS:
            raise InputError(f"retriever: expected only known options, found {name!r}; {nearest(str(name), OPTIONS)}")
    return options


def called(client: Any, method: str, /, *args: Any, **options: Any) -> Any:
    """Calls a client's method where nothing is awaited.

    Raises:
        InputError: The client's methods are awaited.
    """
    found = getattr(client, method)
    if inspect.iscoroutinefunction(found):
        raise InputError(
            f"expected a client that is not awaited, as of app.open() or hr.connect(url), found "
            f"{type(client).__name__}; take one of these, or await the adapter's method that is made for it"
        )
    return found(*args, **options)


async def awaited(client: Any, method: str, /, *args: Any, **options: Any) -> Any:
    """Calls a client's method from an event loop: awaits it, or runs it on a thread."""
    found = getattr(client, method)
    if inspect.iscoroutinefunction(found):
        return await found(*args, **options)
    return await asyncio.to_thread(found, *args, **options)


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool, before it is in a framework's words.

    Attributes:
        name: Of the view, the collection or the context.
        description: What a model is told of it.
        schema: Of its arguments, strict.
        client: Whom it asks.
        seconds: How long a call may take.
    """

    name: str
    description: str
    schema: dict[str, Any]
    client: Any
    seconds: float

    def run(self, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Calls it: the answer as JSON, and as values. The errors are those of `Live.call`, in words for a model."""
        return _text(called(self.client, "call", self.name, dict(arguments), timeout=self.seconds))

    async def run_async(self, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """As `run`, for an event loop; cancelled, it gives up a call that has not begun."""
        method = "call_async" if hasattr(self.client, "call_async") else "call"
        return _text(await awaited(self.client, method, self.name, dict(arguments), timeout=self.seconds))


def offered(
    client: Any, definitions: Sequence[Mapping[str, Any]], names: Sequence[str] | None, timeout: Any
) -> list[Offered]:
    """A client's tools.

    Args:
        client: Whom they ask.
        definitions: What its `tools()` says.
        names: Which of them, in this order; None for all.
        timeout: Seconds that a call may take: one number, or a mapping from names.

    Raises:
        InputError: `timeout` is none.
        UnknownNameError: A name is none of a tool's.
    """
    known = {str(one["function"]["name"]): one["function"] for one in definitions}
    if isinstance(names, str):
        raise InputError(f"expected several names of tools, found the text {names!r}; put it into a list")
    limits = timeout if isinstance(timeout, Mapping) else {}
    for name in (*(names or ()), *limits):
        if name not in known:
            raise UnknownNameError(f"expected the name of a tool, found {name!r}; {nearest(str(name), known)}")
    made = []
    for name in known if names is None else names:
        seconds = limits.get(name, DEFAULT_SECONDS) if isinstance(timeout, Mapping) else timeout
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
            raise InputError(f"{name}: expected timeout to be a number of seconds over 0, found {seconds!r}")
        function = known[name]
        made.append(Offered(name, function["description"], function["parameters"], client, float(seconds)))
    return made


def missing(what: str, extra: str, error: ImportError) -> MissingDependencyError:
    """What is raised where a framework is not installed."""
    return MissingDependencyError(
        f"the adapters of {what} need the package {error.name!r}, which cannot be imported ({error}); "
        f'install it with: pip install "headrace[{extra}]"'
    )


def _text(answer: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return msgspec.json.encode(answer).decode(), answer


def _found(hits: Sequence[Hit]) -> list[Passage]:
    """A search's hits. The document's own columns come first: what they are called like one of ours gives way."""
    return [
        Passage(
            hit.chunk,
            hit.text,
            hit.score,
            hit.document,
            {
                **msgspec.to_builtins(dict(hit.columns), str_keys=True),
                "source": hit.source or hit.document,
                "document": hit.document,
                "title": hit.title,
                "headings": " > ".join(hit.headings),
                "as_of": hit.as_of.isoformat(),
                "age": hit.age,
                "score": hit.score,
                "trusted": hit.trusted,
            },
            (hit.start, hit.end) if hit.start >= 0 else None,
        )
        for hit in hits
    ]


def _packed(pack: Pack) -> list[Passage]:
    """A pack's items, in its order: what a model would be given, each by itself."""
    stale = " ".join(pack.point.stale)
    made = []
    for section in pack.sections:
        for packed in section.items:
            item = packed.item
            document = str((item.data or {}).get("document", "")) if section.kind == "passages" else ""
            metadata = {
                "source": item.source,
                "document": document,
                "title": item.title,
                "headings": " > ".join(item.headings),
                "as_of": None if item.as_of is None else item.as_of.isoformat(),
                "age": item.age,
                "score": item.value,
                "trusted": item.trusted,
                "section": section.title,
                "kind": section.kind,
                "citation": packed.number,
                "cut": packed.cut,
                "pack": pack.id,
                "stale": stale,
            }
            made.append(Passage(item.id, packed.text, item.value, document, metadata))
    return made
