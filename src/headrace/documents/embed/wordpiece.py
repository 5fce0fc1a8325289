"""A model's tokenizer by the `tokenizers` package: from its `tokenizer.json`, with the errors that we promise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from headrace.documents.embed.base import Offsets
from headrace.errors import InputError


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
