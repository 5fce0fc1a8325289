"""What a source of a table is: a snapshot of its rows, then every change, from any position that it has given out.

The theory is that of `sources.base`: positions are plain JSON, and reading from one gives what came after it. A
table's rows are absolute, so changes may be told again; none may be left out. Where a source cannot tell what was
deleted while nobody read (a directory, a slot that was dropped), it begins a snapshot: every row there is, told in
batches with `snapshot=True`; the batch that is `complete` ends it, and rows of this source that it did not tell are
gone.

`stored` closes the circle: the table calls it when a batch is durable, and only then may a source let go of it
(acknowledge a message, move a slot on).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from headrace.cdc import Change
from headrace.sources.base import Letter

if TYPE_CHECKING:
    from headrace.document import TableSchema


@dataclass(frozen=True)
class Changes:
    """A batch of changes, and where the source stands after them. A source's transaction is never cut in two.

    Attributes:
        changes: In the order of the source.
        position: Plain JSON; reading from it gives what comes after this batch.
        snapshot: These rows are part of a snapshot.
        complete: The snapshot is whole with this batch; what it did not tell is gone.
        begins: This batch is the first of a new snapshot.
        letters: Inputs that could not be read as changes.
        receipt: Of the source alone: handed back by `stored`.
        created: When the newest change was made, by the source's clock, in microseconds since the Unix epoch.
    """

    changes: Sequence[Change]
    position: Any
    snapshot: bool = False
    complete: bool = False
    begins: bool = False
    letters: Sequence[Letter] = ()
    receipt: Any = field(default=None, compare=False)
    created: int | None = None


class TableReader(Protocol):
    """One reading of a table's source. One thread reads; any thread may close."""

    def read(self, timeout: float) -> Changes | None:
        """The next batch, or None if there was nothing new within `timeout` seconds.

        Bounded: at most about 1,000 changes or 16 MiB a batch, unless one transaction is larger.

        Raises:
            EndOfSource: All has been read and no more can come.
            ClosedError: The reader is closed, or was closed while this call waited.
            StorageError: The source is out of reach; a later call tries again (and connects again).
        """
        ...

    def stored(self, changes: Changes) -> None:
        """The batch is durable, and so is all before it; called by the thread that reads."""
        ...

    def lag(self) -> Mapping[str, int]:
        """How far behind the source's end, as last heard, by a name with its unit ("bytes", "messages"). No I/O."""
        ...

    def at_end(self) -> bool:
        """Whether all that the source holds now has been read; asked after `read` returned None."""
        ...

    def close(self) -> None:
        """Let go of what is held, and end a `read` that is waiting at once. More than once is harmless."""
        ...


@runtime_checkable
class TableSource(Protocol):
    """Where a table's rows come from: a description that holds nothing open until it is read."""

    @property
    def name(self) -> str:
        """What logs, metrics, positions and dead letters call it; it holds no secrets."""
        ...

    def open(self, position: Any | None, schema: TableSchema) -> TableReader:
        """Begin after a position that an earlier reader gave out; None is the beginning: a snapshot.

        Raises:
            ConfigError: What it points to is not there, or the position is not one of this source's.
            StorageError: The source is out of reach.
        """
        ...
