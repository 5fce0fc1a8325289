"""What a revision changes: chunks that are new, that stay, and that go.

Since a chunk's id is made from what it says, comparing ids is all that there is to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.documents.states import Chunk


@dataclass(frozen=True, slots=True)
class Known:
    """A chunk as the collection's records have it: its id, and where it stands in its document."""

    id: str
    number: int
    start: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A chunk that was there before, as it is now; `moved` if its number or its offset is another."""

    chunk: Chunk
    moved: bool


@dataclass(frozen=True, slots=True)
class Diff:
    """A revision's effect.

    Attributes:
        added: To be embedded, unless a cache has them; in the document's order.
        kept: Not embedded again; in the document's order.
        removed: Ids that go, in the old order.
    """

    added: tuple[Chunk, ...]
    kept: tuple[Kept, ...]
    removed: tuple[str, ...]


def diff(old: Iterable[Known], new: Sequence[Chunk]) -> Diff:
    """Compares a document's chunks with those of its next revision."""
    before = {one.id: one for one in old}
    added: list[Chunk] = []
    kept: list[Kept] = []
    for chunk in new:
        was = before.pop(chunk.id, None)
        if was is None:
            added.append(chunk)
        else:
            kept.append(Kept(chunk, (was.number, was.start) != (chunk.number, chunk.start)))
    return Diff(tuple(added), tuple(kept), tuple(before))
