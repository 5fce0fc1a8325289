"""Cleaning: named steps from a text to the text that is worth reading.

    hr.clean(without=("emoji",), then=(my_function,))

The steps are applied over and over until nothing changes, so cleaning what is clean changes nothing: a line that is
bare once its emoji is gone is seen by the next round. Code (a fence, a literal block, a program) is left alone: only
what cannot be seen is taken from it. In a table, blanks stay: they align it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from headrace.documents.cleaning import characters, lines, marks
from headrace.documents.splitters import describe, name_of
from headrace.documents.structure import formats
from headrace.errors import ConfigError, InputError, nearest

Step = Callable[[str], str]
# In the order in which they are applied, each with a number that changes when it gives another text than before.
_STEPS: dict[str, tuple[int, Step]] = {
    "unicode": (1, characters.plain),
    "urls": (1, marks.urls),
    "emoji": (1, marks.emoji),
    "bullets": (1, lines.bullets),
    "boilerplate": (1, lines.boilerplate),
    "whitespace": (1, lines.whitespace),
}
STEPS = tuple(_STEPS)
# Each level of links within links takes a round; more than these is no text that anyone wrote.
_MOST_ROUNDS = 8


@dataclass(frozen=True)
class Cleaning:
    """How a text is cleaned; made by `hr.clean`.

    Attributes:
        steps: The names of the steps, in order.
        then: Functions from a text to a text that are called afterwards, once.
    """

    steps: tuple[str, ...] = STEPS
    then: tuple[Step, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A text that changes when the same document would be cleaned otherwise."""
        own = ",".join(f"{name}.{_STEPS[name][0]}" for name in self.steps)
        return f"clean/{own}/{','.join(map(describe, self.then))}"

    def apply(self, text: str, format: str) -> str:
        """The clean text.

        Args:
            text: Any text.
            format: "markdown", "rst", "plain" or the name of a programming language.

        Raises:
            InputError: One of the functions in `then` failed, or did not return a text.
        """
        if "unicode" in self.steps:
            text = characters.visible(text)
        if self.steps and not formats.is_code(format):
            for _ in range(_MOST_ROUNDS):
                before, text = text, self._round(text, format)
                if text == before:
                    break
        for function in self.then:
            text = _called(function, text)
        return text

    def _round(self, text: str, format: str) -> str:
        made = "".join(part if kind == "code" else self._stepped(part, kind) for part, kind in _segments(text, format))
        return _unframed(made) if "whitespace" in self.steps else made

    def _stepped(self, text: str, kind: str) -> str:
        for name in self.steps:
            if name != "whitespace" or kind != "table":
                text = _STEPS[name][1](text)
        return text


def clean(without: tuple[str, ...] | list[str] | str = (), then: tuple[Step, ...] | list[Step] = ()) -> Cleaning:
    """How a text is cleaned.

    Args:
        without: Names of steps to leave out: "unicode" (styled letters, quotes, invisible characters), "urls" (an
            address becomes [link]), "emoji", "bullets", "boilerplate" (cookie notices, "share this"), "whitespace".
        then: Functions from a text to a text, called in order afterwards.

    Raises:
        ConfigError: There is no such step, or something in `then` cannot be called.
    """
    left_out = (without,) if isinstance(without, str) else tuple(without)
    for name in left_out:
        if name not in _STEPS:
            raise ConfigError(f"hr.clean: there is no step {name!r}; {nearest(name, _STEPS)}")
    for function in then:
        if not callable(function):
            raise ConfigError(f"hr.clean: expected functions in then, found {function!r}")
    return Cleaning(tuple(name for name in STEPS if name not in left_out), tuple(then))


def cleaning(given: Any) -> Cleaning:
    """What a user gave as `clean=`: a spec, a function, None for the default, False for nothing at all.

    Raises:
        ConfigError: It is none of these.
    """
    if given is None or given is True:
        return Cleaning()
    if given is False:
        return Cleaning(())
    if isinstance(given, Cleaning):
        return given
    if callable(given):
        return Cleaning(then=(given,))
    raise ConfigError(f"expected clean to be hr.clean(…), a function from a text to a text, or False, found {given!r}")


def _segments(text: str, format: str) -> Iterator[tuple[str, str]]:
    """The text as whole lines of "prose", "code" and "table"."""
    done = 0
    for block in formats.blocks(text, format):
        if block.kind in ("code", "table"):
            end = text.find("\n", block.end) + 1 or len(text)
            if block.start > done:
                yield text[done : block.start], "prose"
            if end > done:
                yield text[max(done, block.start) : end], block.kind
            done = max(done, end)
    if done < len(text):
        yield text[done:], "prose"


def _unframed(text: str) -> str:
    """Without blank lines at the beginning, and blanks at the end."""
    bare = text.rstrip()
    first = len(bare) - len(bare.lstrip())
    return bare[bare.rfind("\n", 0, first) + 1 :]


def _called(function: Step, text: str) -> str:
    try:
        made = function(text)
    except Exception as error:
        raise InputError(f"the function {name_of(function)} failed: {error!r}") from error
    if not isinstance(made, str):
        raise InputError(f"the function {name_of(function)}: expected a text, found {type(made).__name__}")
    return made
