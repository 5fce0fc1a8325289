"""Text that is kept as it stands: Markdown, reStructuredText, plain text and source code. Its structure is read later.

Only a title is looked for, in the first lines.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise

from headrace.formats.text.encoding import declared, decode
from headrace.formats.text.states import Extracted, Given

_HEAD = 20_000  # characters in which a title is looked for
_LONGEST = 200
_ATX = re.compile(r" {0,3}#\s+(.+?)\s*#*\s*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_FRONT = re.compile(r"---\n(.*?)\n(?:---|\.\.\.)(?:\n|$)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title\s*:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE | re.IGNORECASE)
_RULE = re.compile(r"([!-/:-@[-`{-~])\1{2,}\s*")


def load(data: bytes, given: Given) -> Extracted:
    """The text and its title."""
    text = decode(data, charset=given.charset, inside=declared(data, given.type))
    return Extracted(title_of(text, given.type) or os.path.basename(given.name), text, given.type)


def title_of(text: str, type_: str) -> str:
    """The title that a text gives itself, or an empty one; code has none."""
    head = text[:_HEAD]
    if type_ == "markdown":
        return _markdown(head)[:_LONGEST]
    if type_ == "rst":
        return _underlined(head.split("\n"))[:_LONGEST]
    if type_ == "plain":
        first = next((line.strip() for line in head.split("\n") if line.strip()), "")
        return first if len(first) <= _LONGEST // 2 else ""
    return ""


def _markdown(head: str) -> str:
    front = _FRONT.match(head)
    if front:
        title = _FRONT_TITLE.search(front[1])
        if title:
            return title[1]
        head = head[front.end() :]
    lines = head.split("\n")
    fence = ""
    for number, line in enumerate(lines):
        opened = _FENCE.match(line)
        if opened and (not fence or opened[1].startswith(fence)):
            fence = "" if fence else opened[1]
        elif not fence:
            title = _ATX.fullmatch(line)
            if title:
                return title[1]
            below = lines[number + 1] if number + 1 < len(lines) else ""
            if line.strip() and re.fullmatch(r"={3,}\s*", below):
                return line.strip()
    return ""


def _underlined(lines: list[str]) -> str:
    """The first line that is underlined at least as long as it is, as sections of reStructuredText are."""
    for line, below in pairwise(lines):
        text = line.strip()
        if text and not _RULE.fullmatch(line) and _RULE.fullmatch(below) and len(below.strip()) >= min(len(text), 4):
            return text
    return ""
