"""Counting tokens once: an edited document is nearly the one that was counted before.

Counting goes by blocks, and a block's count is remembered by the hash of its text. So cutting a document again after an
edit costs the tokens of the edit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import xxhash

if TYPE_CHECKING:
    from headrace.documents.embed.base import Tokenizer

_Value = TypeVar("_Value")
_MOST_BLOCKS = 65_536
_MOST_TOKENIZERS = 8
# No tokenizer is given more than this at once: some take quadratic time for a long word.
MOST_AT_ONCE = 16_384
# A token of more characters than this is not one that a model has read: a word of a million characters is one unknown
# token to some, and nothing of it would be found.
MOST_CHARACTERS = 16


class Memory(Generic[_Value]):
    """Values by key, for the keys met lately: two generations; the older is forgotten when the younger is full.

    Any thread may use it: a race costs a second computation.
    """

    def __init__(self, most: int = _MOST_BLOCKS) -> None:
        self._most = most
        self._young: dict[int, _Value] = {}
        self._old: dict[int, _Value] = {}

    def get(self, key: int, make: Callable[[], _Value]) -> _Value:
        """The value of that key, made if it is not known."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                found = make()
            if len(self._young) >= self._most:
                self._old, self._young = self._young, {}
            self._young[key] = found
        return found


def key_of(text: str, salt: int = 0) -> int:
    """What a text is remembered by."""
    return xxhash.xxh3_128_intdigest(text.encode("utf-8", "surrogatepass"), salt)


class Counter:
    """How many tokens texts have, for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        # Some can count without saying where each token lies, in a fraction of the time.
        self._quick: Callable[[str], int] | None = getattr(tokenizer, "count", None)
        self._memory: Memory[int] = Memory()
        # What is embedded of a block, its tokens, and a number from 0 to 1 that the two decide.
        self.blocks: Memory[tuple[str, int, float]] = Memory()

    def of(self, text: str) -> int:
        """Tokens of a text, at least one for MOST_CHARACTERS characters; an empty text has none."""
        return self._memory.get(key_of(text), lambda: self._count(text))

    def _count(self, text: str) -> int:
        tokens = 0
        for start in range(0, len(text), MOST_AT_ONCE):
            part = text[start : start + MOST_AT_ONCE]
            tokens += len(self.tokenizer.offsets(part)) if self._quick is None else self._quick(part)
        return max(tokens, -(-len(text) // MOST_CHARACTERS))

    def cuts(self, text: str, room: int) -> list[int]:
        """Where to cut a text without structure, so that each part has at most `room` tokens.

        Returns:
            Offsets in characters, ascending, neither 0 nor the end; at a blank near the limit where there is one.
        """
        found: list[int] = []
        start = 0
        while start < len(text):
            window = text[start : start + min(room * MOST_CHARACTERS, MOST_AT_ONCE)]
            end = start + self._fitting(window, room)
            if end >= len(text):
                break
            blank = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            if blank > start + (end - start) // 2:
                end = blank + 1
            found.append(end)
            start = end
        return found

    def _fitting(self, window: str, room: int) -> int:
        """How many characters of the window have at most `room` tokens; at least one."""
        offsets = self.tokenizer.offsets(window)
        fits = len(window) if len(offsets) <= room else int(offsets[room - 1][1])
        # Tokens of a part can be more than those that it has within the whole, and characters count too.
        while fits > 1 and self.of(window[:fits]) > room:
            fits = fits * 7 // 8
        return max(fits, 1)

    def tail(self, text: str, most: int) -> int:
        """Where the last tokens of a text begin, at most `most` of them, at the start of a word; its end if none is."""
        first = max(0, len(text) - most * MOST_CHARACTERS)
        window = text[first:]
        offsets = self.tokenizer.offsets(window)
        begin = first and len(window)
        if len(offsets) > most:
            begin = int(offsets[len(offsets) - most][0])
        while begin < len(window) and not (begin == 0 or window[begin - 1].isspace()):
            begin += 1
        while begin < len(window) and self.of(window[begin:].strip()) > most:
            blank = window.find(" ", begin + 1)
            begin = len(window) if blank < 0 else blank + 1
        return first + begin


_COUNTERS: dict[int, Counter] = {}


def counter_of(tokenizer: Tokenizer) -> Counter:
    """The counter of a tokenizer; the last few tokenizers' are kept."""
    found = _COUNTERS.get(id(tokenizer))
    if found is None or found.tokenizer is not tokenizer:
        if len(_COUNTERS) >= _MOST_TOKENIZERS:
            _COUNTERS.clear()
        found = _COUNTERS[id(tokenizer)] = Counter(tokenizer)
    return found
