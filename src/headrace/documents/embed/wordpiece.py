"""A model's tokenizer by the `tokenizers` package: from its `tokenizer.json`, with the errors that we promise."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from headrace.documents.embed.base import Offsets
from headrace.errors import InputError

_KEPT = 4_000_000  # characters of words whose tokens are remembered
# Python sees white space in these, BERT sees control characters, which it leaves out.
_NOT_BLANK = re.compile("[\x0b\x0c\x1c-\x1f\x85]")


def tokenizers(described: str, limit: int) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizer that sees the whole of a text, and the one that cuts it off after the model's limit."""
    described = json.dumps(json.loads(described) | {"truncation": None, "padding": None})
    whole, cut = Tokenizer.from_str(described), Tokenizer.from_str(described)
    cut.enable_truncation(limit)
    return whole, cut


def encode(tokenizer: Tokenizer, texts: Sequence[str], special: bool = True) -> list[Encoding]:
    """Tokens of texts, with the special ones that the model needs or without; offsets are not computed.

    Raises:
        InputError: One of them is not Unicode.
    """
    try:
        found: list[Any] = tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)
    except (TypeError, UnicodeEncodeError):
        check_unicode(texts)
        raise
    return found


def token_offsets(tokenizer: Tokenizer, text: str) -> Offsets:
    """Where each token lies, in characters, without the special ones.

    Raises:
        InputError: The text is not Unicode.
    """
    try:
        found = tokenizer.encode(text, add_special_tokens=False).offsets
    except (TypeError, UnicodeEncodeError):
        check_unicode([text])
        raise
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def check_unicode(texts: Sequence[str]) -> None:
    """Refuses what is no text.

    Raises:
        InputError: One of them is not Unicode: a lone surrogate is in it.
    """
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"expected a text in Unicode, found a lone surrogate at character {error.start}; decode it with "
                "errors='replace'"
            ) from None


class WordTokens:
    """The tokens of words, for a tokenizer that never looks across white space, as BERT's.

    A text's words are mostly words seen before, so each is tokenized once; with that a text takes a quarter of the
    time. From any thread.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        self._size = 0  # characters of the words in it

    def of(self, words: Iterable[str]) -> Mapping[str, list[int]]:
        """The tokens of each of the words, and of others.

        Raises:
            InputError: One of them is not Unicode.
        """
        known = self._known
        listed = set(words)
        new = [word for word in listed if word not in known]
        if not new:
            return known
        size = sum(map(len, new))
        if self._size + size > _KEPT:
            # Another thread may still read the old ones: they are replaced, not cleared.
            self._known = known = {}
            self._size = 0
            new = list(listed)
        found = encode(self._tokenizer, new, special=False)
        known.update(zip(new, (encoded.ids for encoded in found), strict=True))
        self._size += size
        return known

    def count(self, text: str) -> int:
        """How many tokens a text has, the special ones left out."""
        if _NOT_BLANK.search(text):
            return len(encode(self._tokenizer, [text], special=False)[0].ids)
        words = text.split()
        known = self.of(words)
        return sum([len(known[word]) for word in words])
