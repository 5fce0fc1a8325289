"""What an online store is: where committed changes become readable, all at once.

The runner computes a batch's changes for every view and hands them over together; `write` returns when reads see all of
them. A read merges a trailing window from the store's tiles at its own `now`, so nothing in a store has to expire for
an answer to be right. The store does not know how views compute: a machine brings that along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol


class Keeper(Protocol):
    """What a store needs of the machine that keeps a view."""

    def read(self, key: Any, now: int | None) -> Any:
        """One key's values at `now`; None is the newest event time."""

    def gather(self, keys: Sequence[Any], now: int | None) -> Any:
        """Copies what `finish` needs; cheap, to be done under a lock."""

    def finish(self, gathered: Any) -> list[Any]:
        """The values of the keys gathered."""


class OnlineStore(Protocol):
    """Where reads find a view's tiles. Writes come from one thread, reads from any."""

    def bind(self, keepers: Mapping[str, Keeper]) -> None:
        """The machines whose changes will be written, by view."""

    def write(self, commits: Sequence[Callable[[], object]]) -> None:
        """Makes changes visible, all at once: a reader sees none of them or all."""

    def read(self, view: str, key: Any, now: int | None) -> Any:
        """One key's values at `now` in microseconds; None is the newest event time the view's stream has seen."""

    def read_many(self, view: str, keys: Sequence[Any], now: int | None) -> list[Any]:
        """The values of several keys at one moment, in their order."""

    def close(self) -> None:
        """Lets go of whatever it holds."""
