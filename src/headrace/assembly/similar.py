"""How much of an item is said already: near-duplicates, and what is left of an item's worth.

Items are as alike as their sets of shingles (`documents.near`): what they share by what they have together. All
shingles of all items are numbered once; then one item is compared with all others by one look-up a shingle.

Source: Carbonell and Goldstein, "The Use of MMR" (SIGIR 1998), whose discount by the greatest similarity this is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headrace.documents.near import shingles
from headrace.documents.tokens import Memory, key_of

ALIKE = 0.8
"""From here on two texts are near-duplicates, and one of them is enough."""

LONGEST = 20_000
"""Characters of a text that are compared."""

Floats = npt.NDArray[np.float64]

# A passage is found again and again: its shingles, a third of the packer's time, are made once.
_known: Memory[npt.NDArray[np.uint64]] = Memory(4_096)


def _shingles(text: str) -> npt.NDArray[np.uint64]:
    text = text[:LONGEST]
    return _known.get(key_of(text), lambda: shingles(text))


class Similar:
    """Texts, each comparable with all."""

    def __init__(self, texts: Sequence[str]) -> None:
        sets = [_shingles(text) for text in texts]
        self._sizes = np.array([len(one) for one in sets], dtype=np.int64)
        ends = np.cumsum(self._sizes)
        self._starts = ends - self._sizes
        if sets:
            self._known, self._numbers = np.unique(np.concatenate(sets), return_inverse=True)

    def to(self, place: int) -> Floats:
        """Shape (n,), from 0 to 1: how alike each text is to the one in that place."""
        start = self._starts[place]
        return self._alike(self._numbers[start : start + self._sizes[place]], int(self._sizes[place]))

    def to_text(self, text: str) -> Floats:
        """The same, of any text."""
        own = shingles(text[:LONGEST])
        places = np.searchsorted(self._known, own)
        places = places[places < len(self._known)]
        found = places[np.isin(self._known[places], own, assume_unique=True)]
        return self._alike(found, len(own))

    def _alike(self, numbers: npt.NDArray[np.int64], size: int) -> Floats:
        own = np.zeros(len(self._known), dtype=np.int64)
        own[numbers] = 1
        shared = np.add.reduceat(own[self._numbers], self._starts)
        return np.asarray(shared / (self._sizes + size - shared), dtype=np.float64)
