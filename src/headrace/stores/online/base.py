"""What an online store is: where committed changes become readable.

The runner computes a batch's changes for every view and hands them over together; `write` returns when reads see all of
them. A read merges a trailing window from the store's tiles at its own `now`, so nothing in a store has to expire for
an answer to be right. The store does not know how views compute: a machine brings that along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from headrace.changes import Rows


@dataclass(frozen=True)
class Progress:
    """How far the engine has come, as readers are told.

    Attributes:
        seen: Positions, by source.
        newest: The newest event time of each stream, microseconds; None before its first event.
        at: When this was written, by the wall clock, in microseconds.
        behind: Seconds that the engine is behind its input; 0 when it has nothing left to read.
    """

    seen: dict[str, Any] = field(default_factory=dict)
    newest: dict[str, int | None] = field(default_factory=dict)
    at: int = 0
    behind: float = 0.0


class Keeper(Protocol):
    """What a store needs of the machine that keeps a view."""

    def read(self, key: Any, now: int | None) -> Any:
        """One key's values at `now`; None is the newest event time."""

    def gather(self, keys: Sequence[Any], now: int | None) -> Any:
        """Copies what `finish` needs; cheap, to be done under a lock."""

    def finish(self, gathered: Any) -> list[Any]:
        """The values of the keys gathered."""

    def all_rows(self) -> Iterator[Rows]:
        """Every live row, a bounded number at a time."""


class Codec(Protocol):
    """How a store outside the process reads a view's rows: what it keeps are bytes that only the view understands.

    The engine hands one in for each view when it makes the store, and so does a process that only reads.
    """

    @property
    def stream(self) -> str:
        """The view's stream."""

    @property
    def fingerprint(self) -> str:
        """Text that differs where a row written by one declaration cannot be read by another."""

    @property
    def horizon(self) -> int | None:
        """Microseconds after which a row that is not written again can go; None if it is needed for ever."""

    def read(self, rows: Sequence[bytes], now: int | None) -> Any:
        """One key's values at `now`, from its rows in any order; None is before the stream's first event.

        Raises:
            StorageError: The bytes are not rows of the view.
        """

    def read_many(self, keys: Sequence[Sequence[bytes]], now: int | None) -> list[Any]:
        """The values of several keys at `now`, from the rows of each."""


class OnlineStore(Protocol):
    """Where reads find a view's tiles. Writes come from one thread, reads from any.

    Attributes:
        remote: Whether it is outside this process, so that `write` needs the changed rows.
    """

    remote: bool

    def bind(self, keepers: Mapping[str, Keeper], lineage: Mapping[str, str]) -> None:
        """The machines whose changes will be written, by view, and of which line of descent the state of each is.

        State that begins anew is of another line than what a store may still hold of the view.
        """

    def write(
        self,
        commits: Sequence[Callable[[], object]],
        rows: Callable[[], Iterable[Rows]],
        progress: Progress,
    ) -> None:
        """Makes changes visible.

        Args:
            commits: What changes the machines. A store in this process makes them visible all at once.
            rows: Called after the commits: what they changed, for a store that is elsewhere.
            progress: What is then true.
        """

    def read(self, view: str, key: Any, now: int | None) -> Any:
        """One key's values at `now` in microseconds; None is the newest event time the view's stream has seen.

        Raises:
            StorageError: The store is out of reach.
        """

    def read_many(self, view: str, keys: Sequence[Any], now: int | None) -> list[Any]:
        """The values of several keys at one moment, in their order."""

    def close(self) -> None:
        """Lets go of whatever it holds."""


@runtime_checkable
class RemoteStore(OnlineStore, Protocol):
    """A store that other processes can read too."""

    def beat(self, progress: Progress) -> bool:
        """Says that the engine lives, and how far it has come, when there is nothing to write; whether it is stored."""

    def progress(self, timeout: float | None = None) -> Progress:
        """How far the engine has come; with a timeout, waits so long for the next word of it.

        Raises:
            StorageError: The store is out of reach, or no engine has written to it.
        """

    def give_up(self) -> None:
        """Ends a write that waits for the server, as the engine is closing; the next start writes everything again."""

    def problem(self) -> str | None:
        """Why the store cannot be written or read now, or None."""
