"""Markdown: ATX and setext headings, fenced and indented code, lists (CommonMark's blocks), and tables (GFM's)."""

from __future__ import annotations

import re

from headrace.documents.structure.blocks import Block, Line, Path, end_of, items, lines_of

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*")
_DELIMITER = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t:|-]*)?")
_CODE_INDENT = 4
_LONGEST_TITLE = 3


def blocks(text: str) -> list[Block]:
    """The blocks of a text."""
    parser = _Parser()
    for line in lines_of(text):
        parser.line(line)
    parser.close()
    return parser.found


class _Parser:
    def __init__(self) -> None:
        self.found: list[Block] = []
        self._path = Path()
        self._group: list[Line] = []
        self._fence = ""
        # Whether the last block is indented code, which goes on over blank lines.
        self._indented = False

    def line(self, line: Line) -> None:
        blank = not line.text.strip()
        if self._fence:
            self._group.append(line)
            bare = line.text.strip()
            if bare.startswith(self._fence) and not bare.strip(self._fence[0]):
                self._code()
        elif fence := _FENCE.match(line.text):
            self.close()
            self._fence = fence[1]
            self._group = [line]
        elif blank:
            self.close()
        elif heading := _ATX.fullmatch(line.text):
            self.close()
            self._heading(line, line, len(heading[1]), heading[2] or "")
        elif self._group and _SETEXT.fullmatch(line.text) and self._titled():
            title = " ".join(one.text.strip() for one in self._group)
            first, self._group = self._group[0], []
            self._heading(first, line, 1 if "=" in line.text else 2, title)
        else:
            self._group.append(line)

    def close(self) -> None:
        """Ends the open group."""
        if self._fence:
            self._code()
            return
        group, self._group = self._group, []
        if not group:
            return
        path, last = self._path.titles, self.found[-1] if self.found else None
        whole = Block(group[0].start, end_of(group[-1]), "code", path)
        # Indented below an item it goes on the item.
        if group[0].indent >= _CODE_INDENT and (last is None or last.kind != "item"):
            if self._indented:
                whole = whole._replace(start=self.found.pop().start)
            self.found.append(whole)
            self._indented = True
            return
        self._indented = False
        if self._table(group):
            self.found.append(whole._replace(kind="table"))
        else:
            self.found += items(group, path)

    def _code(self) -> None:
        group, self._group, self._fence = self._group, [], ""
        while len(group) > 1 and not group[-1].text.strip():
            group.pop()
        self.found.append(Block(group[0].start, end_of(group[-1]), "code", self._path.titles))
        self._indented = False

    def _heading(self, first: Line, last: Line, level: int, title: str) -> None:
        bare = title.strip()
        # A closing run of '#' is decoration, unless it touches the title.
        opened = bare.rstrip("#")
        bare = opened.rstrip() if opened != bare and (not opened or opened[-1:].isspace()) else bare
        self.found.append(Block(first.start, end_of(last), "heading", self._path.enter(level, bare)))
        self._indented = False

    @staticmethod
    def _table(group: list[Line]) -> bool:
        return len(group) > 1 and "|" in group[0].text and _DELIMITER.fullmatch(group[1].text) is not None

    def _titled(self) -> bool:
        """Whether the open group can be a setext heading's title: short, and no list, quotation or table."""
        first = self._group[0].text.lstrip()
        return len(self._group) <= _LONGEST_TITLE and not first.startswith((">", "|", "- ", "* ", "+ "))
