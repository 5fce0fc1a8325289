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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.stores.vectors.base import Terms

Slots32 = npt.NDArray[np.int32]
Stamps = npt.NDArray[np.uint32]
Weights = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

_FIRST = 4
_WORTH_CLEANING = 64
# From this length on it is worth asking whether a list must be read at all; up to so many points are looked up instead.
_LONG, _FEW = 2_048, 256
# Of so many slots together the best is looked at first.
_BLOCK = 32


@dataclass(slots=True)
class _List:
    """One word's entries; the first `used` count."""

    slots: Slots32
    stamps: Stamps
    weights: Weights
    used: int = 0
    live: int = 0
    most: float = 0.0

    def append(self, slots: Slots32, stamps: Stamps, weights: Weights) -> None:
        used = self.used + len(slots)
        if used > len(self.slots):
            self._resize(max(2 * len(self.slots), used))
        place = slice(self.used, used)
        self.slots[place], self.stamps[place], self.weights[place] = slots, stamps, weights
        self.used, self.live = used, self.live + len(slots)
        self.most = max(self.most, float(weights.max()))

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
        self.most = float(self.weights.max(initial=0.0))


@dataclass(frozen=True, slots=True)
class _Asked:
    """One of a question's words: its list at that moment, what its weights are multiplied by, and the most it adds.

    Attributes:
        stale: Whether some of its entries are.
    """

    word: int
    factor: float
    most: float
    stale: bool
    slots: Slots32
    stamps: Stamps
    weights: Weights

    def add_to(self, scores: Weights, current: Stamps, passing: Flags | None) -> None:
        slots = self.slots.astype(np.intp)  # once: NumPy would, for each look
        added = self.weights * np.float32(self.factor)
        if self.stale:
            added *= current[slots] == self.stamps
        if passing is not None:
            added *= passing[slots]
        # A slot's stale entries stand before its fresh one, and of several for one slot the last counts.
        scores[slots] += added


@dataclass(frozen=True, slots=True)
class View:
    """The lists of a question's words, at one moment; those that can add most come first."""

    lists: Sequence[_Asked]

    def scores(self, current: Stamps) -> Weights:
        """Each slot's BM25 score, shape (len(current),); 0 where no word is found.

        Args:
            current: The stamp of each slot's point at that moment.
        """
        found = np.zeros(len(current), np.float32)
        for one in self.lists:
            one.add_to(found, current, None)
        return found

    def best(
        self, k: int, current: Stamps, passing: Flags | None, weights_of: Callable[[int], Terms]
    ) -> list[tuple[int, float]]:
        """The k best as (slot, score), best first; exactly those of `scores`.

        A common word's list is long and adds little. Once the k-th best has more than all the words that are left can
        add, only those within reach of it can still get among the best; when they are few, their own words are looked
        up instead of the lists (MaxScore: Turtle and Flood, "Query Evaluation: Strategies and Optimizations", 1995).

        Args:
            passing: Which slots may be found; None for all.
            weights_of: A slot's words and their weights.
        """
        found = np.zeros(len(current), np.float32)
        left = sum(one.most for one in self.lists)
        for number, one in enumerate(self.lists):
            if len(one.slots) > _LONG and number:
                near = _within_reach(found, k, left)
                if near is not None:
                    rest = self.lists[number:]
                    return _top([(slot, float(found[slot]) + _looked_up(weights_of(slot), rest)) for slot in near], k)
            one.add_to(found, current, passing)
            left -= one.most
        touched = np.flatnonzero(found >= _least_of(found, k))
        return _top(list(zip(touched.tolist(), found[touched].tolist(), strict=True)), k)


def _least_of(scores: Weights, k: int) -> float:
    """More than 0, and no more than the k-th best score: above it are those k, and few others.

    If k of some blocks have a score of that much, so have k slots; the blocks' own best are soon compared.
    """
    least = np.finfo(np.float32).tiny
    whole = len(scores) // _BLOCK
    if whole <= k:
        return float(least)
    best = scores[: whole * _BLOCK].reshape(whole, _BLOCK).max(axis=1)
    return float(max(np.partition(best, whole - k)[whole - k], least))


def _within_reach(scores: Weights, k: int, left: float) -> list[int] | None:
    """The slots that can still be among the k best if at most `left` is added to any; None if they are many."""
    least = _least_of(scores, k)
    # A slot that has none of the words so far can get no more than what is left.
    if least <= left:
        return None
    near = np.flatnonzero(scores >= least - left)
    return near.tolist() if len(near) <= max(_FEW, 4 * k) else None


def _looked_up(terms: Terms, words: Sequence[_Asked]) -> float:
    """What these words add to a point's score."""
    asked = np.array([one.word for one in words], np.uint32)
    place = np.minimum(np.searchsorted(terms.ids, asked), len(terms.ids) - 1)
    has = terms.ids[place] == asked
    return float(np.dot(terms.weights[place] * has, np.array([one.factor for one in words], np.float32)))


def _top(scored: list[tuple[int, float]], k: int) -> list[tuple[int, float]]:
    return sorted(scored, key=lambda one: -one[1])[:k]


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
            self._lists[word] = _List(
                mine.copy(), current[mine], weighed.copy(), len(mine), len(mine), float(weighed.max(initial=0.0))
            )

    def view(self, query: Terms, points: int) -> View:
        """What a search for these words reads, among so many live points."""
        lists = []
        for word, weight in zip(query.ids.tolist(), query.weights.tolist(), strict=True):
            found = self._lists.get(word)
            if found is not None:
                factor, used = weight * idf(points, found.live), found.used
                arrays = found.slots[:used], found.stamps[:used], found.weights[:used]
                lists.append(_Asked(word, factor, factor * found.most, found.live < used, *arrays))
        return View(sorted(lists, key=lambda one: -one.most))


def idf(points: int, frequency: int) -> float:
    """The inverse document frequency, as `base.Terms` defines it."""
    return math.log(1.0 + (points - frequency + 0.5) / (frequency + 0.5))
