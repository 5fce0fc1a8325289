"""A view's rows for a store outside the process: which have changed, as bytes, and features read from them.

A row is one tile of one key in one table, with all that it holds: written again it says the same, so a store may be
told twice, or told everything anew. Trailing windows are merged when the rows are read, as in memory, so a row that a
store still holds though its time is past counts nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from headrace.changes import Rows
from headrace.errors import StorageError
from headrace.features.bags import ragged
from headrace.features.keys import KeyIndex
from headrace.features.layout import Array
from headrace.features.packed import TABLE_AT, Packed
from headrace.features.read import Gathered, Values, read_gathered, read_one
from headrace.features.table import Change, Segments, TileTable
from headrace.features.view import View

# Rows handed out at a time when all are asked for.
_PART = 32_768
_NONE = np.empty(0, np.int64)
_ZERO = np.zeros(1, np.int64)


class RowCodec:
    """Makes rows of a view's tables, and features of rows.

    Args:
        view: The view.
        slack: How much longer than its windows the view keeps tiles, in microseconds (the stream's lateness).
    """

    def __init__(self, view: View, slack: int = 0) -> None:
        self.view = view
        self.slack = slack

    @property
    def stream(self) -> str:
        """The view's stream."""
        return self.view.stream

    @cached_property
    def fingerprint(self) -> str:
        """Text that differs where a row written by one declaration cannot be read by another."""
        return hashlib.blake2b(self.view.fingerprint().encode(), digest_size=16).hexdigest()

    @property
    def horizon(self) -> int | None:
        """Microseconds from a tile's start on until nothing reads the tile any more; None where that never comes."""
        horizon = self.view.horizon
        return None if horizon is None else horizon + max(table.every for table in self.view.tables) + self.slack

    @cached_property
    def _packed(self) -> list[Packed]:
        return [Packed(layout, number) for number, layout in enumerate(self.view.tables)]

    @cached_property
    def _empty(self) -> list[Any]:
        tables = len(self._packed)
        return read_gathered(self.view, self._gathered([[]] * tables, [_NONE] * tables, 1), 0)[0].features

    # -- rows of a machine's tables --------------------------------------------------------------------------------

    def changed(self, index: KeyIndex, changes: Sequence[tuple[TileTable, Change]]) -> list[Rows]:
        """The rows that a commit has changed; to be asked right after it."""
        if not changes:
            return []
        tables = [table.segments for table, _ in changes]
        grown = np.unique(np.concatenate([change.slots for _, change in changes]))
        return [self._rows(index, tables, [change.rows for _, change in changes], grown)]

    def everything(self, index: KeyIndex, tables: Sequence[TileTable]) -> Iterator[Rows]:
        """All live rows, some ten thousand at a time. The tables must not change meanwhile."""
        segments = [table.segments for table in tables]
        held = np.sum([seg.length[: index.size] for seg in segments], axis=0)
        ends = np.cumsum(held)
        low = 0
        while low < len(held):
            done = int(ends[low - 1]) if low else 0
            high = max(low + 1, int(np.searchsorted(ends, done + _PART, side="right")))
            slots = np.arange(low, high)
            rows = [ragged(seg.off[slots], seg.length[slots]) for seg in segments]
            if any(len(of_table) for of_table in rows):
                yield self._rows(index, segments, rows, slots)
            low = high

    def gone(self, index: KeyIndex, expired: Sequence[tuple[TileTable, tuple[Array, Array, Array]]]) -> list[Rows]:
        """The rows that a `retire` will remove; to be asked before it."""
        parts = []
        for table, (run, off, _) in expired:
            seg = table.segments
            rows = ragged(seg.off[run], off - seg.off[run])
            parts.append((self._number(table), seg, rows))
        owner = np.concatenate([seg.owner[rows] for _, seg, rows in parts]) if parts else _NONE
        if len(owner) == 0:
            return []
        order = np.argsort(owner, kind="stable").tolist()
        fields = [field for number, seg, rows in parts for field in self._fields(number, seg.tile[rows])]
        keys = [index.key_of[slot] for slot in owner.tolist()]
        return [Rows(self.view.name, [keys[n] for n in order], [fields[n] for n in order], None)]

    def _number(self, table: TileTable) -> int:
        return next(n for n, layout in enumerate(self.view.tables) if layout is table.layout)

    def _rows(self, index: KeyIndex, tables: Sequence[Segments], rows: Sequence[Array], grown: Array) -> Rows:
        """Rows of all tables, those of one key together.

        Args:
            tables: All of the view's, in order.
            rows: Of each table, which.
            grown: Slots of keys that have, or may have, a newer tile than before.
        """
        owners, fields, values = [], [], []
        for number, (seg, chosen) in enumerate(zip(tables, rows, strict=True)):
            owner = seg.owner[chosen]
            order = np.argsort(owner, kind="stable")
            chosen = chosen[order]
            owners.append(owner[order])
            fields += self._fields(number, seg.tile[chosen])
            values += self._packed[number].pack(seg, chosen)
        owner = owners[0]
        if len(owners) > 1:
            owner = np.concatenate(owners)
            order = np.argsort(owner, kind="stable")
            owner = owner[order]
            fields = [fields[n] for n in order.tolist()]
            values = [values[n] for n in order.tolist()]
        keys = [index.key_of[slot] for slot in owner.tolist()]
        return Rows(self.view.name, keys, fields, values, self._until(tables, owner, grown))

    def _until(self, tables: Sequence[Segments], owner: Array, grown: Array) -> list[int] | None:
        """For each row of a key that has grown, when the newest of the key's tiles is past; else 0."""
        if self.view.horizon is None or len(grown) == 0:
            return None
        until = np.zeros(len(grown), np.int64)
        for seg, layout in zip(tables, self.view.tables, strict=True):
            length = seg.length[grown]
            newest = seg.tile[np.maximum(seg.off[grown] + length - 1, 0)]
            until = np.where(length > 0, np.maximum(until, newest + (layout.keep or 0)), until)
        place = np.minimum(np.searchsorted(grown, owner), len(grown) - 1)
        listed: list[int] = np.where(grown[place] == owner, until[place], 0).tolist()
        return listed

    def _fields(self, number: int, tile: Array) -> list[bytes]:
        """The name of a row within its key: the table's number and the tile's."""
        every = self.view.tables[number].every
        tiles, which = np.unique(tile, return_inverse=True)
        names = [b"%d.%d" % (number, one // every if every else 0) for one in tiles.tolist()]
        return [names[n] for n in which.tolist()]

    # -- features of rows ------------------------------------------------------------------------------------------

    def read(self, rows: Sequence[bytes], now: int | None) -> Values:
        """One key's features at `now` from its rows, in any order; None for a stream without events.

        Raises:
            StorageError: The rows are not whole, or another declaration's.
        """
        if now is None or not rows:
            return Values(self._empty, None, now)
        segments = []
        for packed, chosen in zip(self._packed, self._parted(rows), strict=True):
            tile, blocks, arenas = packed.unpack(chosen)
            length = np.array([len(tile)])
            segments.append(Segments(_ZERO, length, length, tile, _NONE, _NONE, blocks, arenas, len(tile)))
        return read_one(self.view, segments, 0, now)

    def read_many(self, keys: Sequence[Sequence[bytes]], now: int | None) -> list[Values]:
        """The features of several keys at `now`, from the rows of each.

        Raises:
            StorageError: The rows are not whole, or another declaration's.
        """
        if now is None:
            return [Values(self._empty, None, None) for _ in keys]
        if not keys:
            return []
        owner = np.repeat(np.arange(len(keys)), [len(rows) for rows in keys])
        flat = [row for rows in keys for row in rows]
        if len(self._packed) == 1:
            return read_gathered(self.view, self._gathered([flat], [owner], len(keys)), now)
        table = np.array([row[TABLE_AT] if len(row) > TABLE_AT else len(self._packed) for row in flat], np.int64)
        owners = [owner[table == number] for number in range(len(self._packed))]
        return read_gathered(self.view, self._gathered(self._parted(flat), owners, len(keys)), now)

    def _gathered(self, parts: Sequence[list[bytes]], owners: Sequence[Array], keys: int) -> list[Gathered]:
        gathered = []
        for packed, rows, owner in zip(self._packed, parts, owners, strict=True):
            tile, blocks, arenas = packed.unpack(rows, owner)
            gathered.append(Gathered(tile, np.bincount(owner, minlength=keys), blocks, arenas))
        return gathered

    def _parted(self, rows: Sequence[bytes]) -> list[list[bytes]]:
        """The rows of each table."""
        if len(self._packed) == 1:
            return [list(rows)]
        parts: list[list[bytes]] = [[] for _ in self._packed]
        try:
            for row in rows:
                parts[row[TABLE_AT]].append(row)
        except IndexError:
            raise StorageError(
                f"the online store: {self.view.name} has {len(parts)} tables, found a row that is none of theirs: "
                "another version or declaration wrote it; let the engine write the view again"
            ) from None
        return parts
