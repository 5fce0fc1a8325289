"""A view as it was some commits ago: undo records, applied to a copy of one key's run.

    commit      1          2          3 (arrays rebuilt)      4
    undo of         ◄── rows, runs ◄── the old arrays ◄── rows, runs
                                                              ▲ now

A commit overwrites rows of a run in place, or gives the run another place; what lay in the old place stays, bags only
grow at the arena's end, and a rebuild leaves the old arrays as they are. So the values of the overwritten rows and the
old places of the runs are all that is needed to go back, newest first, and they are copied before the commit. Readers
of old versions pay for going back; commits pay for that copy alone (before-images, as in undo logging: Gray and
Reuter, Transaction Processing, 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.features.layout import Array, Blocks
from headrace.features.machine import Expired, Prepared, ViewMachine
from headrace.features.read import Values, read_one
from headrace.features.table import Segments, TileTable
from headrace.features.view import View

# What an object costs besides the pointer to it, about.
_OBJECT = 64
_NONE = np.empty(0, np.int64)


@dataclass(slots=True)
class TableUndo:
    """What takes one table back behind a commit. Where `after` is not `before`, the old arrays are all there is."""

    before: Segments
    after: Segments
    slots: Array  # sorted: whose runs moved or grew, and where they were …
    off: Array
    length: Array
    rows: Array  # which rows of a run were overwritten, and what they held
    blocks: Blocks

    @property
    def bytes(self) -> int:
        """What keeping it costs."""
        if self.after is not self.before:
            seg = self.before
            arrays = [seg.off, seg.length, seg.cap, seg.tile, seg.owner, seg.dirty, *seg.blocks.values()]
            arrays += [part for arena in seg.arenas for part in (arena.values, arena.counts)]
        else:
            arrays = [self.slots, self.off, self.length, self.rows, *self.blocks.values()]
        return sum(one.nbytes + (one.size * _OBJECT if one.dtype == object else 0) for one in arrays)


@dataclass(slots=True)
class Undo:
    """What takes a view back behind a commit.

    Attributes:
        newest: The newest event time before it.
        tables: By the table's number; one that did not change is not there.
        freed: The keys that it let go of, with the slots that they had.
    """

    newest: int | None
    tables: dict[int, TableUndo] = field(default_factory=dict)
    freed: dict[Any, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What keeping it costs."""
        return 256 + sum(one.bytes for one in self.tables.values()) + 2 * _OBJECT * len(self.freed)


def before_commit(machine: ViewMachine, prepared: Prepared) -> Undo:
    """The undo of a prepared batch; to be asked right before its commit."""
    undo = Undo(machine.newest)
    for number, (table, change) in enumerate(prepared.changes):
        seg = table.segments
        if change.segments is not seg:
            undo.tables[number] = TableUndo(seg, change.segments, _NONE, _NONE, _NONE, _NONE, {})
            continue
        owner = seg.owner[change.rows]
        start = seg.off[owner]
        # Rows that no run holds yet, the new ones and the copies of moved runs, mean nothing to older versions.
        rows = change.rows[(change.rows >= start) & (change.rows < start + seg.length[owner])]
        blocks = {name: block[rows] for name, block in seg.blocks.items()}
        slots = change.slots
        undo.tables[number] = TableUndo(seg, seg, slots, seg.off[slots], seg.length[slots], rows, blocks)
    return undo


def before_retire(machine: ViewMachine, expired: Sequence[Expired]) -> Undo:
    """The undo of an expiry; to be asked right before `retire`, and after it to be told of that with `retired`."""
    undo = Undo(machine.newest)
    numbers = {id(table): number for number, table in enumerate(machine.tables)}
    for table, (run, _, length) in expired:
        seg = table.segments
        undo.tables[numbers[id(table)]] = TableUndo(seg, seg, run, seg.off[run], seg.length[run], _NONE, {})
        undo.freed |= {machine.index.key_of[slot]: slot for slot in run[length == 0].tolist()}
    return undo


def retired(machine: ViewMachine, undo: Undo) -> None:
    """Notes which of the keys are really gone; some have tiles in another table."""
    slot_of = machine.index.slot_of
    undo.freed = {key: slot for key, slot in undo.freed.items() if slot_of.get(key) != slot}


@dataclass(slots=True)
class Frozen:
    """One key's runs at a version, apart from the arrays: `finish` it whenever, wherever."""

    view: View
    tables: list[Segments]
    now: int | None

    def finish(self) -> Values:
        """The features."""
        values = read_one(self.view, self.tables, 0, 0 if self.now is None else self.now)
        return Values(values.features, None if self.now is None else values.newest, self.now)


def freeze(machine: ViewMachine, key: Any, undos: Sequence[Undo], now: int | None) -> Frozen:
    """A key as it was before the commits of `undos`, which are all since then, the newest first.

    No commit may come in between. `now` of None is the newest event time that the stream had seen then.
    """
    slot: int | None = machine.index.slot_of.get(key)
    newest = machine.newest
    for undo in undos:
        newest = undo.newest
        if undo.freed:
            if key in undo.freed:
                slot = undo.freed[key]
            elif slot in undo.freed.values():
                slot = None  # before this, the slot was another key's
    tables = [_run(table, number, slot, undos) for number, table in enumerate(machine.tables)]
    return Frozen(machine.view, tables, newest if now is None else now)


def _run(table: TileTable, number: int, slot: int | None, undos: Sequence[Undo]) -> Segments:
    """A copy of one slot's run, as it was."""
    seg = table.segments
    off, length = _place(seg, slot)
    overwritten: list[TableUndo] = []
    for undo in undos:
        one = undo.tables.get(number)
        if one is None:
            continue
        if one.after is not one.before:
            seg = one.before
            off, length = _place(seg, slot)
            overwritten = []
            continue
        at = int(np.searchsorted(one.slots, slot)) if slot is not None else len(one.slots)
        if at < len(one.slots) and one.slots[at] == slot:
            off, length = int(one.off[at]), int(one.length[at])
        if len(one.rows):
            overwritten.append(one)
    blocks = {name: block[off : off + length].copy() for name, block in seg.blocks.items()}
    for one in overwritten:
        hit = np.flatnonzero((one.rows >= off) & (one.rows < off + length))
        if len(hit):
            for name, block in blocks.items():
                block[one.rows[hit] - off] = one.blocks[name][hit]
    tile = seg.tile[off : off + length].copy()
    place = np.zeros(1, np.int64)
    size = np.array([length], np.int64)
    return Segments(place, size, size, tile, np.zeros(length, np.int32), np.zeros(length, bool), blocks, seg.arenas)


def _place(seg: Segments, slot: int | None) -> tuple[int, int]:
    """Where a slot's run is; a slot that the arrays do not know has none."""
    if slot is None or slot >= len(seg.off):
        return 0, 0
    return seg.off.item(slot), seg.length.item(slot)
