"""What a model says over several rounds, as one answer: its tool calls put together, its usage summed.

In a stream a tool call comes in pieces, told apart by their index. What a server says of its usage is its word: it is
taken where it can be true, and what was counted here (four bytes of text a token) stands where it cannot, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from headrace.errors import InputError

MOST_CALLS = 64
_MOST_QUOTED = 200  # characters of wrong arguments that are told
_IN_PIECES = ("arguments", "input")
_MOST_TOKENS = 100_000_000
# A token is at least a part of a character and at most a long word; what lies outside is no count of this text.
_LONGEST_TOKEN = 128
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


class ToolCalls:
    """The tool calls of one round.

    Attributes:
        dropped: Which calls were past the bound.
    """

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}
        self.dropped: set[int] = set()

    def add(self, pieces: Iterable[Mapping[str, Any]]) -> int:
        """Take the pieces of a chunk; returns their bytes."""
        size = 0
        for position, piece in enumerate(pieces):
            index = self._index(position, piece)
            if index not in self._calls and len(self._calls) >= MOST_CALLS:
                self.dropped.add(index)
                continue
            call = self._calls.setdefault(index, {"id": "", "type": "function", "function": {}})
            for name, value in piece.items():
                if isinstance(value, Mapping):
                    known = call[name] = call[name] if isinstance(call.get(name), dict) else {}
                    size += _join(known, value)
                elif name != "index" and value is not None:
                    call[name] = value
        return size

    def _index(self, position: int, piece: Mapping[str, Any]) -> int:
        index, said = piece.get("index"), piece.get("id")
        if isinstance(index, int):
            return index
        # Some servers send no index, and each call in a chunk of its own: then it is the id that tells them apart.
        if not said or position not in self._calls or self._calls[position]["id"] in ("", said):
            return position
        same = (known for known, call in self._calls.items() if call["id"] == said)
        return next(same, max(self._calls) + 1)

    def whole(self) -> list[dict[str, Any]]:
        """The calls, in order, each with an id; a function's with its name and arguments, which are texts."""
        calls = [self._calls[index] for index in sorted(self._calls)]
        for number, call in enumerate(calls):
            call["id"] = str(call.get("id") or f"call_{number}")
            function = call["function"] if isinstance(call.get("function"), dict) else {}
            if not is_function(call):
                call.pop("function", None)
                continue
            arguments = function.get("arguments", "")
            written = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
            call["function"] = function | {"name": str(function.get("name") or ""), "arguments": written}
        return calls


def is_function(call: Mapping[str, Any]) -> bool:
    """Whether a call is one of a function: the app's tools are, and a client may have others."""
    return call.get("type") in ("function", None, "") or "custom" not in call


def arguments_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a function.

    Raises:
        InputError: They are no JSON object; the message is written for the model.
    """
    function = call["function"]
    text = function["arguments"]
    try:
        found = msgspec.json.decode(text) if text.strip() else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        found, why = None, f"text that is not JSON ({error})"
    else:
        why = f"a value that is none: {text[:_MOST_QUOTED]!r}"
    if not isinstance(found, dict):
        raise InputError(
            f"{function['name']}: expected the arguments as a JSON object, found {why}; "
            "the call was not run, and stands above with {} in their place; call it again with all of them"
        )
    return found


def repeated(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call as it may stand in the messages of the next round.

    Servers read its arguments again when they write the prompt, and fail the whole request over what is no JSON.
    """
    try:
        arguments_of(call)
    except InputError:
        text = "{}"
    else:
        text = call["function"]["arguments"].strip() or "{}"
    return {**call, "function": call["function"] | {"arguments": text}}


def _join(known: dict[str, Any], piece: Mapping[str, Any]) -> int:
    """Put a piece of a call's function to what is known of it; returns its bytes."""
    size = 0
    for name, value in piece.items():
        if name in _IN_PIECES and isinstance(value, str):
            before = known.get(name)
            known[name] = (before if isinstance(before, str) else "") + value
            size += len(value)
        elif value is not None:
            known[name] = value
    return size


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
