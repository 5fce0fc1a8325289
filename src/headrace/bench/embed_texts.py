"""The texts of `headrace bench embed`: prose of so many tokens, cut from the language reference that Python has."""

from __future__ import annotations

import pydoc_data.topics

import numpy as np

from headrace.documents.embed.base import Tokenizer


def texts(tokenizer: Tokenizer, tokens: int, count: int, seed: int) -> list[str]:
    """`count` different texts of `tokens` tokens each, special ones not counted."""
    words = " ".join(str(text) for text in pydoc_data.topics.topics.values()).split()
    random = np.random.default_rng(seed)
    found: list[str] = []
    while len(found) < count:
        begin = int(random.integers(0, len(words) - 2 * tokens))
        text = " ".join(words[begin : begin + 2 * tokens])
        offsets = tokenizer.offsets(text)
        if len(offsets) > tokens:
            found.append(text[: offsets[tokens - 1, 1]])
    return found
