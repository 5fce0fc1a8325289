"""What a model says over several rounds, as one answer: its tool calls put together, its usage summed.

In a stream a tool call comes in pieces, told apart by their index. What a server says of its usage is its word: it is
taken where it can be true, and what was counted here (four bytes of text a token) stands where it cannot, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MOST_CALLS = 64
_MOST_TOKENS = 100_000_000
# A token is at least a part of a character and at most a long word; what lies outside is no count of this text.
_LONGEST_TOKEN = 128
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


class ToolCalls:
    """The tool calls of one round.

    Attributes:
        dropped: How many pieces were past the bound.
    """

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}
        self.dropped = 0

    def add(self, pieces: Iterable[Mapping[str, Any]]) -> int:
        """Take the pieces of a chunk; returns their bytes."""
        size = 0
        for position, piece in enumerate(pieces):
            index = piece.get("index")
            index = index if isinstance(index, int) else position
            if index not in self._calls and len(self._calls) >= MOST_CALLS:
                self.dropped += 1
                continue
            call = self._calls.setdefault(index, {"id": "", "type": "function", "function": {}})
            function = call["function"]
            for name, value in piece.items():
                if name not in ("index", "function") and value is not None:
                    call[name] = value
            for name, value in (piece.get("function") or {}).items():
                if name == "arguments" and isinstance(value, str):
                    function[name] = function.get(name, "") + value
                    size += len(value)
                elif value is not None:
                    function[name] = value
        return size

    def whole(self) -> list[dict[str, Any]]:
        """The calls, in order, each with an id."""
        calls = [self._calls[index] for index in sorted(self._calls)]
        for number, call in enumerate(calls):
            call["id"] = str(call.get("id") or f"call_{number}")
            call["function"].setdefault("name", "")
            call["function"].setdefault("arguments", "")
        return calls


class Usage:
    """The usage of all rounds.

    Attributes:
        written: Tokens that the model wrote, as counted here.
        doubted: Whether a server said what cannot be.
    """

    def __init__(self) -> None:
        self._sums = dict.fromkeys(_COUNTS, 0)
        self._last: dict[str, Any] = {}
        self.written = 0
        self.doubted = False

    def add(self, said: Any, asked_bytes: int, written_bytes: int) -> None:
        """A round: what the server said, and the bytes that went in and came out."""
        own = {"prompt_tokens": -(-asked_bytes // 4), "completion_tokens": -(-written_bytes // 4)}
        self.written += own["completion_tokens"]
        found = said if isinstance(said, Mapping) else {}
        least = {"prompt_tokens": 1, "completion_tokens": written_bytes // _LONGEST_TOKEN}
        for name, counted in own.items():
            value = found.get(name)
            true = isinstance(value, int) and not isinstance(value, bool) and least[name] <= value <= _MOST_TOKENS
            if found and not true:
                self.doubted = True
            self._sums[name] += value if true and isinstance(value, int) else counted
        self._sums["total_tokens"] = self._sums["prompt_tokens"] + self._sums["completion_tokens"]
        self._last = dict(found)

    def total(self) -> dict[str, Any]:
        """All rounds together; what else the last one's server told is kept."""
        return self._last | self._sums
