"""Reading: a trailing window is merged from its tiles at the moment it is asked for.

At time `now` a window covers the tiles that start after `now - over` and not after `now`. Nothing has to expire for
that to be right, and no event has to come.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.features.aggregates import Merged
from headrace.features.bags import Arena, Pool, ragged
from headrace.features.layout import NO_INT, REDUCED, Array, Blocks
from headrace.features.table import Segments
from headrace.features.view import View, Window

_MERGE = {name: merge for name, (_, merge, _) in REDUCED.items()}
# Up to this many tiles a list and bisect beat an array and searchsorted.
_SHORT = 128


@dataclass(slots=True)
class Values:
    """A key's features in the view's order, the newest event time in them (None: no event), and when that was."""

    features: list[Any]
    newest: int | None
    now: int | None


def read_one(view: View, tables: Sequence[Segments], slot: int, now: int) -> Values:
    """The features of one slot at `now`. The arrays must not change meanwhile."""
    values: list[Any] = [None] * view.leaves
    newest = NO_INT
    for number, seg in enumerate(tables):
        off, length = seg.off.item(slot), seg.length.item(slot)
        tiles = seg.tile[off : off + length]
        listed = tiles.tolist() if length <= _SHORT else None
        for position, window in enumerate(view.windows[number]):
            low, high = _range(window, tiles, listed, length, now)
            merged = _merge(view, number, seg, off + low, off + high)
            for place, finish in window.finish:
                values[place] = finish(merged)
            if position == 0:
                newest = max(newest, merged.imax[view.newest[number]])
    return Values([output(values) for output in view.outputs], None if newest == NO_INT else newest, now)


def _range(window: Window, tiles: Array, listed: list[int] | None, length: int, now: int) -> tuple[int, int]:
    """Which of a run's tiles a window covers."""
    if window.over is None:
        return 0, length
    if listed is None:
        low, high = np.searchsorted(tiles, (now - window.over, now), side="right").tolist()
        return low, high
    high = length if not listed or listed[-1] <= now else bisect_right(listed, now)
    low = 0 if not listed or listed[0] > now - window.over else bisect_right(listed, now - window.over)
    return low, max(low, high)


def _merge(view: View, number: int, seg: Segments, low: int, high: int) -> Merged:
    """The merged partials of the rows from `low` to `high`."""
    rows = {name: block[low:high] for name, block in seg.blocks.items()}
    if high == low:
        reduced = view.nothing[number]
    elif high - low == 1:
        reduced = {name: rows[name][0].tolist() for name in view.reduced[number]}
    else:
        reduced = {name: _MERGE[name].reduce(rows[name], axis=0).tolist() for name in view.reduced[number]}
    return _merged(reduced, rows, seg.arenas)


def _merged(reduced: dict[str, list[Any]], rows: Blocks, arenas: list[Arena]) -> Merged:
    def bag(number: int, block: Array) -> list[tuple[Array, Array, bool, Pool]]:
        arena = arenas[number]
        return [
            (arena.values[off : off + n], arena.counts[off : off + n], rough > 0, arena.pool)
            for off, n, rough in block.tolist()
            if n
        ]

    get = reduced.get
    return Merged(get("isum") or [], get("fsum") or [], get("imax") or [], get("fmax") or [], rows, bag)


@dataclass
class Gathered:
    """The rows of several keys from one table, one key after another; `count` says how many each has."""

    tile: Array
    count: Array
    blocks: Blocks
    arenas: list[Arena]


def gather(seg: Segments, slots: Array) -> Gathered:
    """Copies the rows of some slots; a slot of -1 has none."""
    known = np.maximum(slots, 0)
    count = np.where(slots >= 0, seg.length[known], 0)
    rows = ragged(seg.off[known], count)
    blocks = {name: block[rows] for name, block in seg.blocks.items()}
    return Gathered(seg.tile[rows], count, blocks, seg.arenas)


def read_gathered(view: View, tables: Sequence[Gathered], now: int) -> list[Values]:
    """The features of several keys at `now`, in their order: `read_one` for many, reduced together."""
    keys = len(tables[0].count)
    values: list[list[Any]] = [[None] * view.leaves for _ in range(keys)]
    newest = [NO_INT] * keys
    for number, table in enumerate(tables):
        for position, window in enumerate(view.windows[number]):
            for key, merged in enumerate(_merge_many(view, number, table, window, now)):
                for place, finish in window.finish:
                    values[key][place] = finish(merged)
                if position == 0:
                    newest[key] = max(newest[key], merged.imax[view.newest[number]])
    return [
        Values([output(row) for output in view.outputs], None if seen == NO_INT else seen, now)
        for row, seen in zip(values, newest, strict=True)
    ]


def _merge_many(view: View, number: int, table: Gathered, window: Window, now: int) -> list[Merged]:
    owner = np.repeat(np.arange(len(table.count)), table.count)
    blocks = table.blocks
    if window.over is not None:
        inside = (table.tile > now - window.over) & (table.tile <= now)
        if not inside.all():
            owner = owner[inside]
            blocks = {name: block[inside] for name, block in blocks.items()}
    count = np.bincount(owner, minlength=len(table.count))
    ends = np.cumsum(count).tolist()
    held = np.flatnonzero(count)
    starts = (np.cumsum(count) - count)[held]
    reduced = {
        name: _MERGE[name].reduceat(blocks[name], starts, axis=0).tolist() if len(held) else []
        for name in view.reduced[number]
    }
    results = []
    rank = 0
    for end, size in zip(ends, count.tolist(), strict=True):
        rows = {name: block[end - size : end] for name, block in blocks.items()} if view.rowwise[number] else {}
        if size:
            one = {name: lists[rank] for name, lists in reduced.items()}
            rank += 1
        else:
            one = view.nothing[number]
        results.append(_merged(one, rows, table.arenas))
    return results
