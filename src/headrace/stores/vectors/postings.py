"""Words → points: inverted lists with exact BM25, kept as points come and go.

A list holds, for one word, the slots of the points that have it, with weights. Nothing is taken out of a list when a
point goes: every point has a stamp of its own, the slot knows the stamp of the point that lives there now, and an
entry whose stamp is another's is stale and does not count. A list that is half stale is written anew, so each entry is
copied at most once per entry that went: appending and removing cost the same however long the lists are.

The document frequency is counted exactly as points come and go: it is that of the live points at any moment.

A `View` is what one search reads. It is taken under the owner's lock in microseconds and stays as it is: lists grow
behind its end or are replaced whole, and slots are not used again while a view may still name them (see `Slots`).

Theory: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.stores.vectors.base import Terms

Slots32 = npt.NDArray[np.int32]
Stamps = npt.NDArray[np.uint32]
Weights = npt.NDArray[np.float32]

_FIRST = 4
_WORTH_CLEANING = 64


@dataclass(slots=True)
class _List:
    """One word's entries; the first `used` count."""

    slots: Slots32
    stamps: Stamps
    weights: Weights
    used: int = 0
    live: int = 0

    def append(self, slots: Slots32, stamps: Stamps, weights: Weights) -> None:
        used = self.used + len(slots)
        if used > len(self.slots):
            self._resize(max(2 * len(self.slots), used))
        place = slice(self.used, used)
        self.slots[place], self.stamps[place], self.weights[place] = slots, stamps, weights
        self.used, self.live = used, self.live + len(slots)

    def _resize(self, size: int) -> None:
        # New arrays: a view goes on reading the old ones.
        for name in ("slots", "stamps", "weights"):
            old = getattr(self, name)
            new = np.empty(size, old.dtype)
            new[: self.used] = old[: self.used]
            setattr(self, name, new)

    def clean(self, current: Stamps) -> None:
        """Leaves stale entries out."""
        fresh = current[self.slots[: self.used]] == self.stamps[: self.used]
        self.slots = self.slots[: self.used][fresh]
        self.stamps = self.stamps[: self.used][fresh]
        self.weights = self.weights[: self.used][fresh]
        self.used = self.live = len(self.slots)


@dataclass(frozen=True, slots=True)
class View:
    """The lists of a query's words, at one moment: (factor, slots, stamps, weights) of each."""

    lists: Sequence[tuple[float, Slots32, Stamps, Weights]]

    def scores(self, current: Stamps) -> Weights:
        """Each slot's BM25 score, shape (len(current),); 0 where no word is found.

        Args:
            current: The stamp of each slot's point at that moment.
        """
        found = np.zeros(len(current), np.float32)
        for factor, slots, stamps, weights in self.lists:
            fresh = current[slots] == stamps
            found[slots[fresh]] += np.float32(factor) * weights[fresh]
        return found


class Postings:
    """The inverted lists of an index; its owner's lock is held around every call."""

    def __init__(self) -> None:
        self._lists: dict[int, _List] = {}

    def add(self, terms: Sequence[Terms], slots: Sequence[int], stamps: Sequence[int]) -> None:
        """Points come, with their words."""
        sizes = [len(one.ids) for one in terms]
        if not sum(sizes):
            return
        words = np.concatenate([one.ids for one in terms])
        order = np.argsort(words, kind="stable")
        words = words[order]
        places = np.repeat(np.asarray(slots, np.int32), sizes)[order]
        marks = np.repeat(np.asarray(stamps, np.uint32), sizes)[order]
        weights = np.concatenate([one.weights for one in terms]).astype(np.float32)[order]
        starts = np.flatnonzero(np.concatenate(([True], words[1:] != words[:-1]))).tolist()
        for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
            word = int(words[start])
            found = self._lists.get(word)
            if found is None:
                found = self._lists[word] = _List(
                    np.empty(_FIRST, np.int32), np.empty(_FIRST, np.uint32), np.empty(_FIRST, np.float32)
                )
            found.append(places[start:end], marks[start:end], weights[start:end])

    def remove(self, terms: Sequence[npt.NDArray[np.uint32]], current: Stamps) -> None:
        """Points have gone, which had these words.

        Args:
            current: The stamp of each slot's point, without those that went.
        """
        # All of a word at once: cleaning leaves out every point that went, those not counted here yet among them.
        for word, gone in Counter(word for ids in terms for word in ids.tolist()).items():
            found = self._lists[word]
            found.live -= gone
            if not found.live:
                del self._lists[word]
            elif found.used > _WORTH_CLEANING and found.live * 2 < found.used:
                found.clean(current)

    def frequency(self, word: int) -> int:
        """How many live points have the word."""
        found = self._lists.get(word)
        return found.live if found else 0

    def dump(self, current: Stamps) -> tuple[list[int], list[Slots32], list[Weights]]:
        """The words, and of each the slots and weights of the live points."""
        slots, weights = [], []
        for found in self._lists.values():
            fresh = current[found.slots[: found.used]] == found.stamps[: found.used]
            slots.append(found.slots[: found.used][fresh])
            weights.append(found.weights[: found.used][fresh])
        return list(self._lists), slots, weights

    def load(self, words: Sequence[int], slots: Sequence[Slots32], weights: Sequence[Weights], current: Stamps) -> None:
        """What was dumped."""
        for word, mine, weighed in zip(words, slots, weights, strict=True):
            self._lists[word] = _List(mine.copy(), current[mine], weighed.copy(), len(mine), len(mine))

    def view(self, query: Terms, points: int) -> View:
        """What a search for these words reads, among so many live points."""
        lists = []
        for word, weight in zip(query.ids.tolist(), query.weights.tolist(), strict=True):
            found = self._lists.get(word)
            if found is not None:
                used = found.used
                factor = weight * idf(points, found.live)
                lists.append((factor, found.slots[:used], found.stamps[:used], found.weights[:used]))
        return View(lists)


def idf(points: int, frequency: int) -> float:
    """The inverse document frequency, as `base.Terms` defines it."""
    return math.log(1.0 + (points - frequency + 0.5) / (frequency + 0.5))
