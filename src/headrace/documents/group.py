"""Blocks into chunks: where to cut, so that an edit moves cuts only nearby.

Filling one chunk after another to a limit makes every cut depend on all that stands above: a sentence added at the top
moves all that follow. Here each way to cut the whole text has a cost, and the cheapest is taken: the sum over chunks of
how far their size is from what is wanted, and over cuts of what stands there (a heading invites a cut, a heading's
first paragraph forbids one) and of a pseudo-random part, a hash of the block below. It is Knuth and Plass's line
breaking with the content-defined boundaries of Muthitacharoen et al. (LBFS, 2001): the cheapest ways through what did
not change soon run together, whatever stands above, and the hash breaks ties by content and not by position. A few
words more or less in a paragraph change no size enough to matter.

Time is linear in the number of blocks, since no chunk holds more than the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

# Found by trying many on the history of a few hundred documents: least embedded anew, at a median size of `wanted`.
_FORBIDDEN = 5.0
_HEADING = (-0.8, -0.4, 0.1)
_PARAGRAPH = 0.25
_ITEM = 2.2
_INSIDE = 0.4
_CHANCE = 0.5
_CHANCE_HEADING = 0.02
_SHORT = 40.0
_LONG = 42.0
# Sizes within these parts of the size that is wanted are as good as one another.
_LOW = 0.6
_HIGH = 1.18
# No chunk holds more blocks than this, however small: the cost of a hostile text stays linear.
_MOST_BLOCKS = 256


class Atom(NamedTuple):
    """A block, or a part of one that is too long: what chunks are made of.

    Attributes:
        start: Where it begins in the text, in characters.
        end: Where it ends.
        kind: The block's.
        path: The headings that it stands under.
        said: What is embedded of it.
        tokens: Of `said`.
        chance: From 0 to 1, decided by `said` alone.
        inside: Whether it goes on a block that the atom before it began.
        prefix: Tokens that the headings take of a chunk that begins with it.
    """

    start: int
    end: int
    kind: str
    path: tuple[str, ...]
    said: str
    tokens: int
    chance: float
    inside: bool
    prefix: int


def grouped(atoms: Sequence[Atom], limit: int, wanted: float, overlap: int) -> list[tuple[int, int]]:
    """The chunks, as ranges [first, last) of atoms.

    Args:
        atoms: In order; each fits the limit together with its prefix, and with the overlap where it is inside a block.
        limit: The most tokens of a chunk.
        wanted: The part of the limit that a chunk should have, 0 to 1.
        overlap: Tokens that a chunk which begins inside a block takes from the one before.
    """
    count = len(atoms)
    low, high = _LOW * wanted * limit, max(_HIGH * wanted * limit, 1.0)
    short, long = _SHORT / (limit * limit), _LONG / (limit * limit)
    best = [0.0] + [float("inf")] * count
    came = [0] * (count + 1)
    tokens = [atom.tokens for atom in atoms]
    costs = _costs(atoms)
    for first in range(count):
        here = best[first] + costs[first]
        size = atoms[first].prefix + (overlap if atoms[first].inside else 0)
        for last in range(first, min(count, first + _MOST_BLOCKS)):
            size += tokens[last]
            if size > limit and last > first:
                break
            cost = here
            if size < low:
                cost += short * (low - size) ** 2
            elif size > high:
                cost += long * (size - high) ** 2
            if cost < best[last + 1]:
                best[last + 1] = cost
                came[last + 1] = first
    found = []
    end = count
    while end:
        found.append((came[end], end))
        end = came[end]
    found.reverse()
    return found


def _costs(atoms: Sequence[Atom]) -> list[float]:
    """What a cut before each atom costs."""
    costs = [0.0]
    for before, atom in pairwise(atoms):
        if before.kind == "heading":
            cost = _FORBIDDEN
        elif atom.inside:
            cost = _INSIDE + _CHANCE * atom.chance
        elif atom.path != before.path:
            level = min(common(before.path, atom.path), len(_HEADING) - 1)
            cost = _HEADING[level] + _CHANCE_HEADING * atom.chance
        else:
            cost = (_PARAGRAPH if atom.kind == "paragraph" else _ITEM) + _CHANCE * atom.chance
        costs.append(cost)
    return costs


def common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many headings two paths share, from the outermost."""
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length
