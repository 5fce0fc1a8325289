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

from headrace.features.bags import Arena, ragged
from headrace.features.layout import NO_INT, REDUCED, Array, Blocks
from headrace.features.merged import Columns, Merged
from headrace.features.table import Segments
from headrace.features.view import View, Window

_MERGE = {name: merge for name, (_, merge, _) in REDUCED.items()}
_REDUCE = {name: merge.reduce for name, merge in _MERGE.items()}
_NONE: list[Any] = []
_EMPTY = np.empty((0, 0))
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
        nothing = view.nothing[number]
        first = True
        for window in view.windows[number]:
            low, high = _range(window, tiles, listed, length, now)
            merged = _merge(window, nothing, seg, off + low, off + high)
            for place, finish in window.finish:
                values[place] = finish(merged)
            if first:
                first = False
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


def _merge(window: Window, nothing: dict[str, list[Any]], seg: Segments, low: int, high: int) -> Merged:
    """The merged partials of the rows from `low` to `high`."""
    blocks = seg.blocks
    if high == low:
        reduced = nothing
    elif high - low == 1:
        reduced = {name: blocks[name][low].tolist() for name in window.reduced}
    else:
        reduced = {name: _REDUCE[name](blocks[name][low:high]).tolist() for name in window.reduced}
    rows = {name: blocks[name][low:high] for name in window.rowwise}
    return _merged(reduced, rows, seg.arenas)


def _merged(reduced: dict[str, list[Any]], rows: Blocks, arenas: list[Arena]) -> Merged:
    get = reduced.get
    return Merged(get("isum", _NONE), get("fsum", _NONE), get("imax", _NONE), get("fmax", _NONE), rows, arenas)


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
    values: list[list[Any]] = [[] for _ in range(view.leaves)]
    newest = np.full(len(tables[0].count), NO_INT)
    for number, table in enumerate(tables):
        for position, window in enumerate(view.windows[number]):
            columns, count = _merge_many(view.nothing[number], table, window, now)
            one_by_one = _split(columns, count, table.arenas) if any(m is None for _, _, m in window.many) else []
            for place, finish, many in window.many:
                values[place] = [finish(merged) for merged in one_by_one] if many is None else many(columns)
            if position == 0:
                newest = np.maximum(newest, columns.imax[view.newest[number]])
    seen = newest.tolist()
    return [
        Values([output(row) for output in view.outputs], None if seen[key] == NO_INT else seen[key], now)
        for key, row in enumerate(zip(*values, strict=True))
    ]


def _merge_many(nothing: dict[str, list[Any]], table: Gathered, window: Window, now: int) -> tuple[Columns, Array]:
    """The merged partials of all keys, and how many tiles of each are in the window."""
    keys = len(table.count)
    owner = np.repeat(np.arange(keys), table.count)
    blocks = {name: table.blocks[name] for name in {*window.reduced, *window.rowwise}}
    if window.over is not None:
        inside = (table.tile > now - window.over) & (table.tile <= now)
        if not inside.all():
            owner = owner[inside]
            blocks = {name: block[inside] for name, block in blocks.items()}
    count = np.bincount(owner, minlength=keys)
    held = np.flatnonzero(count)
    starts = (np.cumsum(count) - count)[held]
    reduced: dict[str, Array] = {}
    for name in window.reduced:
        reduced[name] = np.repeat(np.array(nothing[name], blocks[name].dtype)[:, None], keys, axis=1)
        if len(held):
            reduced[name][:, held] = _MERGE[name].reduceat(blocks[name], starts, axis=0).T
    get = reduced.get
    return Columns(
        get("isum", _EMPTY), get("fsum", _EMPTY), get("imax", _EMPTY), get("fmax", _EMPTY), blocks, owner
    ), count


def _split(columns: Columns, count: Array, arenas: list[Arena]) -> list[Merged]:
    """The columns as one `Merged` a key, for aggregates that are finished one by one."""
    reduced = [
        part.T.tolist() if part.size else [_NONE] * len(count)
        for part in (columns.isum, columns.fsum, columns.imax, columns.fmax)
    ]
    ends = np.cumsum(count).tolist()
    return [
        Merged(
            one[0],
            one[1],
            one[2],
            one[3],
            {name: block[end - size : end] for name, block in columns.rows.items()},
            arenas,
        )
        for one, end, size in zip(zip(*reduced, strict=True), ends, count.tolist(), strict=True)
    ]
