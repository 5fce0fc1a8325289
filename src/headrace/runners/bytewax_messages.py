"""What travels through the dataflow: arrivals, pieces of batches by shard, and word of what has been written.

    lane ──Arrival──► combine ──Piece by shard──► shards ──► write ──Written──► progress
                         └──────────────Begun──────────────────────────────────────┘

Everything that may cross to another process pickles; frames do as Arrow, and of a batch a process is sent only the
rows of its shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from headrace.features.combine import Combined, Partials
from headrace.features.layout import Array
from headrace.runners.inbox import Work
from headrace.stores.frames import decode_frame, encode_frame


@dataclass(frozen=True)
class Arrival:
    """What a lane brings at once; it stays in its worker.

    Attributes:
        done: What is true once all of it has been written.
        works: In order of arrival.
        now: For each work the time at which each of its rows arrived, by the app's clock.
        only: The views that it is for, where what others have seen is read again; else None.
        first: Then, the arrival number of its first row.
        newest: What the last checkpoint knew of the newest event time of streams, in a lane's first arrival.
        opens: Whether it is the first of all, of which every worker hears.
    """

    done: Done
    works: tuple[Work, ...] = ()
    now: tuple[Array, ...] = ()
    only: frozenset[str] | None = None
    first: int = 0
    newest: Mapping[str, int] = field(default_factory=dict)
    opens: bool = False


@dataclass(frozen=True)
class StreamDone:
    """What a batch was to a stream: rows, those late for every view, the newest event time, and some event times."""

    rows: int
    late: int
    newest: int
    sample: Array


@dataclass(frozen=True)
class Done:
    """Where a lane stands after a batch.

    Attributes:
        number: 0, 1, 2, …: the lane's batches, in order.
        position: Of its source.
        works: How many works of the lane's inbox have been handed on, with this batch.
    """

    lane: str
    number: int
    source: str
    position: Any
    works: int = 0


@dataclass(frozen=True)
class Begun:
    """A batch is on its way, in so many pieces; when all are written, what `dones` say is true."""

    batch: str
    pieces: int
    dones: tuple[Done, ...]
    streams: Mapping[str, StreamDone] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """So many pieces of a batch have been written."""

    batch: str
    pieces: int


@dataclass(frozen=True)
class Opening:
    """Tells a worker that all its saved state is there, and the name of this run, the same for all of them."""

    batch: str
    run: str


class Whole:
    """A batch's share of a view, cut by shard when that is asked for."""

    def __init__(self, combined: Combined) -> None:
        self.combined = combined
        self._cut: list[dict[int, Partials]] | None = None

    def shards(self) -> list[int]:
        """The shards that it has rows of."""
        if not self.combined.tables:
            return []
        return np.unique(np.concatenate([part.shard for part in self.combined.tables])).tolist()  # type: ignore[no-any-return]

    def of(self, shard: int) -> tuple[Partials, ...]:
        """The rows of one shard."""
        if self._cut is None:
            self._cut = [dict(part.cut()) for part in self.combined.tables]
        return tuple(
            cut[shard] if shard in cut else part.of(())
            for cut, part in zip(self._cut, self.combined.tables, strict=True)
        )


class Piece:
    """What a batch adds to one shard of a view.

    Within a process it points to the whole batch, so that a worker that keeps all shards has nothing to put together.

    Attributes:
        batch: Which batch.
        pieces: How many pieces the batch has, of all views.
        first: The arrival number of its first row; None if it goes behind all that came before.
    """

    def __init__(self, batch: str, pieces: int, view: str, shard: int, whole: Whole, first: int | None = None) -> None:
        self.batch = batch
        self.pieces = pieces
        self.view = view
        self.shard = shard
        self.whole = whole
        self.first = first

    def __reduce__(self) -> tuple[Any, ...]:
        tables = [_packed(part) for part in self.whole.of(self.shard)]
        combined = self.whole.combined
        about = (self.batch, self.pieces, self.view, self.shard, self.first)
        return _unpacked, (about, tables, combined.rows, combined.newest)


def _packed(part: Partials) -> tuple[bytes, tuple[bytes, ...]]:
    return bytes(encode_frame(part.grouped)), tuple(bytes(encode_frame(bag)) for bag in part.found)


def _unpacked(
    about: tuple[str, int, str, int, int | None],
    tables: list[tuple[bytes, tuple[bytes, ...]]],
    rows: int,
    newest: int | None,
) -> Piece:
    batch, pieces, view, shard, first = about
    parts = []
    for grouped, found in tables:
        frame = decode_frame(grouped)
        bags: tuple[pl.DataFrame, ...] = tuple(decode_frame(bag) for bag in found)
        parts.append(Partials(frame, bags, np.full(frame.height, shard, np.int16)))
    return Piece(batch, pieces, view, shard, Whole(Combined(tuple(parts), [], rows, newest)), first)
