"""Chunks for the `vectors` benchmark: as many as asked for, that lie as real embeddings do.

Random directions would be the easiest and the least real thing: all are equally far. Real embeddings lie in clusters
of few dimensions, and what is near a question is near each other. So some thousand real texts (of the standard
library) are embedded, and a chunk is a point between one of them and one of its neighbours, moved by the difference of
two others nearby: the directions in which real texts there differ. Questions are real texts that no chunk was made
from. Without the embedder, a mixture of clusters stands in, and the report says so.
"""

from __future__ import annotations

import functools
import re
import sysconfig
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.document import Column
from headrace.errors import HeadraceError
from headrace.stores.vectors.base import Point, Terms

Matrix = npt.NDArray[np.float32]

DIMENSION = 384
COLUMNS = {"lang": Column("str"), "year": Column("int")}
QUESTIONS = 400
_TEXTS = 5_000
_NEIGHBOURS = 16
_VOCABULARY, _WORDS, _DIFFERENT = 50_000, 60, 9_973
_BLOCK = 20_000


@dataclass(frozen=True)
class Chunks:
    """Chunks by number, and questions.

    Attributes:
        vectors: Shape (n, 384), rows of length 1.
        questions: Shape (m, 384).
        about: What they were made from.
        seed: Of the words.
    """

    vectors: Matrix
    questions: Matrix
    about: str
    seed: int

    def points(self, numbers: Sequence[int]) -> list[Point]:
        """Some of them, with about sixty words each and two columns; the same each time."""
        texts = _texts(self.seed)
        return [
            Point(
                id_of(n),
                self.vectors[n],
                texts[n % len(texts)],
                {"document": f"d{n // 8}", "text": f"chunk {n}", "lang": ("en", "de", "fr")[n % 3], "year": n % 40},
            )
            for n in numbers
        ]


def id_of(number: int) -> str:
    """The id of the chunk of that number."""
    return str(uuid.UUID(int=number))


def number_of(text: str) -> int:
    """The number of the chunk of that id."""
    return int(text.replace("-", ""), 16)


@functools.cache
def _texts(seed: int) -> list[Terms]:
    """The words of some thousand texts: making them for each chunk would take longer than writing it."""
    rng = np.random.default_rng(seed)
    return [words(rng, _WORDS) for _ in range(_DIFFERENT)]


def words(rng: np.random.Generator, count: int) -> Terms:
    """Words by Zipf's law: the commonest in every other chunk, most in one of a thousand."""
    ranks = np.exp(rng.random(count) * np.log(_VOCABULARY)).astype(np.int64)
    # Scattered, as hashes are.
    ids = np.unique((ranks * 2_654_435_761 & 0xFFFFFFFF).astype(np.uint32))
    return Terms(ids, (1.0 + rng.random(len(ids))).astype(np.float32))


def chunks(count: int, seed: int, base: Path | None = None) -> Chunks:
    """So many chunks.

    Args:
        base: A file of real embeddings (.npy) to make them from, instead of embedding texts.
    """
    rng = np.random.default_rng(seed)
    if base is not None:
        real, about = np.load(base).astype(np.float32), f"{base.name}"
    else:
        real, about = real_vectors(seed)
    real = real[rng.permutation(len(real))]
    return Chunks(like(real[QUESTIONS:], count, rng), real[:QUESTIONS], about, seed)


def real_vectors(seed: int) -> tuple[Matrix, str]:
    """Embeddings of real texts, or a mixture of clusters where no embedder is installed."""
    try:
        from headrace.documents.embed.minilm import MiniLM

        texts = sentences(_TEXTS, seed)
        return MiniLM().embed(texts), f"{len(texts):,} MiniLM embeddings of the standard library"
    except (ImportError, HeadraceError):
        return mixture(_TEXTS, seed), "a mixture of clusters of 30 dimensions (no embedder is installed)"


def mixture(count: int, seed: int) -> Matrix:
    """500 clusters in 30 dimensions, and a little in all of them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((500, 30))[rng.integers(0, 500, count)]
    inside = (centres + 0.6 * rng.standard_normal((count, 30))) @ rng.standard_normal((30, DIMENSION))
    return unit((inside + 0.5 * rng.standard_normal((count, DIMENSION))).astype(np.float32))


def sentences(count: int, seed: int) -> list[str]:
    """Texts of the standard library's source: beginnings of functions and paragraphs of their documentation."""
    texts: set[str] = set()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = path.read_text(errors="replace")
        for part in re.split(r'\n\s*\n|\n(?=\s*def )|"""', source):
            text = " ".join(part.split())[:160]
            if len(text) >= 60:
                texts.add(text)
    every = sorted(texts)
    return [every[n] for n in np.random.default_rng(seed).permutation(len(every))[:count]]


def like(real: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """Vectors that lie among the real ones as these lie among each other."""
    near = np.concatenate(
        [
            np.argsort(-(real[start : start + 1_000] @ real.T), axis=1)[:, 1 : _NEIGHBOURS + 1]
            for start in range(0, len(real), 1_000)
        ]
    )
    made = np.empty((count, real.shape[1]), np.float32)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        first = rng.integers(0, len(real), size)

        def neighbour(first: Any = first, size: int = size) -> Matrix:
            found: Matrix = real[near[first, rng.integers(0, _NEIGHBOURS, size)]]
            return found

        share = rng.uniform(0.4, 1.0, (size, 1)).astype(np.float32)
        moved = rng.uniform(0.2, 0.7, (size, 1)).astype(np.float32)
        between = share * real[first] + (1 - share) * neighbour()
        made[start : start + size] = unit(between + moved * (neighbour() - neighbour()))
    return made


def unit(vectors: Matrix) -> Matrix:
    """Each row at length 1."""
    scaled: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled.astype(np.float32)
