"""What a text is made of: blocks in order, each under its headings.

A parser here is not a renderer: it finds where blocks begin and end and which headings they stand under, in one pass
over the lines, and leaves the text as it is. What it does not understand is a paragraph. The blocks of a text are in
order, do not overlap, and hold everything that is not blank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["heading", "paragraph", "item", "table", "code"]
# A heading is a name; a longer line was none.
MOST_HEADING = 200
DEEPEST = 12

ITEM = re.compile(r"[ \t]{0,60}(?:[-*+•]|\(?(?:\d{1,9}|[A-Za-z]|#)[.)])[ \t]+(?=\S)")


class Block(NamedTuple):
    """text[start:end].

    Attributes:
        start: Where its first line begins.
        end: Behind its last character that is not blank.
        kind: A heading, a paragraph, a list's item, a table, or code (a literal block, a fence, a definition).
        path: The headings that it stands under, the outermost first; a heading's own title is the last of its path.
    """

    start: int
    end: int
    kind: Kind
    path: tuple[str, ...]


class Line(NamedTuple):
    """A line without its end; `indent` counts a tab as one."""

    start: int
    text: str
    indent: int


class Path:
    """The headings above the place that a parser has come to."""

    def __init__(self) -> None:
        self._levels: list[int] = []
        self.titles: tuple[str, ...] = ()

    def enter(self, level: int, title: str) -> tuple[str, ...]:
        """A heading of this level (1 is the outermost) begins; returns the path that ends with it."""
        while self._levels and self._levels[-1] >= level:
            self._levels.pop()
        del self._levels[DEEPEST - 1 :]
        self.titles = (*self.titles[: len(self._levels)], title[:MOST_HEADING])
        self._levels.append(level)
        return self.titles


def lines_of(text: str) -> Iterator[Line]:
    """All lines; a line ends with a line feed and nothing else."""
    start = 0
    for line in text.split("\n"):
        yield Line(start, line, len(line) - len(line.lstrip()))
        start += len(line) + 1


def groups(text: str) -> list[list[Line]]:
    """The lines between blank ones."""
    found: list[list[Line]] = []
    group: list[Line] = []
    start = 0
    for line in text.split("\n"):
        bare = line.lstrip()
        if bare:
            group.append(Line(start, line, len(line) - len(bare)))
        elif group:
            found.append(group)
            group = []
        start += len(line) + 1
    if group:
        found.append(group)
    return found


def end_of(line: Line) -> int:
    """Behind the line's last character that is not blank."""
    return line.start + len(line.text.rstrip())


def items(group: list[Line], path: tuple[str, ...]) -> list[Block]:
    """A group of lines as its list's items, or as one paragraph if it does not begin with an item."""
    if not ITEM.match(group[0].text):
        return [Block(group[0].start, end_of(group[-1]), "paragraph", path)]
    first = group[0].indent
    starts = [0] + [n for n in range(1, len(group)) if group[n].indent <= first and ITEM.match(group[n].text)]
    ends = [*starts[1:], len(group)]
    return [Block(group[a].start, end_of(group[b - 1]), "item", path) for a, b in zip(starts, ends, strict=True)]
