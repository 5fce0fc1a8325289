"""Ranking: several lists become one, and the best become varied.

Scores of different kinds cannot be added: a cosine and a BM25 score have no common unit. Ranks can: reciprocal rank
fusion gives an item 1 / (60 + its rank) from each list that has it (Cormack, Clarke and Büttcher, SIGIR 2009). But
ranks forget how good a match is: the one text with a rare word is beaten by any that is mediocre in both lists, and a
weak embedder's list counts as much as a strong one's. So meaning and words are blended by scores that were given a
common unit, a convex combination (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS
2023): a BM25 score as its share of the best one's, a cosine as how far it stands out from the end of its list. What
stands out is what an embedder really knows: where all cosines are alike, the words decide. Maximal marginal relevance
picks one after another what is good and unlike what was picked (Carbonell and Goldstein, 1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from headrace.errors import ConfigError

# How much the first ranks count beside the later ones; the value of the paper.
RANK_CONSTANT = 60
# The part of words in a blend, chosen on known items (titles and headings) of 200 of Python's enhancement proposals. On
# 150 others it found more than words alone with MiniLM (nDCG@10 +0.020, 95 % interval +0.011 to +0.029), and no
# measurable difference from words alone with embedders that are much weaker than words (-0.004, interval over 0).
WORDS_WEIGHT = 0.6
# How long the lists of a blend should be: the end of a list is the crowd that a match stands out from.
BLEND_DEPTH = 100
_Id = TypeVar("_Id", bound=str | int)


class Reranker(Protocol):
    """A model that reads a question and a text together."""

    def scores(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.floating]:
        """Shape (n,): how well each text answers the question, the higher the better."""
        ...


def fuse(
    lists: Sequence[Sequence[_Id]], k: int, weights: Sequence[float] | None = None, *, constant: int = RANK_CONSTANT
) -> list[tuple[_Id, float]]:
    """The best of several lists, each best first.

    Args:
        lists: Ids; an id counts once in a list, at its best place.
        k: How many are wanted at most.
        weights: How much each list counts; all the same if not given.
        constant: How much a later place still counts.

    Returns:
        Ids with scores, best first. Equal scores go by the best single place, then by the order of the lists.

    Raises:
        ConfigError: There are not as many weights as lists.
    """
    factors = [1.0] * len(lists) if weights is None else list(weights)
    if len(factors) != len(lists):
        raise ConfigError(f"expected a weight for each of {len(lists)} lists, found {len(factors)}")
    scores: dict[_Id, float] = {}
    places: dict[_Id, int] = {}
    for found, weight in zip(lists, factors, strict=True):
        for place, one in enumerate(dict.fromkeys(found), 1):
            scores[one] = scores.get(one, 0.0) + weight / (constant + place)
            places[one] = min(places.get(one, place), place)
    # A stable sort: what is equal stays in the order in which it was met.
    best = sorted(scores, key=lambda one: (-scores[one], places[one]))[: max(k, 0)]
    return [(one, scores[one]) for one in best]


def blend(
    meaning: Sequence[Sequence[tuple[_Id, float]]],
    words: Sequence[Sequence[tuple[_Id, float]]],
    weight: float = WORDS_WEIGHT,
) -> list[tuple[_Id, float]]:
    """The lists of a search by meaning and by words, of one index or several, as one list.

    Args:
        meaning: Ids with cosines, best first; a list for each embedder.
        words: Ids with BM25 scores, best first.
        weight: The part of words, from 0 to 1.

    Returns:
        All ids with scores of at most 1, best first. Equal scores go by the order of the lists.

    Raises:
        ConfigError: `weight` is not within 0 … 1.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"expected a weight from 0 to 1, found {weight}")
    scores: dict[_Id, float] = {}
    best = max((score for found in words for _, score in found[:1]), default=0.0)
    for found in words:
        for one, score in found:
            scores[one] = max(scores.get(one, 0.0), weight * score / best if best > 0 else 0.0)
    for found in meaning:
        crowd = found[-1][1] if found else 0.0
        # Each once, though a list should not have it twice.
        for one, cosine in dict(reversed(found)).items():
            scores[one] = scores.get(one, 0.0) + (1 - weight) * (cosine - crowd)
    return sorted(scores.items(), key=lambda one: -one[1])


def mmr(vectors: npt.NDArray[np.float32], scores: npt.NDArray[np.floating], k: int, weight: float = 0.5) -> list[int]:
    """The places of k items, each good and unlike those before it.

    Args:
        vectors: Shape (n, dimension), rows of length 1.
        scores: Shape (n,): how good each is, in any unit; they are scaled to 0 … 1.
        k: How many are wanted at most.
        weight: 1 is the best, however alike; 0 is the most different.

    Returns:
        Row numbers, in the order of choice; the first is the best one.

    Raises:
        ConfigError: `weight` is not within 0 … 1, or the shapes do not match.
    """
    count = len(scores)
    if not 0 <= weight <= 1:
        raise ConfigError(f"expected a weight from 0 to 1, found {weight}")
    if vectors.ndim != 2 or len(vectors) != count:
        raise ConfigError(f"expected {count} vectors as rows, found an array of shape {vectors.shape}")
    if count == 0 or k <= 0:
        return []
    spread = float(np.max(scores) - np.min(scores))
    value = (np.asarray(scores, dtype=np.float64) - np.min(scores)) / (spread or 1.0)
    alike = np.full(count, -1.0)
    chosen = [int(np.argmax(value))]
    free = np.ones(count, dtype=bool)
    free[chosen[0]] = False
    while len(chosen) < min(k, count):
        alike = np.maximum(alike, vectors @ vectors[chosen[-1]])
        worth = np.where(free, weight * value - (1 - weight) * alike, -np.inf)
        chosen.append(int(np.argmax(worth)))
        free[chosen[-1]] = False
    return chosen
