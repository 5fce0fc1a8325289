"""The last commits of an engine, so that a read can be true to a moment that is a little past.

It is kept while somebody may need it: while a collection has not yet followed a write to its table, features may be
asked for as they were before that write. When nothing is on its way, nothing is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from headrace.features.versions import Undo
from headrace.runners.base import PUSH
from headrace.runners.order import WriteOrder

if TYPE_CHECKING:
    from headrace.runners.engine import Engine

# Undo records past this many bytes go, the oldest first.
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: the positions before it and after it, and what undoes it, by view."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    undos: Mapping[str, Undo]
    bytes: int


@dataclass(frozen=True, slots=True)
class Version:
    """A version that can be read: the positions that it has seen, and how many of the newest commits to undo."""

    seen: Mapping[str, Any]
    back: int

    @property
    def pushed(self) -> int:
        """The last push that it has seen."""
        return int(self.seen.get(PUSH, 0))


@runtime_checkable
class Historic(Protocol):
    """A runner with its engine in this process, whose features can be read as they were."""

    @property
    def engine(self) -> Engine: ...

    def follow_order(self, order: WriteOrder) -> None:
        """From now on pushes are noted in an order of all writes; to be called before the start."""

    def keep_history(self) -> None:
        """From now on features can be read as they were at the oldest cut that the write order still needs."""


class History:
    """The last commits, oldest first. It is changed, and read, under the engine's lock.

    Args:
        order: Says how far back somebody may want to read.
        most_bytes: How much is kept at most.
    """

    def __init__(self, order: WriteOrder, most_bytes: int = MOST_BYTES) -> None:
        self.order = order
        self.most_bytes = most_bytes
        self.bytes = 0
        self._commits: deque[Commit] = deque()

    def __len__(self) -> int:
        return len(self._commits)

    def add(self, before: Mapping[str, Any], after: Mapping[str, Any], undos: Mapping[str, Undo]) -> None:
        """Keeps a commit that is just becoming visible."""
        size = sum(undo.bytes for undo in undos.values())
        self._commits.append(Commit(before, after, undos, size))
        self.bytes += size
        while self.bytes > self.most_bytes:
            self._drop()

    def trim(self, floor: int | None) -> None:
        """Drops what nobody needs: commits up to the version that is read at the oldest cut."""
        while self._commits and (floor is None or self._commits[0].after.get(PUSH, 0) <= floor):
            self._drop()

    def _drop(self) -> None:
        self.bytes -= self._commits.popleft().bytes

    def versions(self, seen: Mapping[str, Any]) -> Iterator[Version]:
        """The versions that can be read, the newest (which has seen `seen`) first."""
        yield Version(seen, 0)
        for back, commit in enumerate(reversed(self._commits), 1):
            yield Version(commit.before, back)

    def pushes(self) -> list[int]:
        """The pushes behind which the versions are, but for the newest, in their order."""
        return [int(commit.before.get(PUSH, 0)) for commit in self._commits]

    def undos(self, view: str, back: int) -> list[Undo]:
        """What undoes the last `back` commits of a view, the newest first."""
        found: list[Undo] = []
        commits: Callable[[], Iterator[Commit]] = self._commits.__reversed__
        for _, commit in zip(range(back), commits(), strict=False):
            undo = commit.undos.get(view)
            if undo is not None:
                found.append(undo)
        return found
