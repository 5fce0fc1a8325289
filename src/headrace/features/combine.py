"""A batch's share of a view, computed before it is routed: partials by key and tile, cut by virtual shard.

What a machine does with a batch has two halves. The first groups events into partials, one for each key and tile; it
is nearly all of the work and needs no state, so it can be done where the events are read. The second merges partials
into tables, where the key's state is. Between machines only partials travel (a combiner, as in Dean and Ghemawat,
"MapReduce", OSDI 2004): of a skewed stream far fewer rows than events, and no key is too hot for one worker.

A virtual shard is a hash of the key modulo a fixed number. It says whose state a row belongs to, wherever that is
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from headrace.features.layout import NEVER, TILE, Array, Blocks, TableLayout
from headrace.features.machine import Batch, Prepared, Refused, Snapshot, ViewMachine
from headrace.features.partials import collected
from headrace.features.view import View
from headrace.hashing import hash64


@dataclass(frozen=True)
class Partials:
    """What a batch adds to one table of a view.

    Attributes:
        grouped: The key columns, the tile and the partials; every key and tile once. Arrival numbers count from 0.
        found: For each bag, a frame (pair, value, count) with `pair` a row of `grouped`.
        shard: Shape (rows,): the virtual shard of each row's key.
    """

    grouped: pl.DataFrame
    found: tuple[pl.DataFrame, ...]
    shard: Array

    def cut(self) -> Iterator[tuple[int, Partials]]:
        """The rows of each shard that has any."""
        order = np.argsort(self.shard, kind="stable")
        shards, starts = np.unique(self.shard[order], return_index=True)
        ends = np.append(starts, len(order))[1:]
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        grouped = self.grouped[order]
        moved = [bag.with_columns(pair=pl.Series(place[bag["pair"].to_numpy()])).sort("pair") for bag in self.found]
        edges = [np.searchsorted(bag["pair"].to_numpy(), np.append(starts, len(order))) for bag in moved]
        for number, (shard, start, end) in enumerate(zip(shards.tolist(), starts.tolist(), ends.tolist(), strict=True)):
            bags = tuple(
                bag[int(edge[number]) : int(edge[number + 1])].with_columns(pl.col("pair") - start)
                for bag, edge in zip(moved, edges, strict=True)
            )
            yield shard, Partials(grouped[start:end], bags, np.full(end - start, shard, self.shard.dtype))

    def of(self, shards: Sequence[int]) -> Partials:
        """The rows of some shards."""
        chosen = np.isin(self.shard, np.array(shards, self.shard.dtype))
        if chosen.all():
            return self
        place = np.cumsum(chosen) - 1
        bags = []
        for bag in self.found:
            pair = bag["pair"].to_numpy()
            kept = chosen[pair]
            bags.append(bag.filter(pl.Series(kept)).with_columns(pair=pl.Series(place[pair[kept]])))
        return Partials(self.grouped.filter(pl.Series(chosen)), tuple(bags), self.shard[chosen])

    @staticmethod
    def joined(parts: Sequence[Partials]) -> Partials:
        """Parts with different keys as one."""
        if len(parts) == 1:
            return parts[0]
        heights = [part.grouped.height for part in parts]
        starts = np.cumsum(heights) - heights
        bags = tuple(
            pl.concat(
                [part.found[n].with_columns(pl.col("pair") + int(s)) for part, s in zip(parts, starts, strict=True)]
            )
            for n in range(len(parts[0].found))
        )
        grouped = pl.concat([part.grouped for part in parts])
        return Partials(grouped, bags, np.concatenate([part.shard for part in parts]))


@dataclass(frozen=True)
class Combined:
    """What a batch adds to a view.

    Attributes:
        tables: In the view's order; empty if no row can be used.
        refused: The rows that the view cannot use.
        rows: How many arrival numbers the batch takes.
        newest: The newest event time in it, also of rows that were refused.
    """

    tables: tuple[Partials, ...]
    refused: list[Refused]
    rows: int
    newest: int | None


class Combiner(ViewMachine):
    """Computes what batches add to a view; keeps nothing of them.

    Args:
        view: The view.
        shards: How many virtual shards there are.
    """

    def __init__(self, view: View, shards: int) -> None:
        super().__init__(view)
        self._shards = shards

    def combine(self, batch: Batch) -> Combined:
        """The partials of a batch whose arrival numbers begin at 0."""
        prepared = Prepared()
        tables = tuple(
            Partials(grouped, tuple(found), virtual_shards(grouped.select(self.view.keys), self._shards))
            for grouped, found in self._partials(batch, prepared)
        )
        return Combined(tables, prepared.refused, batch.frame.height, prepared.newest)


class ShardedMachine(ViewMachine):
    """A view's machine that takes partials in, and knows the shard of every key.

    Args:
        view: The view.
        shards: How many virtual shards there are.
        snapshot: Any shards' rows together.
        newest: The newest event time that the view's stream has seen.
    """

    def __init__(self, view: View, shards: int, snapshot: Snapshot | None = None, newest: int | None = None) -> None:
        super().__init__(view, snapshot, newest)
        self._shards = shards
        self._shard_of = np.zeros(64, np.int16)
        if self.index.size:
            slots = np.arange(self.index.size)
            self._place(slots, virtual_shards(pl.DataFrame(self.index.columns_of(slots, view.schema)), shards))

    def merge(self, tables: Sequence[Partials], first: int, newest: int | None) -> Prepared:
        """What partials change; nothing is visible before `commit`.

        Args:
            tables: As in `Combined`: none, or one of each table.
            first: The arrival number of the first row of their batch.
            newest: The newest event time of the batch.
        """
        prepared = Prepared(newest=newest)
        for table, part in zip(self.tables, tables, strict=bool(tables)):
            slot = self.index.assign(part.grouped)
            self._place(slot, part.shard)
            blocks = collected(table.layout, part.grouped)
            _number(table.layout, blocks, first)
            change = table.prepare(self.index.size, slot, part.grouped[TILE].to_numpy(), blocks, list(part.found))
            prepared.changes.append((table, change))
        prepared.size = self.index.size
        return prepared

    def _place(self, slot: Array, shard: Array) -> None:
        if self.index.size > len(self._shard_of):
            room = max(self.index.size, len(self._shard_of) * 3 // 2)
            self._shard_of = np.concatenate([self._shard_of, np.zeros(room - len(self._shard_of), np.int16)])
        self._shard_of[slot] = shard

    def shares(self) -> Callable[[int], Mapping[str, pl.DataFrame]]:
        """A snapshot cut by shard: a function from a shard to its rows by part."""
        sorted_parts: dict[str, tuple[pl.DataFrame, Array]] = {}
        whole = self.snapshot()
        for table in self.tables:
            seg = table.segments
            run = np.flatnonzero(seg.length)
            shard = self._shard_of[np.repeat(run, seg.length[run])]
            order = np.argsort(shard, kind="stable")
            edges = np.searchsorted(shard[order], np.arange(self._shards + 1))
            part = self.view.part(table.layout)
            sorted_parts[part] = (whole[part][order], edges)

        def share(shard: int) -> Mapping[str, pl.DataFrame]:
            return {
                part: frame[int(edges[shard]) : int(edges[shard + 1])] for part, (frame, edges) in sorted_parts.items()
            }

        return share


def virtual_shards(keys: pl.DataFrame, count: int) -> Array:
    """The virtual shard of each row of key columns, shape (rows,), int16: the same on every machine and for ever."""
    hashed = np.zeros(keys.height, np.uint64)
    with np.errstate(over="ignore"):
        for column in keys.get_columns():
            # Of several columns each is weighed by its place, so that (a, b) and (b, a) differ.
            hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + hash64(column)
    # The high half: the low bits of a product are the weakest.
    placed: Array = ((hashed >> np.uint64(32)) % np.uint64(count)).astype(np.int16)
    return placed


def _number(layout: TableLayout, blocks: Blocks, first: int) -> None:
    """Moves arrival numbers that count from 0 to those that count from `first`."""
    for number, slots in enumerate(layout.slots):
        tie = blocks[f"s{number}.tie"]
        # The earliest events are stored negated, so that one merge serves both.
        blocks[f"s{number}.tie"] = np.where(tie == NEVER, NEVER, tie - first if slots.earliest else tie + first)
