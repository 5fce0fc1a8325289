"""The machine that keeps a view: batches in, changed rows out, snapshots to go on from.

It reads no clock and does no I/O: a batch brings its own `now`. However the input is cut into batches, and wherever a
snapshot is taken and gone on from, the answers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from headrace.changes import Rows
from headrace.features import bags
from headrace.features.codec import RowCodec
from headrace.features.keys import KeyIndex
from headrace.features.layout import AT, SEQ, TILE, Array, TableLayout
from headrace.features.partials import aggregations, collected, counted
from headrace.features.read import Gathered, Values, gather, read_gathered, read_one
from headrace.features.table import Change, TileTable
from headrace.features.view import View

Snapshot = Mapping[str, pl.DataFrame]
# A table, and of the runs that lost tiles: slots, new offsets, new lengths.
Expired = tuple[TileTable, tuple[Array, Array, Array]]


@dataclass(frozen=True)
class Batch:
    """Valid events of one stream in order of arrival.

    Attributes:
        frame: The stream's columns.
        first: The arrival number of the first row; the others follow on.
        now: Shape (rows,), int64: the time at which each row arrived, by the app's clock, in microseconds.
        slack: How much longer than its windows a view keeps tiles, in microseconds (the stream's lateness).
    """

    frame: pl.DataFrame
    first: int
    now: Array
    slack: int = 0


@dataclass(frozen=True)
class Refused:
    """Rows of a batch that a view could not use, and why."""

    rows: Array
    reason: str
    late: bool = False


@dataclass
class Prepared:
    """What a batch will change in a view, not yet visible."""

    changes: list[tuple[TileTable, Change]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    newest: int | None = None
    size: int = 0  # slots in use with it


class ViewMachine:
    """Keeps a view's tables. `process` is `prepare`, then `commit`.

    Attributes:
        newest: The newest event time that the view's stream has seen: `now` of an app on event time.
    """

    def __init__(self, view: View, snapshot: Snapshot | None = None, newest: int | None = None) -> None:
        self.view = view
        self.newest = newest
        self.index = KeyIndex(view.keys)
        self.codec = RowCodec(view)
        self._schema = pl.DataFrame(schema=view.schema).select(**view.inputs).schema
        self.tables = [TileTable(layout) for layout in view.tables]
        self._empty = read_gathered(view, [gather(table.segments, np.array([-1])) for table in self.tables], 0)[0]
        self._swept = 0
        self._size = 0  # slots from here on are in no table yet
        self._plain = {
            name: expr.meta.output_name()
            for name, expr in view.inputs.items()
            if expr.meta.is_column() and expr.meta.output_name() in view.schema
        }
        self._exprs = {name: expr for name, expr in view.inputs.items() if name not in self._plain}
        self._sorted = any(layout.slots for layout in view.tables)
        for table, layout in zip(self.tables, view.tables, strict=True):
            part = (snapshot or {}).get(view.part(layout))
            if part is not None and part.height:
                self._restore(table, part)
        for table in self.tables:
            table.segments.grow(self.index.size)
        self._size = self.index.size

    # -- batches ---------------------------------------------------------------------------------------------------

    def process(self, batch: Batch) -> Prepared:
        """Takes a batch in, and says what it changed and which rows could not be used."""
        prepared = self.prepare(batch)
        self.commit(prepared)
        return prepared

    def prepare(self, batch: Batch) -> Prepared:
        """Computes what a batch changes; nothing is visible before `commit`."""
        prepared = Prepared()
        for table, (grouped, found) in zip(self.tables, self._partials(batch, prepared), strict=False):
            # Only now: a key all of whose events are too late must not take a slot that nothing would free.
            slot, tiles = self.index.assign(grouped), grouped[TILE].to_numpy()
            blocks = collected(table.layout, grouped)
            prepared.changes.append((table, table.prepare(self.index.size, slot, tiles, blocks, found)))
        if prepared.changes:
            prepared.size = self.index.size
        return prepared

    def _partials(self, batch: Batch, prepared: Prepared) -> list[tuple[pl.DataFrame, list[pl.DataFrame]]]:
        """A batch grouped by key and tile, and its counted values, for each table; none if no row can be used.

        Notes in `prepared` the rows that cannot be used, and the newest event time.
        """
        if batch.frame.height == 0:
            return []
        prepared.newest = int(batch.frame[self.view.time].to_physical().max())  # type: ignore[arg-type]
        inputs, used = self._inputs(batch, prepared)
        if inputs.height == 0:
            return []
        at, now = inputs[AT].to_numpy(), batch.now[used]
        if self._late(prepared, at, now, used, batch.slack):
            inputs, at, now = self._without_late(inputs, at, now, batch.slack)
        if inputs.height == 0:
            return []
        if self._sorted and (at[1:] < at[:-1]).any():
            order = np.argsort(at, kind="stable")
            inputs, at, now = inputs[order], at[order], now[order]
        return [self._group(layout, inputs, at, now, batch.slack) for layout in self.view.tables]

    def commit(self, prepared: Prepared) -> None:
        """Makes a prepared batch visible, in a time that grows only with the rows changed."""
        for table, change in prepared.changes:
            table.commit(change)
        self._size = max(self._size, prepared.size)
        if prepared.newest is not None:
            self.newest = prepared.newest if self.newest is None else max(self.newest, prepared.newest)

    def _inputs(self, batch: Batch, prepared: Prepared) -> tuple[pl.DataFrame, Array]:
        """Keys, event time, arrival number and the user's expressions, of the rows that can be used."""
        frame, used = batch.frame, np.arange(batch.frame.height)
        if any(frame[key].null_count() for key in self.view.keys):
            nameless = frame.select(pl.any_horizontal(pl.col(list(self.view.keys)).is_null())).to_series()
            gone = nameless.to_numpy()
            prepared.refused.append(Refused(used[gone], f"{self.view.name}: the key {list(self.view.keys)} is null"))
            used = used[~gone]
            frame = frame.filter(~nameless)
        computed, failed = self._evaluate(frame)
        for row, reason in failed:
            prepared.refused.append(Refused(used[[row]], reason))
        if failed:
            keep = np.setdiff1d(np.arange(len(used)), [row for row, _ in failed])
            frame, used = frame[keep], used[keep]
        keys = [frame[key] for key in self.view.keys]
        times = [frame[self.view.time].to_physical().alias(AT), pl.Series(SEQ, batch.first + used)]
        return pl.DataFrame([*keys, *times, *computed.get_columns()]), used

    def _evaluate(self, frame: pl.DataFrame, first: int = 0) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
        """The user's expressions on every row. Where they fail, halving finds the rows on which they do."""
        if frame.height == 0:
            return pl.DataFrame(schema=self._schema), []
        try:
            return self._computed(frame), []
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises makes its row a dead letter
            if frame.height == 1:
                text = str(error).splitlines()[0] if str(error) else ""
                return pl.DataFrame(schema=self._schema), [(first, f"{self.view.name}: {type(error).__name__}: {text}")]
        half = frame.height // 2
        left, failed = self._evaluate(frame[:half], first)
        right, more = self._evaluate(frame[half:], first + half)
        return pl.concat([left, right]), failed + more

    def _computed(self, frame: pl.DataFrame) -> pl.DataFrame:
        # Columns as they are need no query, which would cost more than all else on a batch of few rows.
        computed = frame.select(**self._exprs) if self._exprs else frame
        return pl.DataFrame(
            [
                frame[self._plain[name]].alias(name) if name in self._plain else computed[name]
                for name in self.view.inputs
            ]
        )

    def _late(self, prepared: Prepared, at: Array, now: Array, used: Array, slack: int) -> bool:
        """Whether any row is past the window of some table; those past all of them are refused."""
        late = np.ones(len(at), bool)
        partly = False
        for layout in self.view.tables:
            gone = _gone(layout, at, now, slack)
            late &= gone
            partly |= bool(gone.any())
        if late.any():
            reason = f"{self.view.name}: older than the longest window, and so too late to be counted"
            prepared.refused.append(Refused(used[late], reason, late=True))
        return partly

    def _without_late(
        self, inputs: pl.DataFrame, at: Array, now: Array, slack: int
    ) -> tuple[pl.DataFrame, Array, Array]:
        keep = np.zeros(len(at), bool)
        for layout in self.view.tables:
            keep |= ~_gone(layout, at, now, slack)
        return inputs.filter(pl.Series(keep)), at[keep], now[keep]

    def _group(
        self, layout: TableLayout, inputs: pl.DataFrame, at: Array, now: Array, slack: int
    ) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
        gone = _gone(layout, at, now, slack)
        if gone.any():
            inputs = inputs.filter(pl.Series(~gone))
            at = at[~gone]
        tile = at // layout.every * layout.every if layout.every else np.zeros(len(at), np.int64)
        inputs = inputs.hstack([pl.Series(TILE, tile)])
        by = [*self.view.keys, TILE]
        grouped = inputs.group_by(by, maintain_order=False).agg(aggregations(layout))
        return grouped, [counted(inputs, grouped, by, bag) for bag in layout.bags]

    # -- time and memory -------------------------------------------------------------------------------------------

    def expire(self, now: int, slack: int = 0, most: int | None = None) -> list[Expired]:
        """What `now` makes too old to be read; visible after `retire`. Bounds memory, changes no answer.

        Args:
            now: Microseconds.
            slack: How much longer than its windows tiles are kept.
            most: Look at this many keys only, going on where the last call ended.
        """
        size = self.index.size
        low = self._swept if most is not None and self._swept < size else 0
        high = size if most is None else min(size, low + most)
        self._swept = high
        return [
            (table, table.expire(now - table.layout.keep - slack, low, high))
            for table in self.tables
            if table.layout.keep is not None
        ]

    def retire(self, expired: list[Expired]) -> int:
        """Drops expired tiles, and the keys that have none left; returns how many keys."""
        for table, (run, off, length) in expired:
            table.shrink(run, off, length)
        if len(expired) < len(self.tables):
            return 0
        touched = np.unique(np.concatenate([run[length == 0] for _, (run, _, length) in expired]))
        idle = [slot for slot in touched.tolist() if all(t.segments.length[slot] == 0 for t in self.tables)]
        self.index.free(idle)
        return len(idle)

    @property
    def keys(self) -> int:
        """Live keys."""
        return len(self.index)

    # -- reads -----------------------------------------------------------------------------------------------------

    def read(self, key: Any, now: int | None) -> Values:
        """One key's features at `now`, by default the newest event time; a key never seen reads as empty."""
        slot = self.index.slot_of.get(key, -1)
        now = self.newest if now is None else now
        if not 0 <= slot < self._size or now is None:
            return Values(self._empty.features, None, now)
        return read_one(self.view, [table.segments for table in self.tables], slot, now)

    def gather(self, keys: Sequence[Any], now: int | None) -> tuple[list[Gathered], int | None]:
        """A copy of the rows of several keys, for `finish`."""
        slots = np.array([self.index.slot_of.get(key, -1) for key in keys], np.int64)
        slots[slots >= self._size] = -1
        return [gather(table.segments, slots) for table in self.tables], self.newest if now is None else now

    def finish(self, gathered: tuple[list[Gathered], int | None]) -> list[Values]:
        """The features of the keys gathered, in their order."""
        rows, now = gathered
        if now is None:
            return [Values(self._empty.features, None, None)] * len(rows[0].count)
        return read_gathered(self.view, rows, now)

    # -- rows for a store outside the process ----------------------------------------------------------------------

    def rows(self, prepared: Prepared) -> list[Rows]:
        """What a batch has changed; to be asked right after its commit."""
        return self.codec.changed(self.index, prepared.changes)

    def gone(self, expired: list[Expired]) -> list[Rows]:
        """What a `retire` will remove; to be asked before it."""
        return self.codec.gone(self.index, expired)

    def all_rows(self) -> Iterator[Rows]:
        """Every live row, a bounded number at a time; no batch may come in between."""
        return self.codec.everything(self.index, self.tables)

    # -- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, pl.DataFrame]:
        """All live rows by part, as `build` takes them."""
        return {self.view.part(table.layout): self._frame(table, _live(table)) for table in self.tables}

    def changed(self) -> dict[str, pl.DataFrame]:
        """The rows changed since this was last called, with their absolute values, by part."""
        parts = {}
        for table in self.tables:
            seg = table.segments
            rows = np.flatnonzero(seg.dirty[: seg.tail])
            seg.dirty[rows] = False
            # A row that expired since it changed is behind its run's first, and is not written.
            owner = seg.owner[rows]
            alive = (rows >= seg.off[owner]) & (rows < seg.off[owner] + seg.length[owner])
            parts[self.view.part(table.layout)] = self._frame(table, rows[alive])
        return parts

    def _frame(self, table: TileTable, rows: Array) -> pl.DataFrame:
        seg = table.segments
        columns: dict[str, Any] = dict(self.index.columns_of(seg.owner[rows], self.view.schema))
        columns[TILE] = pl.Series(seg.tile[rows], dtype=pl.Int64)
        object_types = _object_types(table.layout)
        for name, block in seg.blocks.items():
            if name in object_types:
                columns[name] = pl.Series(block[rows].tolist(), dtype=pl.List(object_types[name]))
            elif not name.startswith("b"):
                columns[name] = pl.Series(block[rows])
        for number, arena in enumerate(seg.arenas):
            columns |= bags.columns(number, arena, seg.blocks[f"b{number}"][rows])
        return pl.DataFrame(columns)

    def _restore(self, table: TileTable, part: pl.DataFrame) -> None:
        slot = self.index.assign(part)
        blocks = table.layout.empty(part.height)
        object_types = _object_types(table.layout)
        for name in blocks:
            if name in object_types:
                for row, values in enumerate(part[name].to_list()):
                    blocks[name][row, :] = values
            elif not name.startswith("b"):
                blocks[name] = np.ascontiguousarray(part[name].to_numpy())
        found = [bags.pairs(number, part) for number in range(len(table.layout.bags))]
        change = table.prepare(self.index.size, slot, part[TILE].to_numpy(), blocks, found)
        for number in range(len(table.layout.bags)):
            change.blocks[f"b{number}"][:, 2] |= part[f"b{number}.rough"].to_numpy()
        table.commit(change)
        table.segments.dirty[:] = False


def build(view: View, snapshot: Snapshot | None = None, newest: int | None = None) -> ViewMachine:
    """The machine that keeps a view, going on from a snapshot (and the newest event time then) or empty."""
    return ViewMachine(view, snapshot, newest)


def _gone(layout: TableLayout, at: Array, now: Array, slack: int) -> Array:
    """Rows whose tile no read from their arrival on can count."""
    if layout.keep is None:
        return np.zeros(len(at), bool)
    gone: Array = at // layout.every * layout.every <= now - layout.keep - slack
    return gone


def _live(table: TileTable) -> Array:
    seg = table.segments
    run = np.flatnonzero(seg.length)
    return bags.ragged(seg.off[run], seg.length[run])


def _object_types(layout: TableLayout) -> dict[str, pl.DataType]:
    return {
        f"s{number}.{column}": dtype
        for number, group in enumerate(layout.slots)
        for column, (kind, dtype) in enumerate(zip(group.kinds, group.dtypes, strict=True))
        if kind == "object"
    }
