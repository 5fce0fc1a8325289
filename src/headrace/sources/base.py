"""What a source is: something that can be read again from any position it has given out.

The theory is that of a replayable log. A source cuts its input into chunks that end between rows and says,
with each, the position after it. A position is plain JSON that means the same to every later reader of the
source, so a checkpoint that holds a position and the state made from all chunks up to it can be gone back to
at any time: reading from there gives the rows that were not in the state, each once. A source never decodes:
it moves bytes.

`headrace.testing.sources.SourceContract` holds this as tests; a new source subclasses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    from headrace.schema import Decoded, Schema


@dataclass(frozen=True)
class Trace:
    """Where one input came from, and all of it.

    Attributes:
        origin: What finds it again: "payments[3]@1042" is a topic, a partition and an offset. Dead letters are told
            apart by it, so an input that is read again is not set aside twice.
        raw: The original bytes; empty where they are no longer held.
        key: The key that the input came under.
        headers: Names and values that came beside it.
    """

    origin: str
    raw: bytes = b""
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True)
class Letter:
    """An input that could not be used, and why."""

    reason: str
    trace: Trace


@dataclass(frozen=True)
class Skipped:
    """Input that was passed over because it cannot be handled as rows; it belongs to the dead letters.

    Attributes:
        reason: Why, with the limit that it passed.
        raw: Its first bytes (the whole would not fit in memory).
        path: The file it is in.
        start: Where in the file it begins, in bytes.
        end: Where in the file it ends, in bytes.
    """

    reason: str
    raw: bytes
    path: str
    start: int
    end: int


@dataclass(frozen=True)
class Chunk:
    """A run of whole rows, and where the source stands after them.

    Attributes:
        data: The bytes of whole rows, which decode on their own; empty if `frame` or `messages` hold the rows, or
            if all that was found is in `skipped`.
        format: How the bytes are to be decoded: "ndjson", "json", "csv", "parquet".
        position: Plain JSON; reading from it gives what comes after this chunk. Not to be changed in place.
        frame: The rows, where the source has them parsed already (in the order of the input).
        skipped: What was passed over before or among these rows.
        origin: What a person would look for: the path of the file, the topic and partition.
        messages: The rows as one message each, where the source has them so.
        trace: Where the n'th message came from; asked only about those that cannot be used.
        partitions: Which partition each message came from, shape (messages,): order means something within one.
        created: When the newest message was written, by the source's clock, in microseconds since the Unix epoch.
    """

    data: bytes
    format: str
    position: Any
    frame: pl.DataFrame | None = None
    skipped: tuple[Skipped, ...] = ()
    origin: str = ""
    messages: Sequence[bytes] | None = None
    trace: Callable[[int], Trace] | None = None
    partitions: npt.NDArray[np.int32] | None = None
    created: int | None = None


class EndOfSource(Exception):  # noqa: N818 - not an error: it is to a source what StopIteration is to an iterator
    """There is nothing more to read and there never will be."""


@runtime_checkable
class Reader(Protocol):
    """One reading of a source, from one position on. One thread reads; any thread may close."""

    def read(self, timeout: float) -> Chunk | None:
        """The next chunk, or None if there was nothing new within `timeout` seconds.

        Raises:
            EndOfSource: All has been read and no more can come; also on every later call.
            ClosedError: The reader is closed, or was closed while this call waited.
            StorageError: The input cannot be read. The reader is unchanged: a later call tries again.
        """
        ...

    def close(self) -> None:
        """Let go of what is held, and end a `read` that is waiting at once. More than once is harmless."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where input comes from: a description that holds nothing open until it is read."""

    @property
    def name(self) -> str:
        """What logs, metrics and dead letters call it."""
        ...

    def open(self, position: Any | None) -> Reader:
        """Begin reading after a position that an earlier reader gave out; None is the beginning.

        Raises:
            ConfigError: What it points to is not there, or the position is not one of this source's.
        """
        ...


@runtime_checkable
class Decoding(Protocol):
    """A source that knows how its chunks are decoded, as one whose schemas are in a registry."""

    def decoder(self, schema: Schema) -> Callable[[Chunk], Decoded]:
        """What decodes the chunks of one reading; it may hold what it has learnt.

        It raises StorageError if something that it needs is out of reach: the chunk is decoded again later.
        """
        ...


@runtime_checkable
class Tracked(Protocol):
    """A reader that knows how far it is from the end."""

    def lag(self) -> Mapping[str, int]:
        """How many messages each partition has that were not read, as last heard. No I/O; from any thread."""
        ...

    def at_end(self) -> bool:
        """Asks whether all that the source holds now has been read."""
        ...


class Writer(Protocol):
    """Writes rows to where a source reads them."""

    def write(self, frame: pl.DataFrame, key: str | None = None) -> Any:
        """Writes rows, durably when it returns: the source's position after them.

        Args:
            frame: The stream's columns.
            key: The column whose value says which partition a row goes to.

        Raises:
            StorageError: Not all were written; some may have been.
        """
        ...

    def set_aside(self, letters: Sequence[Letter]) -> None:
        """Writes dead letters to where the source's URL names, if it names a place for them."""
        ...

    def close(self) -> None:
        """Lets go of what it holds, once all is written."""
        ...


class Sink(Protocol):
    """Where rows under keys are written, the newest one of a key being all that counts."""

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        ...

    def put(self, items: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Writes keys and their values, durably when it returns; no value takes the key back.

        Raises:
            StorageError: Not all were written; some may have been.
        """
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...


@runtime_checkable
class Writable(Protocol):
    """A source that can be written to as well."""

    def writer(self, schema: Schema) -> Writer:
        """Connects; nothing is written yet."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A source in partitions that can be read independently of each other.

    Its positions are mappings from a partition's number, as text, to where that stands.
    """

    def lanes(self, count: int) -> Sequence[Source]:
        """Parts of the source, under its name: the i'th has each partition p with p % count == i, new ones too."""
        ...
