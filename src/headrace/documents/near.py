"""Near-duplicates: texts that say almost the same in almost the same words.

Two texts are as alike as their sets of shingles (runs of five words): the size of what they share by the size of both
together (Jaccard). Comparing all pairs is quadratic. MinHash (Broder, 1997) makes signatures of equal length in which
two texts agree as often as they are alike; locality-sensitive hashing (Indyk and Motwani, 1998) puts texts whose
signatures agree in a band of rows into one bucket, and only those are compared, exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.errors import ConfigError

SHINGLE = 5
_PERMUTATIONS = 128
# A pair at the threshold must be met in a bucket with at least this probability.
_RECALL = 0.99
_ROWS = (16, 8, 4, 2, 1)
# In a bucket a text is compared with so many that are unlike one another; more would be quadratic in a bad case.
_MOST_COMPARED = 16
_AT_ONCE = 8192
_WORD = re.compile(r"\w+")

UInt64 = npt.NDArray[np.uint64]


def groups(texts: Sequence[str], threshold: float = 0.85) -> npt.NDArray[np.int64]:
    """Which texts are near-duplicates of one another.

    Args:
        texts: Any texts; case, punctuation and blanks do not count.
        threshold: How alike two texts must be, above 0 to 1: shared shingles by all shingles of the two.

    Returns:
        Shape (n,), int64: of each text the number of the first text of its group; of a text that has no duplicate
        before it, its own number. Being alike is passed on: two texts may share a group through a third.

    Raises:
        ConfigError: The threshold is out of its range.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"expected a threshold above 0 and at most 1, found {threshold}")
    first = np.arange(len(texts), dtype=np.int64)
    if len(texts) < 2:
        return first
    sets = [shingles(text) for text in texts]
    signatures = np.stack([_signature(one) for one in sets])
    rows = _rows(threshold)
    for band in range(0, _PERMUTATIONS, rows):
        for bucket in _buckets(signatures[:, band : band + rows]):
            _merge(bucket, sets, threshold, first)
    return np.array([_root(first, number) for number in range(len(texts))], dtype=np.int64)


def shingles(text: str) -> UInt64:
    """The hashes of a text's runs of words, ascending, each once; a text of fewer words has one. Never empty."""
    words = _WORD.findall(text.casefold())
    if not words:
        return _hashes([text.strip()])
    hashed = _hashes(words)
    length = min(SHINGLE, len(hashed))
    made = np.zeros(len(hashed) - length + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place in range(length):
            made = made * np.uint64(0x9E3779B97F4A7C15) + hashed[place : place + len(made)]
    return np.unique(made)


def similarity(one: UInt64, other: UInt64) -> float:
    """The Jaccard similarity of two sets of shingles."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _hashes(words: Sequence[str]) -> UInt64:
    encoded = (word.encode("utf-8", "surrogatepass") for word in words)
    return np.fromiter(map(xxhash.xxh64_intdigest, encoded), dtype=np.uint64, count=len(words))


def _constants() -> tuple[UInt64, UInt64]:
    """Odd factors and summands of 128 hash functions (multiply-shift), the same on every machine."""
    numbers = _hashes([f"headrace minhash {n}" for n in range(2 * _PERMUTATIONS)])
    return numbers[:_PERMUTATIONS] | np.uint64(1), numbers[_PERMUTATIONS:]


_FACTORS, _SUMMANDS = _constants()


def _signature(values: UInt64) -> npt.NDArray[np.uint32]:
    """Shape (128,): of each hash function the smallest value over the set."""
    best = np.full(_PERMUTATIONS, np.iinfo(np.uint32).max, dtype=np.uint32)
    with np.errstate(over="ignore"):
        for start in range(0, len(values), _AT_ONCE):
            mixed = values[start : start + _AT_ONCE, None] * _FACTORS + _SUMMANDS
            best = np.minimum(best, (mixed >> np.uint64(32)).astype(np.uint32).min(axis=0))
    return best


def _rows(threshold: float) -> int:
    """Rows of a band: as many as leave a pair at the threshold its chance to be met."""
    for rows in _ROWS:
        if 1 - (1 - threshold**rows) ** (_PERMUTATIONS // rows) >= _RECALL:
            return rows
    return 1


def _buckets(band: npt.NDArray[np.uint32]) -> list[npt.NDArray[np.int64]]:
    """The numbers of the texts that agree in a band, where at least two do; ascending."""
    _, inverse, counts = np.unique(band, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    ends = np.cumsum(counts)
    return [order[end - count : end] for end, count in zip(ends, counts, strict=True) if count > 1]


def _merge(
    bucket: npt.NDArray[np.int64], sets: Sequence[UInt64], threshold: float, first: npt.NDArray[np.int64]
) -> None:
    compared: list[int] = []
    for number in bucket.tolist():
        root = _root(first, number)
        for other in compared:
            with_ = _root(first, other)
            if with_ == root:
                break
            if similarity(sets[number], sets[other]) >= threshold:
                first[max(root, with_)] = min(root, with_)
                break
        else:
            if len(compared) < _MOST_COMPARED:
                compared.append(number)


def _root(first: npt.NDArray[np.int64], number: int) -> int:
    while first[number] != number:
        first[number] = first[first[number]]
        number = int(first[number])
    return number
