"""Words as sparse vectors: the part of BM25 that a text decides by itself.

BM25 (Robertson and Zaragoza, 2009) weighs a word by how often it stands in the text, dampened (k1) and normalised by
the text's length (b), times how rare it is in all texts. The second factor changes with every text that comes and goes,
so the index applies it when it is asked; the first is fixed here, which needs an average length that does not move:
chunks are cut to a length, so it is a constant.

A word is a run of letters, digits and underscores. An identifier counts as a whole and by its parts (`read_many`,
`readMany`: read, many), a version by its beginnings (3.11.7: 3.11). Where nothing is put between words (Chinese,
Japanese, Korean), each pair of neighbouring characters is a term. Words are not stemmed: on known items (the titles and
headings of Python's enhancement proposals) a stemmer of plurals found less.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

K1 = 1.2
B = 0.75
# Words of a chunk of 256 tokens, as English prose has them.
AVERAGE_LENGTH = 160.0
# Longer ones are data: they are known by their beginning.
LONGEST_WORD = 64

Arrays = tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]

_WORD = re.compile(r"\d+(?:\.\d+)+|\w+")
_HUMPS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-zß-öø-ÿ]+|[A-Z]+|\d+|[^\W\dA-Za-zß-öø-ÿ_]+")
_NO_SPACES = re.compile(r"[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_MOST_REMEMBERED = 100_000


class _Memory:
    """The terms of a word as hashes, for the words that were met lately: two generations, of which the older goes."""

    def __init__(self) -> None:
        self._young: dict[str, tuple[int, ...]] = {}
        self._old: dict[str, tuple[int, ...]] = {}

    def get(self, word: str) -> tuple[int, ...]:
        found = self._young.get(word)
        if found is None:
            found = self._old.get(word)
            if found is None:
                found = tuple(xxhash.xxh32_intdigest(term.encode("utf-8", "surrogatepass")) for term in expand(word))
            if len(self._young) >= _MOST_REMEMBERED:
                self._old, self._young = self._young, {}
            self._young[word] = found
        return found


_MEMORY = _Memory()


def expand(word: str) -> list[str]:
    """The terms that a word stands for, each once: itself in lower case, and its parts.

    >>> expand("readMany")
    ['readmany', 'read', 'many']
    >>> expand("3.11.7")
    ['3.11.7', '3.11']
    """
    word = word[:LONGEST_WORD]
    if word[0].isdigit() and "." in word:
        numbers = word.split(".")
        return [".".join(numbers[:length]) for length in range(len(numbers), 1, -1)]
    if _NO_SPACES.search(word):
        return list(dict.fromkeys(_pairs(word)))
    parts = [word] if word.isascii() and word.islower() and word.isalpha() else [word, *_parts(word)]
    return list(dict.fromkeys(part.casefold() for part in parts))


def terms(texts: Sequence[str]) -> list[Arrays]:
    """The words of each chunk.

    Returns:
        Of each text, ids (uint32, ascending, each once) and weights (float32): the frequency of a term, dampened and
        normalised by length. A text without words has empty arrays.
    """
    return [_weighed(text) for text in texts]


def query_terms(text: str) -> Arrays:
    """The words of a question: ids (uint32, ascending, each once), and how often each was asked for (float32)."""
    counts, _ = _counted(text)
    return _arrays(counts)


def _weighed(text: str) -> Arrays:
    counts, length = _counted(text)
    ids, frequency = _arrays(counts)
    norm = np.float32(K1 * (1 - B + B * length / AVERAGE_LENGTH))
    return ids, frequency * np.float32(K1 + 1) / (frequency + norm)


def _counted(text: str) -> tuple[dict[int, int], int]:
    """How often each term stands in the text, and how many words it has."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    words = Counter(_WORD.findall(text))
    counts: dict[int, int] = {}
    for word, times in words.items():
        for term in _MEMORY.get(word):
            counts[term] = counts.get(term, 0) + times
    return counts, words.total()


def _arrays(counts: dict[int, int]) -> Arrays:
    ids = np.fromiter(counts.keys(), dtype=np.uint32, count=len(counts))
    frequency = np.fromiter(counts.values(), dtype=np.float32, count=len(counts))
    order = np.argsort(ids)
    return ids[order], frequency[order]


def _parts(word: str) -> list[str]:
    """An identifier's parts, if it has several; single characters tell nothing."""
    found = _HUMPS.findall(word)
    return [part for part in found if len(part) > 1] if len(found) > 1 else []


def _pairs(word: str) -> list[str]:
    found: list[str] = []
    at = 0
    for run in _NO_SPACES.finditer(word):
        if run.start() > at:
            found += expand(word[at : run.start()])
        characters = run[0]
        found += [characters[n : n + 2] for n in range(len(characters) - 1)] or [characters]
        at = run.end()
    if at < len(word):
        found += expand(word[at:])
    return found
