"""What a context is made of: the parts that its function yields, before anything has been read.

A part is a question as plain data. It says what is to be read and how it may be packed; who answers it, and when, is
not its business: all parts of a context are read together, at one point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from headrace.errors import ConfigError


@dataclass(frozen=True)
class Packing:
    """How a part takes its share of the token budget.

    Attributes:
        title: What the section is called in the prompt; if empty, what was read says it.
        priority: Its weight against other sections: a passage of priority 2 is worth two of priority 1.
        floor: Tokens that the section gets before any other gets more than its floor, as far as it can fill them.
        ceiling: The most tokens that the section gets; None for the whole budget.
        stable: Whether it reads the same from request to request, and so stands first, where prefix caches reach.
            None: texts that are trusted are, everything else is not.
    """

    title: str = ""
    priority: float = 1.0
    floor: int = 0
    ceiling: int | None = None
    stable: bool | None = None


@dataclass(frozen=True)
class Lookup:
    """One key's features. `view` is the view, `key` what `live.read` takes."""

    view: Any
    key: Any
    packing: Packing = field(default_factory=Packing)


@dataclass(frozen=True)
class Search:
    """The best passages of a collection; the arguments are those of `live.search`."""

    collection: Any
    question: str
    k: int = 5
    where: Any = None
    mode: str = "hybrid"
    diversity: float = 0.0
    packing: Packing = field(default_factory=Packing)


@dataclass(frozen=True)
class Recall:
    """What a memory holds of one session: its summary, older turns that fit a question, and the latest turns.

    Attributes:
        memory: The memory.
        session: Whose.
        question: What older turns are chosen by; empty for none.
        turns: How many of the latest turns.
        k: How many older ones.
    """

    memory: Any
    session: str
    question: str = ""
    turns: int = 10
    k: int = 3
    packing: Packing = field(default_factory=Packing)


@dataclass(frozen=True)
class Text:
    """A text as it is. Unless `trusted`, it is fenced in the prompt like everything that came from outside."""

    text: str
    trusted: bool = False
    source: str = "app"
    packing: Packing = field(default_factory=Packing)


@dataclass(frozen=True)
class Within:
    """Another context's parts, in this one's place."""

    context: Any
    arguments: Mapping[str, Any]
    packing: Packing = field(default_factory=Packing)


Part = Lookup | Search | Recall | Text | Within
P = TypeVar("P", Lookup, Search, Recall, Text, Within)


def text(text: str, *, trusted: bool = False, source: str = "app") -> Text:
    """A text for a context.

    Args:
        text: As it is; of a context's plain `str` the same is made, untrusted.
        trusted: Whether it is the operator's own words, which a model may follow. Never say so of a user's.
        source: What the prompt says it is from.
    """
    return Text(text, trusted, source)


def section(
    part: P | str,
    *,
    title: str = "",
    priority: float = 1.0,
    floor: int = 0,
    ceiling: int | None = None,
    stable: bool | None = None,
) -> P | Text:
    """A part with its share of the budget; the arguments are those of `Packing`.

    Raises:
        ConfigError: A number is out of range.
    """
    if not 0 < priority <= 1_000:
        raise ConfigError(f"section: expected a priority over 0 and up to 1,000, found {priority!r}")
    if floor < 0 or (ceiling is not None and ceiling < floor):
        raise ConfigError(f"section: expected 0 <= floor <= ceiling, found floor={floor!r}, ceiling={ceiling!r}")
    whole = Text(part) if isinstance(part, str) else part
    return replace(whole, packing=Packing(title, priority, floor, ceiling, stable))
