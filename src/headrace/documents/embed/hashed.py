"""An embedder for tests: words and pairs of words, hashed to the numbers of a vector. It has no model to load.

The hashing trick: each word and each pair of neighbours adds +1 or −1 to one of the numbers, place and sign by its
hash. Texts that share words are near, others are nearly orthogonal; the same text has the same vector on every
machine. It knows nothing of meaning.

Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import xxhash

from headrace.documents.embed.base import Offsets, Vectors
from headrace.errors import ConfigError

DIMENSION = 64
LIMIT = 512
_LARGEST = 4_096
_PAIR = 0.5  # what a pair counts beside a word: enough to tell orders of the same words apart
_WORD = re.compile(r"\w+|[^\w\s]")


class HashEmbedder:
    """Words, hashed.

    Args:
        spec: "hash", or with its dimension, "hash:384".

    Raises:
        ConfigError: What stands behind the colon is no dimension.
    """

    limit = LIMIT

    def __init__(self, spec: str = "hash") -> None:
        given = spec.partition(":")[2] or str(DIMENSION)
        if not given.isdecimal() or not 1 < int(given) <= _LARGEST:
            raise ConfigError(f"expected 'hash' or 'hash:N' with a dimension from 2 to {_LARGEST}, found {spec!r}")
        self.dimension = int(given)
        self.name = f"hash:{self.dimension}/words+pairs/{LIMIT}"

    def offsets(self, text: str) -> Offsets:
        """Shape (tokens, 2): where each word and each other sign begins and ends, in characters."""
        return np.array([word.span() for word in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Vectors:  # noqa: ARG002
        """Shape (n, dimension), float32, rows of length 1."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            words = [word.group() for _, word in zip(range(LIMIT), _WORD.finditer(text.casefold()), strict=False)]
            self._add(row, words, 1.0)
            self._add(row, [f"{first} {second}" for first, second in pairwise(words)], _PAIR)
            if not row.any():
                row[0] = 1.0  # no words, or such as cancel each other out
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _add(self, row: Vectors, words: Sequence[str], weight: float) -> None:
        hashes = [xxhash.xxh3_64_intdigest(word.encode(errors="surrogatepass")) for word in words]
        bits = np.array(hashes, dtype=np.uint64)
        signs = np.where(bits >> np.uint64(63), -weight, weight).astype(np.float32)
        np.add.at(row, (bits % np.uint64(self.dimension)).astype(np.int64), signs)
