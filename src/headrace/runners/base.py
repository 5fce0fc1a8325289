"""What a runner is: whatever moves an app's input into its views, seen from the side of those who push and read.

`local` is one process, `bytewax` a cluster, and `replica` no engine at all: it only reads what one elsewhere writes.
Serving knows them by this protocol alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from headrace.features.machine import ViewMachine
from headrace.runners.tally import Histogram
from headrace.schema import Reject
from headrace.stores.dead_letters import DeadLetters
from headrace.stores.online.base import OnlineStore

if TYPE_CHECKING:
    from headrace.app import Stream

# What pushes to the engine are called among the positions of sources.
PUSH = "push"


@dataclass(frozen=True)
class StreamFigures:
    """Counts of rows since the start.

    Attributes:
        late: Rows that came too late for every view, and became dead letters.
        expired: Rows of a source that were past every window when they were read, as history is.
        newest: The newest event time, in microseconds.
        problem: What is in the way of its source, which is tried again.
        lag: Of each partition of the stream's source, the messages that were not read yet, where that is known.
        freshness: Seconds from events' times until reads saw them (a sample of each batch); None on event time.
        batch_rows: Rows of the batches.
    """

    accepted: int = 0
    processed: int = 0
    rejected: int = 0
    late: int = 0
    expired: int = 0
    batches: int = 0
    newest: int | None = None
    problem: str | None = None
    lag: Mapping[str, int] = field(default_factory=dict)
    freshness: Histogram | None = None
    batch_rows: Histogram | None = None


@dataclass(frozen=True)
class ViewFigures:
    """What a view holds: live keys, (key, tile) rows, and bytes of its arrays."""

    keys: int
    tiles: int
    bytes: int

    @classmethod
    def of(cls, machine: ViewMachine) -> ViewFigures:
        """What a machine holds now."""
        tables = machine.tables
        return cls(machine.keys, sum(table.rows for table in tables), sum(table.bytes for table in tables))


@dataclass(frozen=True)
class Figures:
    """A runner's counters at a moment; what a runner does not have stays empty.

    Attributes:
        behind: Seconds that the views are behind the input.
        checkpoint_age: Seconds since the last checkpoint.
    """

    streams: Mapping[str, StreamFigures] = field(default_factory=dict)
    views: Mapping[str, ViewFigures] = field(default_factory=dict)
    behind: float = 0.0
    queue_rows: int = 0
    cycles: int = 0
    checkpoints: int = 0
    checkpoint_rows: int = 0
    checkpoint_age: float | None = None
    dead_letters_lost: int = 0


class Runner(Protocol):
    """Runs an app, or stands for what runs it elsewhere. All but `start` may be called from any thread.

    Attributes:
        store: Where reads go.
        dead_letters: What could not be used.
    """

    @property
    def store(self) -> OnlineStore: ...

    @property
    def dead_letters(self) -> DeadLetters: ...

    def start(self) -> None:
        """Begins to take input."""

    def close(self) -> None:
        """Takes no more input, finishes what was taken and lets go of everything."""

    def alive(self) -> None:
        """Raises ClosedError unless reads and pushes can be answered."""

    def problem(self) -> str | None:
        """Why the app is not ready, or None."""

    def submit(self, stream: Stream, frame: pl.DataFrame) -> dict[str, Any]:
        """Takes valid rows in, durably; returns the positions that see them.

        Raises:
            StorageError: They could not be stored, and are not taken.
            ClosedError: Nothing is taken any more.
        """

    def set_aside(self, stream: Stream, rejects: Sequence[Reject]) -> None:
        """Keeps pushed rows that are invalid as dead letters."""

    def positions(self) -> list[str]:
        """The sources that positions may name."""

    def seen(self) -> tuple[int, Mapping[str, Any]]:
        """A number that grows whenever reads see more, and the positions that they see."""

    def newest(self, stream: str) -> int | None:
        """The newest event time that a stream has seen, in microseconds."""

    def behind(self) -> float:
        """Seconds that the views are behind the input; 0 where there is nothing left to take in."""

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Waits until `done`, asked whenever reads see more; False if it did not hold within `timeout` seconds."""

    def drain(self, timeout: float | None) -> bool:
        """Waits until all input that is there now has been processed."""

    def figures(self) -> Figures:
        """The counters; taking them stops nothing."""
