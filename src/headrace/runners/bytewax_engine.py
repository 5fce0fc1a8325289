"""What one worker keeps: a machine for each view, with the rows of all shards that the dataflow has given it.

The shards of a worker share their tables, so that a batch is merged once, whatever the number of its shards; a shard is
what is saved and moved. Whoever calls is the worker's own thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.changes import Rows
from headrace.features.combine import Partials, ShardedMachine
from headrace.features.machine import Prepared
from headrace.runners.bytewax_interrupt import uninterrupted
from headrace.runners.bytewax_messages import Opening, Piece, Written
from headrace.runners.progress import StreamState
from headrace.stores.frames import decode_frame, encode_frame
from headrace.stores.online.base import OnlineStore, Progress, RemoteStore

if TYPE_CHECKING:
    from headrace.app import App

_SWEEP = 0.1
_BEAT = 1.0
_FIRST_BEAT = 0.3
# Keys looked at a sweep: well under a millisecond.
_SWEEP_KEYS = 32_768


@dataclass
class _Held:
    """The pieces of a batch that have come in."""

    pieces: int
    count: int = 0
    views: dict[str, list[Piece]] = field(default_factory=dict)


class ShardEngine:
    """Keeps the shards of one worker.

    Args:
        app: What is kept.
        lines: Of each view, the line of descent of its state.
        shards: How many virtual shards there are.
        store: Makes the store that this worker writes to, once there are machines.
        progress: How far all workers have come, as far as this process knows.
        alone: Whether this worker gets every piece of a batch, so that a batch can become visible as a whole.
    """

    def __init__(
        self,
        app: App,
        lines: Mapping[str, str],
        shards: int,
        store: Callable[[ShardEngine, str], OnlineStore],
        progress: Callable[[], Progress],
        alone: bool,
    ) -> None:
        self.app = app
        self.machines: dict[str, ShardedMachine] = {}
        self.streams = {name: StreamState() for name in app.streams}
        self.kept: set[tuple[str, int]] = set()
        self.store: OnlineStore | None = None
        self.saved_rows = 0
        self._lines = lines
        self._shards = shards
        self._make_store = store
        self._progress = progress
        self._alone = alone
        self._restored: dict[str, list[dict[str, Any]]] = {}
        self._held: dict[str, _Held] = {}
        self._written: list[Written] = []
        self._shares: dict[str, Callable[[int], Mapping[str, pl.DataFrame]]] = {}
        self._swept = time.monotonic()
        self._beaten = time.monotonic()

    # -- from the last checkpoint ----------------------------------------------------------------------------------

    def restore(self, state: dict[str, Any]) -> bool:
        """Takes a shard's saved state; False if it is of a line that is no longer gone on with."""
        if self._lines.get(state["view"]) != state["line"]:
            return False
        self._restored.setdefault(state["view"], []).append(state)
        self.kept.add((state["view"], state["shard"]))
        return True

    def open(self, opening: Opening) -> None:
        """Begins: all that was saved has been restored."""
        self._settle(opening.run)
        self._written.append(Written(opening.batch, 1))

    def _settle(self, run: str) -> None:
        """Makes the machines, and tells the store of them."""
        if self.store is not None:
            return
        for name, view in self.app.views.items():
            states = self._restored.get(name, [])
            stream = self.streams[view.stream]
            for state in states:
                stream.seq = max(stream.seq, state["seq"])
                stream.newest = _later(stream.newest, state["newest"])
            parts: dict[str, list[pl.DataFrame]] = {}
            for state in states:
                for part, data in state["parts"].items():
                    parts.setdefault(part, []).append(decode_frame(data))
            whole = {part: pl.concat(frames) for part, frames in parts.items()}
            newest = _later(stream.newest, self._progress().newest.get(view.stream))
            self.machines[name] = ShardedMachine(view, self._shards, whole, newest)
        self._restored.clear()
        self.store = self._make_store(self, run)
        # Rows are readable when all workers have said that theirs are there. Whoever knows how far all have come says
        # so at once, the others after it: nobody reads rows without knowing of when they are.
        self._beaten = time.monotonic() - _BEAT + _FIRST_BEAT

    # -- pieces ----------------------------------------------------------------------------------------------------

    def hold(self, piece: Piece) -> None:
        """Takes a piece in; it is merged together with the others of its batch."""
        self.kept.add((piece.view, piece.shard))
        held = self._held.setdefault(piece.batch, _Held(piece.pieces))
        held.count += 1
        held.views.setdefault(piece.view, []).append(piece)

    def write(self) -> list[Written]:
        """Merges what is held and makes it visible; says what has been written since this was last called."""
        self.flush(whole=self._alone)
        written, self._written = self._written, []
        return written

    def flush(self, whole: bool = False) -> None:
        """Merges the batches that are held, or only those that are here as a whole; none before the opening."""
        if self.store is None:
            return
        for batch in list(self._held):
            held = self._held[batch]
            if whole and held.count < held.pieces:
                return
            self._apply(held)
            del self._held[batch]
            self._written.append(Written(batch, held.count))

    def _apply(self, held: _Held) -> None:
        changed = uninterrupted(partial(self._merged, held))
        commits: list[Callable[[], object]] = [partial(machine.commit, prepared) for machine, prepared in changed]
        advanced: dict[str, Callable[[], object]] = {}
        for view, pieces in held.views.items():
            combined, stream = pieces[0].whole.combined, self.machines[view].view.stream
            if pieces[0].first is None and combined.newest is not None:
                state = self.streams[stream]
                newest = combined.newest if state.newest is None else max(state.newest, combined.newest)
                advanced[stream] = partial(state.advance, combined.rows, newest)
        commits += advanced.values()
        self._write(commits, lambda: (rows for machine, one in changed for rows in machine.rows(one)))

    def _merged(self, held: _Held) -> list[tuple[ShardedMachine, Prepared]]:
        changed = []
        for view, pieces in held.views.items():
            machine = self.machines[view]
            first = self.streams[machine.view.stream].seq if pieces[0].first is None else pieces[0].first
            changed.append((machine, machine.merge(_tables(pieces), first, pieces[0].whole.combined.newest)))
        return changed

    def _write(self, commits: list[Callable[[], object]], rows: Callable[[], Iterator[Rows]]) -> None:
        assert self.store is not None
        self._shares.clear()
        self.store.write(commits, rows, self._progress() if self.store.remote else Progress())

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """What is due now and then: saying that this worker lives, and letting go of what is too old to be read.

        Returns:
            Whether it has said so, with how far all have come.
        """
        now = time.monotonic()
        said = False
        if isinstance(self.store, RemoteStore) and now - self._beaten >= _BEAT:
            self._beaten = now
            said = self.store.beat(self._progress())
        self._sweep(now)
        return said

    def _sweep(self, now: float) -> None:
        if now - self._swept < _SWEEP or self.store is None:
            return
        self._swept = now
        wall = None if self.app.event_time else self.app.clock.now()
        retire: list[Callable[[], object]] = []
        gone: list[Rows] = []
        for machine in self.machines.values():
            moment = machine.newest if wall is None else wall
            if moment is None:
                continue
            expired = machine.expire(moment, self.app.streams[machine.view.stream].lateness, _SWEEP_KEYS)
            if any(len(run) for _, (run, _, _) in expired):
                if self.store.remote:
                    gone += machine.gone(expired)
                retire.append(partial(machine.retire, expired))
        if retire:
            self._write(retire, lambda: iter(gone))

    # -- to the next checkpoint ------------------------------------------------------------------------------------

    def save(self, view: str, shard: int) -> dict[str, Any]:
        """A shard's state, with all that was held merged into it."""
        self.flush()
        if view not in self._shares:
            self._shares[view] = self.machines[view].shares()
        share = self._shares[view](shard)
        self.saved_rows += sum(frame.height for frame in share.values())
        state = self.streams[self.machines[view].view.stream]
        return {
            "view": view,
            "line": self._lines[view],
            "shard": shard,
            "seq": state.seq,
            "newest": state.newest,
            "parts": {part: bytes(encode_frame(frame)) for part, frame in share.items() if frame.height},
        }


def _later(left: int | None, right: int | None) -> int | None:
    return right if left is None else left if right is None else max(left, right)


def _tables(pieces: list[Piece]) -> list[Partials]:
    """The partials of all pieces of one batch and view, by table."""
    by_whole: dict[int, list[Piece]] = {}
    for piece in pieces:
        by_whole.setdefault(id(piece.whole), []).append(piece)
    parts = [
        [table.of([piece.shard for piece in same]) for table in same[0].whole.combined.tables]
        for same in by_whole.values()
    ]
    return [Partials.joined(of_table) for of_table in zip(*parts, strict=True)]
