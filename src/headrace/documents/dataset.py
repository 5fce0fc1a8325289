"""Passages as examples to train on: how they are worded, written and put on one side or the other.

Nothing here knows more than the document says. Without a model, a title or heading is asked for and its text is the
answer: that teaches a model what the documents say and how they say it, not how people ask.

A document is on one side for good: which one is decided by its key and a seed alone, so it does not change sides when
others come or go, and nothing of a document is trained on that it is tested by.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import xxhash

from headrace.documents.passages import Passage
from headrace.errors import ConfigError, InputError, nearest

Format = Literal["chat", "instruction", "completion", "text"]
Side = Literal["train", "test"]
# What a passage is asked for by: an instruction and its input; None leaves the passage out.
Wording = tuple[str, str]
Worder = Callable[[Passage], "Wording | None"]
_KNOWN = ("title", "heading", "path", "format")


@dataclass(frozen=True)
class Templates:
    """How a passage is asked for, as format strings of {title}, {heading}, {path} and {format}.

    Attributes:
        section: Has a heading, in a document with a title.
        heading: Has a heading; the document has no title.
        title: Is all of a document with a title, and has no heading.
        lead: Begins a longer document with a title, and has no heading.
        code: A definition in a program.
        go_on: Goes on from a text, which is the input.
    """

    section: str = 'Write the section "{heading}" of "{title}".'
    heading: str = 'Write the section "{heading}".'
    title: str = 'Write "{title}".'
    lead: str = 'Write the beginning of "{title}".'
    code: str = 'Write `{heading}` of "{title}", in {format}.'
    go_on: str = "Continue this text."

    def __post_init__(self) -> None:
        for one in fields(self):
            template = getattr(self, one.name)
            try:
                names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
            except ValueError as error:
                raise ConfigError(
                    f"the template {one.name!r}: expected a format string, found {template!r}: {error}"
                ) from None
            for name in names - set(_KNOWN):
                raise ConfigError(f"the template {one.name!r} has no {{{name}}} to show; {nearest(name, _KNOWN)}")

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Templates:
        """The default templates with some replaced.

        Raises:
            ConfigError: There is no template of a name, or a template names what there is not.
        """
        known = [one.name for one in fields(cls)]
        for name in given:
            if name not in known:
                raise ConfigError(f"there is no template {name!r}; {nearest(name, known)}")
        return cls(**given)

    def __call__(self, passage: Passage) -> Wording:
        """How a passage is asked for."""
        if passage.before:
            return self._filled(self.go_on, passage), passage.before
        if passage.code and passage.heading and passage.title:
            return self._filled(self.code, passage), ""
        if passage.heading:
            return self._filled(self.section if passage.title else self.heading, passage), ""
        return self._filled(self.title if passage.whole else self.lead, passage), ""

    @staticmethod
    def _filled(template: str, passage: Passage) -> str:
        return template.format(
            title=passage.title, heading=passage.heading, path=" > ".join(passage.path), format=passage.format
        )


def line(format: Format, wording: Wording, text: str, system: str = "") -> dict[str, Any]:
    """An example as one line of a file.

    Args:
        format: "chat": OpenAI's messages. "instruction": Alpaca's instruction, input and output. "completion": a prompt
            and its completion. "text": the text alone.
        wording: What is asked; of "text" it is left out.
        text: The answer.
        system: Of "chat", what stands first; left out if empty.
    """
    instruction, given = wording
    asked = f"{instruction}\n\n{given}" if given else instruction
    if format == "chat":
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": text}]
        return {"messages": messages}
    if format == "instruction":
        return {"instruction": instruction, "input": given, "output": text}
    if format == "completion":
        return {"prompt": asked, "completion": text}
    return {"text": text}


def side(key: str, seed: int, test: float) -> Side:
    """Which side a document is on: `test` is the part of all keys that are on the side of that name."""
    place = xxhash.xxh3_64_intdigest(f"{seed}\0{key}".encode("utf-8", "surrogatepass"))
    return "test" if place < test * 2.0**64 else "train"


def oldest(groups: Iterable[int], ages: Sequence[tuple[Any, ...]]) -> list[bool]:
    """Which to keep of what is nearly the same: of each group the one that sorts first by `ages`.

    Args:
        groups: A group's number for each.
        ages: What sorts them; no two are equal.
    """
    listed = [int(group) for group in groups]
    first: dict[int, int] = {}
    for number, group in enumerate(listed):
        if group not in first or ages[number] < ages[first[group]]:
            first[group] = number
    return [first[group] == number for number, group in enumerate(listed)]


@dataclass(frozen=True)
class Recipe:
    """How a data set is made; each part of it stands in the manifest.

    Attributes:
        format: See `line`.
        test: The part of documents that is set aside to test with, from 0 to below 1.
        seed: Another one divides them otherwise.
        near: Documents, and then passages, at least so similar are taken as one, from above 0 to 1; None keeps all.
        least: The fewest tokens of an answer.
        most: The most; also of a text that is gone on from.
        trusted: Whether only documents count whose text is the operator's own.
        where: Only documents that pass, as in a search.
        wording: How a passage is asked for: templates, some of them by name, or a function.
        system: What stands first in each chat; nothing if empty.
    """

    format: Format = "chat"
    test: float = 0.1
    seed: int = 1
    near: float | None = 0.85
    least: int = 16
    most: int = 1024
    trusted: bool = False
    where: Any = None
    wording: Templates | Mapping[str, str] | Worder = Templates()
    system: str = ""

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise InputError(f"expected a format of {', '.join(get_args(Format))}, found {self.format!r}")
        if not 0 <= self.test < 1:
            raise InputError(f"expected a part from 0 to below 1 to test with, found {self.test}")
        if self.near is not None and not 0 < self.near <= 1:
            raise InputError(f"expected a similarity above 0 and up to 1, found {self.near}; None keeps all")
        if not 1 <= self.least <= self.most:
            raise InputError(f"expected token limits 1 ≤ least ≤ most, found {self.least} and {self.most}")

    @property
    def worder(self) -> Worder:
        """The function that words a passage."""
        return Templates.of(self.wording) if isinstance(self.wording, Mapping) else self.wording

    def shown(self) -> dict[str, Any]:
        """As the manifest says it; `where` is left to who knows the columns."""
        worder = self.worder
        name = getattr(worder, "__qualname__", type(worder).__name__)
        return {
            "format": self.format,
            "test": self.test,
            "seed": self.seed,
            "near": self.near,
            "least_tokens": self.least,
            "most_tokens": self.most,
            "trusted_only": self.trusted,
            "system": self.system,
            "wording": {one.name: getattr(worder, one.name) for one in fields(worder)}
            if isinstance(worder, Templates)
            else name,
        }
