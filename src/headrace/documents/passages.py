"""A clean document cut into passages to train on: a section under its heading, whole where it fits.

A chunk for retrieval is small and may overlap its neighbour; what a model is trained to write should be a whole thing
and stand once. So a passage is the text between two headings (or a definition of a program). One that is too long is
cut between its blocks, and each further part is told what came before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from headrace.documents.structure.blocks import Block
from headrace.documents.structure.formats import blocks, is_code

Count = Callable[[str], int]
_BYTES_A_TOKEN = 4


def estimated(text: str) -> int:
    """About how many tokens a text has: its bytes in UTF-8 by 4, rounded up.

    Vocabularies differ; for English prose those of today come within about a fifth of it.
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_A_TOKEN)


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document that can be asked for.

    Attributes:
        title: The document's.
        heading: What stands right above the passage; empty if nothing does.
        path: All that stands above it, from the outermost.
        before: The part of the same section that it goes on from; empty where it begins one.
        text: What is to be written.
        format: Of the document: "markdown", "rst", "plain" or the name of a programming language.
        start: Where it begins in the clean text, in characters.
        end: Where it ends.
        whole: Whether the document is this passage and nothing else.
        number: Its place among the document's passages, from 0; those that were left out count.
    """

    title: str
    heading: str
    path: tuple[str, ...]
    before: str
    text: str
    format: str
    start: int
    end: int
    whole: bool
    number: int

    @property
    def code(self) -> bool:
        """Whether it is part of a program."""
        return is_code(self.format)


def passages(
    title: str, text: str, format: str, *, least: int, most: int, count: Count = estimated
) -> tuple[list[Passage], Counter[str]]:
    """The passages of a document, and how many were left out by reason: "too_short", "too_long" or "no_prompt".

    Args:
        title: May be empty.
        text: Clean.
        format: As `Cleaned.format`.
        least: The fewest tokens of a passage.
        most: The most; also of what comes before it.
        count: Tokens of a text.
    """
    found: list[Passage] = []
    removed: Counter[str] = Counter()
    number = 0
    sections = list(_sections(text, format))
    for path, section in sections:
        heading = path[-1] if path else ""
        parts = list(_parts(text, section, most, count, named=bool(heading or title)))
        for before, part in parts:
            if part is None:
                removed["no_prompt"] += 1
                continue
            start, end = part
            shown = text[start:end]
            tokens = count(shown)
            if least <= tokens <= most:
                whole = len(sections) == len(parts) == 1
                found.append(Passage(title, heading, path, before, shown, format, start, end, whole, number))
            else:
                removed["too_short" if tokens < least else "too_long"] += 1
            number += 1
    return found, removed


def _sections(text: str, format: str) -> Iterator[tuple[tuple[str, ...], list[Block]]]:
    """The blocks under one heading, without the heading itself."""
    for path, group in groupby(blocks(text, format), key=lambda block: block.path):
        section = [block for block in group if block.kind != "heading"]
        if section:
            yield path, section


def _parts(
    text: str, section: list[Block], most: int, count: Count, *, named: bool
) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """A section as parts of at most `most` tokens, each with the part before it; a block is never cut.

    Args:
        named: Whether there is a heading or title to ask for the first part by. If not, it can only be gone on from.
    """
    packed = _packed(text, section, most, count)
    if not named and len(packed) == 1:
        packed = _halves(packed[0])
        if len(packed) == 1:
            yield "", None
            return
    before = ""
    for number, part in enumerate(packed):
        start, end = part[0].start, part[-1].end
        if number or named:
            yield before, (start, end)
        shown = text[start:end]
        # What could not be part of an example by its length cannot be the beginning of one either.
        before = shown if count(shown) <= most else ""


def _packed(text: str, section: list[Block], most: int, count: Count) -> list[list[Block]]:
    """Blocks that stand together, as many as fit; one that is too long stands alone."""
    parts: list[list[Block]] = []
    tokens = 0
    for block in section:
        own = count(text[block.start : block.end])
        # The sum may miss what stands between blocks, so the text itself has the last word.
        fits = bool(parts) and tokens + own <= most and count(text[parts[-1][0].start : block.end]) <= most
        if fits:
            parts[-1].append(block)
            tokens += own
        else:
            parts.append([block])
            tokens = own
    return parts


def _halves(part: list[Block]) -> list[list[Block]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]] if middle else [part]
