"""Checkpoints: the rows changed since the last one, with the positions they stand for, written beside the engine.

The engine copies the changed rows between two batches; a thread of its own writes them. A checkpoint that could not be
written is made good by a whole one, and until then the push log keeps what it would have covered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import StorageError
from headrace.features.layout import TILE
from headrace.features.machine import ViewMachine
from headrace.stores.checkpoint import Checkpoint, Part
from headrace.stores.journal import Journal
from headrace.stores.log import PushLog

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.runners.progress import StreamState

logger = logging.getLogger("headrace")


@dataclass
class Restored:
    """What the last checkpoint holds for the app as it is now."""

    positions: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    parts: dict[str, pl.DataFrame] = field(default_factory=dict)
    lineage: dict[str, str] = field(default_factory=dict)  # by view: which line of state the parts go on
    backfill: set[str] = field(default_factory=set)  # views to be made anew from the push log
    dropped: tuple[str, ...] = ()  # stored parts that no view continues


def restore(app: App, journal: Journal | None, log: PushLog) -> Restored:
    """Loads the last checkpoint.

    A view that is new, or whose declaration has changed, cannot go on from stored tiles: it is made anew from what the
    push log still holds, and a source all of whose views have changed is read again from its start.
    """
    checkpoint = None if journal is None else journal.load()
    if checkpoint is None:
        return Restored()
    meta = checkpoint.meta
    kept = {name for name, view in app.views.items() if meta["views"].get(name) == view.fingerprint()}
    parts = {
        view.part(table): checkpoint.parts[view.part(table)].frame
        for name, view in app.views.items()
        if name in kept
        for table in view.tables
        if view.part(table) in checkpoint.parts
    }
    stored = meta["positions"].get("push", 0)
    if log.position < stored:
        raise StorageError(
            f"the push log ends at position {log.position}, but the last checkpoint has seen {stored}: the end of the "
            "log is damaged or was removed; restore the directory from a backup, or begin a new one"
        )
    backfill = set(app.views) - kept
    positions, again = _positions(app, meta["positions"], kept)
    # A stream that is read again begins at its first event time, or all but its newest rows would count as late.
    streams = {name: (one["seq"], one["newest"]) for name, one in meta["streams"].items() if name not in again}
    if backfill and log.first > 1:
        logger.warning(
            "the views %s are new or have changed; of what was pushed, the log still holds only what came after "
            "position %d, so they begin there",
            ", ".join(sorted(backfill)),
            log.first - 1,
        )
    dropped = tuple(part for part in checkpoint.parts if part not in parts)
    lineage = {name: line for name, line in meta.get("lineage", {}).items() if name in kept}
    return Restored(positions, streams, parts, lineage, backfill, dropped)


def _positions(app: App, stored: Mapping[str, Any], kept: set[str]) -> tuple[dict[str, Any], set[str]]:
    """Where each source goes on, and the streams whose source begins again since their views are all new or changed."""
    positions, again = dict(stored), set()
    for stream in app.streams.values():
        views = [name for name, view in app.views.items() if view.stream == stream.name]
        if stream.url is None or not views or all(name in kept for name in views):
            continue
        source = stream.source().name
        if kept.intersection(views):
            logger.warning(
                "of the stream %r some views are new or have changed, others not: those begin where the source %s "
                "stands; for their past too, open the app on a new data directory",
                stream.name,
                source,
            )
        elif positions.pop(source, None) is not None:
            again.add(stream.name)
            logger.warning("all views of %r are new or have changed: %s is read again", stream.name, source)
    return positions, again


class Checkpointer:
    """Writes checkpoints of the machines to the journal."""

    def __init__(
        self,
        journal: Journal | None,
        app: App,
        log: PushLog,
        lineage: Mapping[str, str],
        dropped: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._lineage = dict(lineage)
        self._log = log
        self._journal = journal
        self._views = {name: view.fingerprint() for name, view in app.views.items()}
        self._whole = False
        self._dropped = dropped
        self._last_meta: dict[str, Any] | None = None
        self._writing: threading.Thread | None = None
        self.problem: str | None = None
        self.written = 0
        self.rows = 0
        self.last = time.monotonic()
        # How much of the push log nobody else needs, given what the checkpoints do not.
        self.floor: Callable[[int], int] = lambda upto: upto

    def begin(
        self, machines: Mapping[str, ViewMachine], seen: Mapping[str, Any], streams: Mapping[str, StreamState]
    ) -> None:
        """Copies what has changed and lets it be written; nothing if the last one is still being written."""
        if self._journal is None or (self._writing is not None and self._writing.is_alive()):
            return
        checkpoint = self._copy(machines, seen, streams)
        if checkpoint is not None:
            self._writing = threading.Thread(target=self._write, args=(checkpoint,), name="headrace-checkpoint")
            self._writing.start()

    def finish(
        self, machines: Mapping[str, ViewMachine], seen: Mapping[str, Any], streams: Mapping[str, StreamState]
    ) -> None:
        """Writes a last checkpoint and waits for it.

        Raises:
            StorageError: It could not be written; the push log and the sources still hold what it would have covered.
        """
        if self._journal is None:
            return
        if self._writing is not None:
            self._writing.join()
        checkpoint = self._copy(machines, seen, streams)
        if checkpoint is not None:
            self._write(checkpoint)
        if self.problem is not None:
            raise StorageError(self.problem)

    def close(self) -> None:
        if self._writing is not None:
            self._writing.join()
        if self._journal is not None:
            self._journal.close()

    def _copy(
        self, machines: Mapping[str, ViewMachine], seen: Mapping[str, Any], streams: Mapping[str, StreamState]
    ) -> Checkpoint | None:
        meta = {
            "app": self._app.name,
            "positions": dict(seen),
            "streams": {name: {"seq": state.seq, "newest": state.newest} for name, state in streams.items()},
            "views": self._views,
            "lineage": self._lineage,
        }
        if meta == self._last_meta and not self._whole:
            return None
        self._last_meta = meta
        whole, self._whole = self._whole, False
        parts: dict[str, Part] = {}
        for machine in machines.values():
            frames = machine.snapshot() if whole else machine.changed()
            if whole:
                machine.changed()
            for table in machine.view.tables:
                frame = frames[machine.view.part(table)]
                if whole or frame.height:
                    by = (*machine.view.keys, TILE)
                    now = self._now(streams[machine.view.stream])
                    keep = table.keep
                    slack = self._app.streams[machine.view.stream].lateness
                    before = None if keep is None or now is None else now - keep - slack
                    parts[machine.view.part(table)] = Part(frame, by, before)
        return Checkpoint(meta, parts, self._dropped)

    def _now(self, state: StreamState) -> int | None:
        return state.newest if self._app.event_time else self._app.clock.now()

    def _write(self, checkpoint: Checkpoint) -> None:
        assert self._journal is not None
        try:
            self._journal.append(checkpoint)
        except StorageError as error:
            logger.error("the checkpoint could not be written, the next will be a whole one: %s", error)
            self._whole = True
            self.problem = f"the last checkpoint could not be written: {error}"
            return
        self.problem = None
        self._dropped = ()
        self.written += 1
        self.rows += sum(part.frame.height for part in checkpoint.parts.values())
        self.last = time.monotonic()
        position = checkpoint.meta["positions"].get("push")
        if position is not None:
            self._log.truncate(self.floor(position))
