"""reStructuredText and plain text: both live by blank lines, indentation and underlined headings.

A section's level is the order in which its adornment (the character, and whether there is a line above too) is first
met, as in docutils. Plain text adds one habit of old documents: a line alone at the margin whose text below is
indented is a heading.
"""

from __future__ import annotations

import re

from headrace.documents.structure.blocks import Block, Line, Path, end_of, groups, items

ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}\s*")
_BORDER = re.compile(r"\s*(?:=+(?: +=+)+|\+[-=+]{3,}\+|-+(?: +-+)+)\s*")
_LITERAL = re.compile(
    r"\s*\.\. (?:code-block|code|sourcecode|parsed-literal|math|graphviz|digraph|highlight|productionlist|testcode"
    r"|doctest)::"
)
_ENDS_A_SENTENCE = (".", ",", ";", ":")
_LONGEST_ALONE = 80


def blocks(text: str, *, plain: bool = False) -> list[Block]:
    """The blocks of a text."""
    return _Parser(plain).run(groups(text))


class _Parser:
    def __init__(self, plain: bool) -> None:
        self._plain = plain
        self._path = Path()
        self._styles: dict[tuple[str, bool], int] = {}
        self._found: list[Block] = []
        # Of the literal block that is open: what is indented deeper than this belongs to it.
        self._literal: int | None = None
        self._promised = False

    def run(self, all_groups: list[list[Line]]) -> list[Block]:
        for number, group in enumerate(all_groups):
            if self._literal is not None:
                if min(line.indent for line in group) > self._literal:
                    self._literally(group)
                    continue
                self._literal = None
            rest = self._headings(group)
            if rest:
                below = all_groups[number + 1] if number + 1 < len(all_groups) else None
                self._body(rest, below)
        return self._found

    def _headings(self, group: list[Line]) -> list[Line]:
        """Takes the headings that a group begins with, and returns the rest."""
        while len(group) > 1 and group[0].indent <= 1:
            over = len(group) > 2 and _adorned(group[0]) and not _adorned(group[1]) and _same(group[0], group[2])
            if over:
                title, last, lines = group[1], group[2], 3
            elif not _adorned(group[0]) and group[0].indent == 0 and _adorned(group[1]):
                title, last, lines = group[0], group[1], 2
            else:
                break
            bare = title.text.strip()
            if len(last.text.rstrip()) < 0.7 * len(bare) - 2:
                break
            level = self._styles.setdefault((last.text[0], over), len(self._styles) + 1)
            path = self._path.enter(level, bare)
            self._found.append(Block(group[0].start, end_of(last), "heading", path))
            group = group[lines:]
        return group

    def _body(self, group: list[Line], below: list[Line] | None) -> None:
        first, last = group[0], group[-1]
        if self._plain and len(group) == 1 and _alone(first, below):
            path = self._path.enter(1, first.text.strip())
            self._found.append(Block(first.start, end_of(first), "heading", path))
            return
        path = self._path.titles
        if _LITERAL.match(first.text):
            self._found.append(Block(first.start, end_of(last), "code", path))
            self._literal, self._promised = first.indent, False
        elif first.text.lstrip().startswith(">>>"):
            self._found.append(Block(first.start, end_of(last), "code", path))
        elif _BORDER.fullmatch(first.text) or (len(group) > 1 and _BORDER.fullmatch(group[1].text)) or _aligned(group):
            self._found.append(Block(first.start, end_of(last), "table", path))
        else:
            self._found += items(group, path)
            if last.text.rstrip().endswith("::"):
                # What is indented deeper than the paragraph's own first line of the last item is literal.
                self._literal, self._promised = self._margin(group), True

    def _margin(self, group: list[Line]) -> int:
        start = self._found[-1].start
        return next(line.indent for line in group if line.start == start)

    def _literally(self, group: list[Line]) -> None:
        """Literal text goes on over blank lines and is one block."""
        block = self._found[-1]
        end = end_of(group[-1])
        if self._promised:
            self._promised = False
            self._found.append(Block(group[0].start, end, "code", self._path.titles))
        else:
            self._found[-1] = block._replace(end=end)


def _aligned(group: list[Line]) -> bool:
    """Whether most lines have columns: wide gaps between words."""
    return len(group) > 2 and sum("   " in line.text.strip() for line in group) > 0.6 * len(group)


def _adorned(line: Line) -> bool:
    return line.indent == 0 and ADORNMENT.fullmatch(line.text) is not None


def _same(one: Line, other: Line) -> bool:
    return _adorned(other) and one.text[0] == other.text[0]


def _alone(line: Line, below: list[Line] | None) -> bool:
    """Whether a line is a heading by its place alone: at the margin, short, no sentence, its text indented below it."""
    bare = line.text.strip()
    return (
        line.indent == 0
        and below is not None
        and below[0].indent > 0
        and len(bare) <= _LONGEST_ALONE
        and not bare.endswith(_ENDS_A_SENTENCE)
        and any(character.isalpha() for character in bare)
    )
