"""What a model is given: sections of items, each with where it came from and how old it is.

A `Candidate` is what was read for one part; the packer makes of all of them a `Pack` within a token budget, and says of
everything that did not get in whole why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from headrace.parts import Packing

Kind = Literal["features", "passages", "summary", "recalled", "turns", "text"]
"""Of a section: a row of features, passages of documents, a session's summary, its older turns, its latest, a text."""

Form = Literal["markdown", "xml", "json", "messages"]
"""What a pack can be rendered as."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that can be packed.

    Attributes:
        id: What it is, the same in every request: "spending/u1", a chunk's id, a turn's.
        text: What the model reads.
        value: From 0 to 1: what it is worth in its section, before it is compared with what is packed already.
        source: Where it is from, as shown to the model.
        title: Of its document.
        headings: What it stands under there, from the outermost.
        as_of: Event time of the newest event, or when the document last changed; None where nothing is known yet.
        age: Seconds since then.
        trusted: Whether the text is the operator's own, or computed by us from numbers.
        role: Who spoke, of a turn: "user", "assistant", "tool" or "system".
        data: The values, for JSON.
    """

    id: str
    text: str
    value: float = 1.0
    source: str = ""
    title: str = ""
    headings: tuple[str, ...] = ()
    as_of: datetime | None = None
    age: float | None = None
    trusted: bool = False
    role: str = ""
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What was read for one part, best first (turns: oldest first).

    Attributes:
        name: Of the view, collection or memory, or "text"; two of one name are told apart by the packer.
        about: What a model is told that it is; empty for nothing.
    """

    name: str
    kind: Kind
    items: tuple[Item, ...]
    packing: Packing = field(default_factory=Packing)
    about: str = ""


@dataclass(frozen=True, slots=True)
class Packed:
    """An item in a pack.

    Attributes:
        number: Its citation, from 1, in the order of the pack.
        text: What was packed: the item's, or its beginning up to the end of a sentence.
        tokens: Of it, with its label.
        cut: Whether it is shorter than the item's.
        merged: Ids of items that say nearly the same, and are left out for it.
    """

    number: int
    item: Item
    text: str
    tokens: int
    cut: bool = False
    merged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a pack. `trusted` holds if every item is; `as_of` and `age` are those of its newest item."""

    name: str
    kind: Kind
    title: str
    items: tuple[Packed, ...]
    tokens: int
    trusted: bool
    stable: bool
    as_of: datetime | None = None
    age: float | None = None
    about: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that is not in the pack, or not whole.

    Attributes:
        section: The name of its section.
        id: The item's.
        tokens: How many it would have taken, or were cut off.
        action: "dropped", "cut" or "merged"; of a pack that was kept also "forgotten": what was erased since then.
        reason: Why, in words.
    """

    section: str
    id: str
    tokens: int
    action: Literal["dropped", "cut", "merged", "forgotten"]
    reason: str


@dataclass(frozen=True, slots=True)
class Point:
    """What a pack is true to.

    Attributes:
        now: The moment of the read.
        as_of: The newest event time, or change of a document, in what was read; None if nothing was.
        token: The positions read, as a token: hand it to another read, and it sees at least this.
        positions: The same, by source, as plain JSON.
        consistent: Whether all was read at one point: every write before it is in, and none after it.
        stale: What is older than was asked for, in words, for the model; empty if nothing is.
        lagging: Whether the engine is further behind its input than the app allows.
    """

    now: datetime
    as_of: datetime | None
    token: str
    positions: Mapping[str, Any] = field(default_factory=dict)
    consistent: bool = True
    stale: tuple[str, ...] = ()
    lagging: bool = False


@dataclass(frozen=True, slots=True)
class Pack:
    """A context as a model is given it.

    Attributes:
        id: For `headrace replay`, and to subscribe to what changes in it.
        context: The context's name.
        arguments: What it was asked with.
        sections: Stable ones first, volatile ones last.
        dropped: What is not in it, or not whole, and why.
        tokens: Of the rendering in Markdown, as `counter` counts; never more than `budget`.
        budget: Tokens.
        counter: What counted: a tokenizer's name, or "estimate".
        point: What it is true to.
    """

    id: str
    context: str
    arguments: Mapping[str, Any]
    sections: tuple[Section, ...]
    dropped: tuple[Dropped, ...]
    tokens: int
    budget: int
    counter: str
    point: Point

    @property
    def as_of(self) -> datetime | None:
        """The newest event time, or change of a document, in what was read."""
        return self.point.as_of

    @property
    def token(self) -> str:
        """What it is true to, as a token."""
        return self.point.token

    def render(self, form: Form = "markdown") -> Any:
        """The pack as a prompt.

        Args:
            form: "markdown", "xml" or "json": a text. "messages": a list of chat messages.

        Raises:
            InputError: There is no such form.
        """
        from headrace.assembly.render import render  # it needs this module's names

        return render(self, form)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: what HTTP answers, and what a manifest keeps."""
        from headrace.assembly.plain import plain

        return plain(self)
