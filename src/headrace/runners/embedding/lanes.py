"""What waits to be embedded, in lanes: the first lane that has something is served.

Not for several threads by itself: the queue holds its lock around every call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from headrace.errors import InputError

Vector = npt.NDArray[np.float32]
Lane = Literal["live", "backfill"]

LANES: tuple[Lane, ...] = ("live", "backfill")
_TEXTS = 512  # at most in a batch, however short


@dataclass(eq=False)
class Call:
    """Who waits for texts.

    Attributes:
        remaining: How many are not there yet.
        results: Those that are, by hash.
        error: Why none will come any more.
    """

    remaining: int
    results: dict[bytes, Vector | InputError] = field(default_factory=dict)
    error: Exception | None = None


@dataclass(eq=False)
class Item:
    """One text that waits, or is being embedded, for one call or several."""

    hash: bytes
    text: str
    tokens: int
    lane: Lane
    calls: list[Call] = field(default_factory=list)
    taken: bool = False


class Lanes:
    """Texts by hash, each once, in the order in which they came to their lane.

    Attributes:
        queued: How many wait.
    """

    def __init__(self) -> None:
        self.queued = 0
        self._lanes: dict[Lane, deque[Item]] = {lane: deque() for lane in LANES}
        self._items: dict[bytes, Item] = {}  # those that wait, and those that are being embedded

    @property
    def running(self) -> int:
        """How many are being embedded."""
        return len(self._items) - self.queued

    def add(self, hash: bytes, text: str, tokens: int, lane: Lane, call: Call) -> None:
        """A call wants a text; if another has asked for it already, they share it."""
        item = self._items.get(hash)
        if item is None:
            item = self._items[hash] = Item(hash, text, tokens, lane)
            self._lanes[lane].append(item)
            self.queued += 1
        elif not item.taken and LANES.index(lane) < LANES.index(item.lane):
            # It is wanted sooner now: it stands in both lanes, and is passed over where it comes up a second time.
            item.lane = lane
            self._lanes[lane].append(item)
        item.calls.append(call)

    def take(self, tokens: int) -> list[Item]:
        """A batch of at most so many tokens, of at least one text; empty if nothing waits."""
        for lane in self._lanes.values():
            if batch := self._from(lane, tokens):
                self.queued -= len(batch)
                return batch
        return []

    def give_back(self, batch: list[Item]) -> None:
        """A batch was not embedded: what is still wanted is the first in its lane."""
        for item in reversed(batch):
            if item.calls:
                item.taken = False
                self.queued += 1
                self._lanes[item.lane].appendleft(item)
            else:
                del self._items[item.hash]

    def finish(self, results: Mapping[bytes, Vector | InputError]) -> None:
        """What was embedded, or cannot be, is there for those who wait."""
        for hash, result in results.items():
            for call in self._items.pop(hash).calls:
                call.results[hash] = result
                call.remaining -= 1

    def leave(self, call: Call, hashes: Iterable[bytes]) -> None:
        """A call waits no longer; what nobody else waits for is not embedded."""
        for hash in hashes:
            item = self._items.get(hash)
            if item is not None and call in item.calls:
                item.calls.remove(call)
                if not item.calls and not item.taken:
                    item.taken = True
                    del self._items[hash]
                    self.queued -= 1

    def drop(self, batch: Iterable[Item]) -> Iterator[Call]:
        """A batch will never be embedded; gives the calls that waited for it."""
        for item in batch:
            yield from self._items.pop(item.hash).calls

    def calls(self) -> Iterator[Call]:
        """Everybody who waits for something."""
        for item in self._items.values():
            yield from item.calls

    @staticmethod
    def _from(lane: deque[Item], most: int) -> list[Item]:
        batch: list[Item] = []
        tokens = 0
        while lane and len(batch) < _TEXTS:
            item = lane[0]
            if not item.taken:
                if batch and tokens + item.tokens > most:
                    break
                item.taken = True
                tokens += item.tokens
                batch.append(item)
            lane.popleft()
        return batch
