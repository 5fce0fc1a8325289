"""Tokens: the positions after a write, as text that a later read hands back to see that write."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headrace.errors import InputError
from headrace.schema import Reject

_MOST_TEXT = 64 * 1024


@dataclass(frozen=True)
class Token:
    """What a push returns, and what `after=` takes.

    Attributes:
        positions: For each source, where it stands after the write, as plain JSON.
        accepted: How many rows were taken.
        rejected: The rows that were not, with the reason of each; they are dead letters.
    """

    positions: dict[str, Any]
    accepted: int = 0
    rejected: list[Reject] = field(default_factory=list)

    def __str__(self) -> str:
        return token_text(self.positions)

    @classmethod
    def parse(cls, text: Token | str) -> Token:
        """The token that a text stands for.

        Raises:
            InputError: The text is not a token.
        """
        if isinstance(text, Token):
            return text
        try:
            if len(text) > _MOST_TEXT:
                raise ValueError
            padded = text + "=" * (-len(text) % 4)
            positions = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=dict)
        except (ValueError, TypeError, binascii.Error, msgspec.MsgspecError):
            raise InputError(
                f"expected a token as a push returned it, found {str(text)[:60]!r}; hand it back unchanged"
            ) from None
        return cls(positions)


def token_text(positions: dict[str, Any]) -> str:
    """Positions as opaque text that is safe in a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(positions)).rstrip(b"=").decode()
