"""The dataflow: lanes, shards as Bytewax's keyed state, and one place that knows what has been written.

    lanes ─► combine ─┬─ pieces ─► shards ─► write ─┐
                      └─ begun ─────────────────────┴─► progress

`shards` only takes pieces in: the worker's engine merges those of all its shards at once, when `write` or a snapshot
asks for it. Bytewax calls a key's snapshot when every piece of the epoch has come in and none of the next has, so what
it saves is the state at the lanes' saved positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from headrace.runners.bytewax_front import PROGRESS
from headrace.runners.bytewax_lanes import Lanes, Ticks
from headrace.runners.bytewax_messages import Arrival, Begun, Opening, Piece, Written
from headrace.runners.bytewax_site import Site

Keyed = tuple[str, Any]


def dataflow(site: Site) -> Dataflow:
    """The flow of an app, on what a process has."""
    flow = Dataflow("headrace")
    op.input("ticks", flow, Ticks(site))
    lanes = op.input("lanes", flow, Lanes(site))
    combined = op.flat_map_batch("combine", lanes, lambda arrivals: _combine(site, arrivals))
    parted = op.branch("parted", combined, lambda item: not isinstance(item[1], Begun))
    held = op.stateful_batch("shards", parted.trues, lambda state: ShardLogic(site, state))
    written = op.flat_map_batch("write", held, lambda marks: _write(site, marks))
    words = op.merge("words", written, parted.falses)
    done = op.stateful_batch("progress", words, lambda _: ProgressLogic(site))
    op.output("end", done, _End())
    return flow


def _combine(site: Site, arrivals: Sequence[Arrival]) -> Sequence[Keyed]:
    with site.explained():
        return site.here().front.take(arrivals)


def _write(site: Site, marks: Sequence[Keyed]) -> Sequence[Keyed]:  # noqa: ARG001 - that there are any is the message
    with site.explained():
        return [(PROGRESS, written) for written in site.here().engine.write()]


class ShardLogic(StatefulBatchLogic[Piece | Opening, int, Any]):
    """One shard of a view, as Bytewax sees it."""

    def __init__(self, site: Site, state: dict[str, Any] | None) -> None:
        self._site = site
        self._engine = site.here().engine
        self._name: tuple[str, int] | None = None
        self._stale = False
        if state is not None:
            with site.explained():
                self._stale = not self._engine.restore(state)
            self._name = (state["view"], state["shard"])

    def on_batch(self, pieces: list[Piece | Opening]) -> tuple[list[int], bool]:
        with self._site.explained():
            for piece in pieces:
                if isinstance(piece, Opening):
                    self._engine.open(piece)
                else:
                    self._name = (piece.view, piece.shard)
                    self._engine.hold(piece)
        return [len(pieces)], self.RETAIN if self._name else self.DISCARD

    def on_eof(self) -> tuple[list[int], bool]:
        return [], self.RETAIN

    def notify_at(self) -> datetime | None:
        # State of a line that is no longer gone on with: dropped from the recovery partitions too.
        return datetime.now(UTC) if self._stale else None

    def on_notify(self) -> tuple[list[int], bool]:
        return [], self.DISCARD if self._stale else self.RETAIN

    def snapshot(self) -> dict[str, Any] | None:
        if not self._site.saves or self._name is None:
            return None
        with self._site.explained():
            return self._engine.save(*self._name)


class ProgressLogic(StatefulBatchLogic[Begun | Written, Any, None]):
    """Hears of every batch. It saves nothing: at the end of an epoch no batch is on its way."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_batch(self, words: list[Begun | Written]) -> tuple[list[Any], bool]:
        with self._site.explained():
            # All first: what is true after all of them is published once.
            changed = [self._site.tracker.take(word) for word in words]
            if True in changed and self._site.published():
                self._site.tracker.tell()
        return [], self.RETAIN

    def snapshot(self) -> None:
        return None


class _Nothing(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        """Takes what never comes."""


class _End(DynamicSink[Any]):
    """Bytewax wants an output; all that this dataflow says it has said on the way."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Nothing:  # noqa: ARG002
        return _Nothing()
