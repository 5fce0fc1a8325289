"""The columnar table of tiles: for every key one run of rows, sorted by tile, in arrays shared by all keys.

    slot    off len cap              row   tile   isum  fsum …
     0  ──►  4   2   4               4     12:00   …           ◄─ slot 0, its oldest tile
     1  ──►  0   3   4               5     12:01   …           ◄─ its newest
                                     6     (room)
                                     7     (room)

A trailing window is then a suffix of a run, and merging it a reduction over neighbouring memory. A run that has no
room left, or gets a tile between two others, is written anew at the arrays' end; when they are full, all that lives is
copied to new ones, so that the cost a row is constant in the long run.

A batch is applied in two steps. `prepare` computes everything, and writes only where no reader looks; `commit` makes
it visible with a few assignments. Whoever lets readers in between commits only shows them whole batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from headrace.features import bags, slots
from headrace.features.bags import Arena, Pool, ragged
from headrace.features.layout import Array, Blocks, TableLayout, merge_reduced

# Room for so many keys, rows and bag entries in a new table.
ROOM = 64
_NO_TILE = np.iinfo(np.int64).min


@dataclass
class Segments:
    """The arrays of a table. Rows from `tail` on are free; `owner` is the slot of a row."""

    off: Array
    length: Array
    cap: Array
    tile: Array
    owner: Array
    dirty: Array
    blocks: Blocks
    arenas: list[Arena]
    tail: int = 0

    def grow(self, size: int) -> None:
        """Room for `size` slots. New arrays are filled before they take the old ones' place."""
        if size > len(self.off):
            more = max(size, len(self.off) * 3 // 2)
            for name in ("off", "length", "cap"):
                held = getattr(self, name)
                setattr(self, name, np.concatenate([held, np.zeros(more - len(held), np.int64)]))


@dataclass
class Change:
    """The rows that a batch changes, with their new absolute values; visible once committed."""

    segments: Segments
    slots: Array  # whose runs were moved or grew …
    off: Array
    length: Array
    cap: Array
    rows: Array  # which rows change …
    blocks: Blocks


class TileTable:
    """Rows of (slot, tile) → merged partials."""

    def __init__(self, layout: TableLayout) -> None:
        self.layout = layout
        self.segments = self._make(ROOM, ROOM, [ROOM] * len(layout.bags))

    def _make(self, size: int, capacity: int, arenas: list[int]) -> Segments:
        return Segments(
            np.zeros(size, np.int64),
            np.zeros(size, np.int64),
            np.zeros(size, np.int64),
            np.zeros(capacity, np.int64),
            np.zeros(capacity, np.int32),
            np.zeros(capacity, bool),
            self.layout.empty(capacity),
            [Arena.make(bag, room, Pool()) for bag, room in zip(self.layout.bags, arenas, strict=True)],
        )

    @property
    def rows(self) -> int:
        """Live (key, tile) rows."""
        return int(self.segments.length.sum())

    @property
    def bytes(self) -> int:
        """Memory of the arrays, free room included; objects (text) that they point to are not counted."""
        seg = self.segments
        arrays = [seg.off, seg.length, seg.cap, seg.tile, seg.owner, seg.dirty, *seg.blocks.values()]
        arrays += [part for arena in seg.arenas for part in (arena.values, arena.counts)]
        return sum(array.nbytes for array in arrays)

    # -- a batch --------------------------------------------------------------------------------------------------

    def prepare(self, size: int, slot: Array, tile: Array, partials: Blocks, found: list[pl.DataFrame]) -> Change:
        """What merging partials into the table will change.

        Args:
            size: How many slots there are.
            slot, tile: Shape (n,), distinct pairs.
            partials: Blocks of n rows; those of bags are filled in from `found`.
            found: For each bag, a frame (pair, value, count) with `pair` an index into the n rows.
        """
        seg = self.segments
        seg.grow(size)
        row = _find(seg, slot, tile)
        missing = np.flatnonzero(row < 0)
        more = _most_room(seg, slot[missing])
        if seg.tail + more > len(seg.tile) or self._bags_full(seg, row, found):
            seg = self._rebuild(more, [frame.height for frame in found], row)
            row = _find(seg, slot, tile)
        hit = np.flatnonzero(row >= 0)
        merged = self._merge(seg, row, hit, partials)
        for number, frame in enumerate(found):
            merged[f"b{number}"] = self._merge_bag(seg, number, row, hit, frame)
        change = Change(seg, *_no_runs(), row, merged)
        if len(missing):
            self._make_room(change, slot, tile, missing)
        return change

    def _merge(self, seg: Segments, row: Array, hit: Array, partials: Blocks) -> Blocks:
        """The new values of all pairs: merged where there is a row already, as they are where there is none."""
        merged = dict(partials)
        if len(hit) == 0:
            return merged
        every = len(hit) == len(row)
        old = {name: block[row[hit]] for name, block in seg.blocks.items()}
        new = partials if every else {name: block[hit] for name, block in partials.items()}
        both = merge_reduced(self.layout, old, new)
        for number, group in enumerate(self.layout.slots):
            both |= slots.merge(number, group, old, new)
        for name, values in both.items():
            if every:
                merged[name] = values
            else:
                merged[name] = partials[name].copy()
                merged[name][hit] = values
        return merged

    def _merge_bag(self, seg: Segments, number: int, row: Array, hit: Array, found: pl.DataFrame) -> Array:
        """Writes the changed bags at the arena's end and returns the block (offset, length, rough) of all pairs."""
        arena = seg.arenas[number]
        block = np.zeros((len(row), 3), np.int64)
        block[hit] = seg.blocks[f"b{number}"][row[hit]]
        if found.height == 0:
            return block
        pair = found["pair"].to_numpy()
        touched = np.unique(pair)
        values = bags.encode(arena.bag, found["value"], arena.pool)
        held = ragged(block[touched, 0], block[touched, 1])
        owner = np.concatenate([np.repeat(np.arange(len(touched)), block[touched, 1]), np.searchsorted(touched, pair)])
        values, counts, lengths, rough = bags.combine(
            arena.bag,
            owner,
            np.concatenate([arena.values[held], values]),
            np.concatenate([arena.counts[held], found["count"].to_numpy().astype(np.int64)]),
            block[touched, 2] > 0,
        )
        offset = arena.write(values, counts)
        block[touched, 0] = offset + np.cumsum(lengths) - lengths
        block[touched, 1] = lengths
        block[touched, 2] = rough
        return block

    def _make_room(self, change: Change, slot: Array, tile: Array, missing: Array) -> None:
        """Finds rows for new tiles: behind a run where there is room, else the run moves to the arrays' end."""
        seg = change.segments
        order = missing[np.lexsort((tile[missing], slot[missing]))]
        grown, start, more = np.unique(slot[order], return_index=True, return_counts=True)
        length = seg.length[grown]
        last = np.where(length > 0, seg.tile[seg.off[grown] + np.maximum(length, 1) - 1], _NO_TILE)
        stays = (more <= seg.cap[grown] - length) & (tile[order[start]] > last)
        off, cap = seg.off[grown].copy(), seg.cap[grown].copy()
        moved = np.flatnonzero(~stays)
        if len(moved):
            total = length[moved] + more[moved]
            cap[moved] = np.where(length[moved] > 0, total + 2 + total // 2, total + 1)
            off[moved] = seg.tail + np.cumsum(cap[moved]) - cap[moved]
            seg.tail += int(cap[moved].sum())
        rank = np.arange(len(order)) - np.repeat(start, more)
        row = np.repeat(off + length, more) + rank
        if len(moved):
            row = self._move(change, grown, off, moved, more, tile[order], row)
        change.rows[order] = row
        seg.tile[row] = tile[order]
        seg.owner[row] = slot[order]
        change.slots, change.off, change.length, change.cap = grown, off, length + more, cap

    def _move(
        self, change: Change, grown: Array, off: Array, moved: Array, more: Array, tile: Array, row: Array
    ) -> Array:
        """Copies the runs of `grown[moved]` to their new place in tile order; returns the rows of the new tiles."""
        seg = change.segments
        run = grown[moved]
        length = seg.length[run]
        old = ragged(seg.off[run], length)
        fresh = np.repeat(np.isin(np.arange(len(grown)), moved), more)
        owner = np.concatenate([np.repeat(np.arange(len(run)), length), np.repeat(np.arange(len(run)), more[moved])])
        tiles = np.concatenate([seg.tile[old], tile[fresh]])
        order = np.lexsort((tiles, owner))
        total = length + more[moved]
        target = np.empty(len(order), np.int64)
        target[order] = ragged(off[moved], total)
        copied = target[: len(old)]
        for array in (seg.tile, seg.owner, seg.dirty, *seg.blocks.values()):
            array[copied] = array[old]
        seg.dirty[old] = False
        row = row.copy()
        row[fresh] = target[len(old) :]
        # Rows that this batch changes and that have just been copied are written at their new place.
        where = np.argsort(old, kind="stable")
        hits = np.flatnonzero(change.rows >= 0)
        place = np.searchsorted(old[where], change.rows[hits])
        place = np.minimum(place, max(len(old) - 1, 0))
        if len(old):
            same = old[where[place]] == change.rows[hits]
            change.rows[hits[same]] = copied[where[place[same]]]
        return row

    def commit(self, change: Change) -> None:
        """Makes a prepared change visible."""
        seg = change.segments
        for name, values in change.blocks.items():
            seg.blocks[name][change.rows] = values
        seg.dirty[change.rows] = True
        seg.off[change.slots] = change.off
        seg.length[change.slots] = change.length
        seg.cap[change.slots] = change.cap
        self.segments = seg

    # -- room ------------------------------------------------------------------------------------------------------

    def _bags_full(self, seg: Segments, row: Array, found: list[pl.DataFrame]) -> bool:
        hit = row[row >= 0]
        return any(
            arena.tail + frame.height + int(seg.blocks[f"b{number}"][hit, 1].sum()) > len(arena.values)
            for number, (arena, frame) in enumerate(zip(seg.arenas, found, strict=True))
        )

    def _rebuild(self, more: int, pairs: list[int], row: Array) -> Segments:
        """New arrays with all that lives, and room for `more` rows and `pairs` bag entries a bag."""
        old = self.segments
        live = np.flatnonzero(old.length)
        length = old.length[live]
        room = length + length // 4
        hit = row[row >= 0]
        rewritten = [int(old.blocks[f"b{n}"][hit, 1].sum()) for n in range(len(pairs))]
        source = ragged(old.off[live], length)
        held = [int(old.blocks[f"b{n}"][source, 1].sum()) for n in range(len(pairs))]
        capacity = int(room.sum()) * 3 // 2 + more + ROOM
        arenas = [2 * (h + r + p) + ROOM for h, r, p in zip(held, rewritten, pairs, strict=True)]
        new = self._make(len(old.off), capacity, arenas)
        new.off[live] = np.cumsum(room) - room
        new.length[live] = length
        new.cap[live] = room
        new.tail = int(room.sum())
        target = ragged(new.off[live], length)
        new.tile[target] = old.tile[source]
        new.owner[target] = old.owner[source]
        new.dirty[target] = old.dirty[source]
        for name, block in old.blocks.items():
            new.blocks[name][target] = block[source]
        for number, (before, arena) in enumerate(zip(old.arenas, new.arenas, strict=True)):
            self._copy_bags(new.blocks[f"b{number}"], target, before, arena)
        return new

    @staticmethod
    def _copy_bags(block: Array, rows: Array, before: Arena, arena: Arena) -> None:
        """Writes the bags of live rows to a new arena, and with them only the pool's values that still occur."""
        held = ragged(block[rows, 0], block[rows, 1])
        values = before.values[held]
        if before.pool.values:
            codes, values = np.unique(values, return_inverse=True)
            arena.pool.values = [before.pool.values[code] for code in codes.tolist()]
            arena.pool.codes = {value: code for code, value in enumerate(arena.pool.values)}
            # Sorted by code, and codes keep their order: the bags stay sorted.
        arena.write(values, before.counts[held])
        block[rows, 0] = np.cumsum(block[rows, 1]) - block[rows, 1]

    def expire(self, before: int, low: int, high: int) -> tuple[Array, Array, Array]:
        """Runs, of the slots from `low` to `high`, with tiles at or before `before`: slots, new off, new length."""
        seg = self.segments
        run = low + np.flatnonzero(seg.length[low:high])
        run = run[seg.tile[seg.off[run]] <= before]
        off, length = seg.off[run], seg.length[run]
        dropped = _count_upto(seg.tile, off, length, before)
        return run, off + dropped, length - dropped

    def shrink(self, run: Array, off: Array, length: Array) -> None:
        """Makes an `expire` visible; the rows left behind are free when the arrays are next copied."""
        seg = self.segments
        seg.cap[run] -= off - seg.off[run]
        seg.off[run] = off
        seg.length[run] = length


def _find(seg: Segments, slot: Array, tile: Array) -> Array:
    """The row of each (slot, tile), or -1. Nearly always it is the newest; the others are searched for by halving."""
    length = seg.length[slot]
    last = seg.off[slot] + length - 1
    newest = np.where(length > 0, seg.tile[np.maximum(last, 0)], _NO_TILE)
    row = np.where((newest == tile) & (length > 0), last, -1)
    older = np.flatnonzero((tile < newest) & (length > 1))
    if len(older):
        off, count, wanted = seg.off[slot[older]], length[older], tile[older]
        at = off + _count_upto(seg.tile, off, count, wanted) - 1
        found = (at >= off) & (seg.tile[np.maximum(at, 0)] == wanted)
        row[older[found]] = at[found]
    return row


def _count_upto(tile: Array, off: Array, length: Array, bound: Array | int) -> Array:
    """How many tiles of each run are at or before a bound: a binary search of all runs at once."""
    low, high = np.zeros(len(off), np.int64), length.copy()
    while len(low) and (low < high).any():
        middle = (low + high) // 2
        inside = (low < high) & (tile[np.minimum(off + middle, len(tile) - 1)] <= bound)
        low = np.where(inside, middle + 1, low)
        high = np.where(inside | (low >= high), high, middle)
    return low


def _most_room(seg: Segments, slot: Array) -> int:
    """The most rows that new tiles of these slots can need at the arrays' end, should every run move."""
    if len(slot) == 0:
        return 0
    length = seg.length[np.unique(slot)]
    return int((length + length // 2).sum()) + 2 * len(slot) + 2 * len(length)


def _no_runs() -> tuple[Array, Array, Array, Array]:
    none = np.empty(0, np.int64)
    return none, none, none, none
