"""The parts of a block that is too long to be one: sentences of prose, lines of code and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from headrace.documents.structure.blocks import Block

# Behind a full stop (or the like) and a blank; and behind the full stops of scripts that put no blank.
_SENTENCE = re.compile(r"(?<=[.!?;:])[\"')\]]?\s+(?=\S)|(?<=[。！？；।؟])")
_LINE = re.compile(r"\n+(?=[ \t]*\S)")
_FIELD = re.compile(r":?[A-Za-z][\w -]{0,40}:(?:\s|$)")


def parts(text: str, block: Block) -> Iterator[tuple[int, int]]:
    """Where the parts begin and end; together they are all that is not blank, in order."""
    body = text[block.start : block.end]
    lines = block.kind in ("code", "table") or _FIELD.match(body) is not None
    start = 0
    for cut in (_LINE if lines else _SENTENCE).finditer(body):
        if cut.end() > start:
            yield from _trimmed(body, start, cut.end(), block.start)
            start = cut.end()
    yield from _trimmed(body, start, len(body), block.start)


def _trimmed(body: str, start: int, end: int, base: int) -> Iterator[tuple[int, int]]:
    kept = len(body[start:end].rstrip())
    if kept and body[start : start + kept].strip():
        yield base + start, base + start + kept
