"""What goes on in a running app, as plain data: for metrics, the status route and people."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.runners.local import LocalRunner
    from headrace.serving.live import Live


@dataclass(frozen=True)
class StreamStats:
    """Counts of rows since the start; times in seconds."""

    accepted: int
    processed: int
    rejected: int
    late: int
    batches: int
    newest: int | None  # event time, microseconds
    delay: float | None  # between the newest event and now


@dataclass(frozen=True)
class ViewStats:
    """What a view holds: live keys, (key, tile) rows, and bytes of its arrays."""

    keys: int
    tiles: int
    bytes: int


@dataclass(frozen=True)
class Stats:
    """A moment's figures."""

    app: str
    uptime: float
    ready: bool
    problem: str | None
    streams: dict[str, StreamStats] = field(default_factory=dict)
    views: dict[str, ViewStats] = field(default_factory=dict)
    queue_rows: int = 0
    cycles: int = 0
    dead_letters: dict[str, int] = field(default_factory=dict)
    dead_letters_dropped: int = 0
    checkpoints: int = 0
    checkpoint_rows: int = 0
    checkpoint_age: float | None = None


def measure(live: Live, runner: LocalRunner) -> Stats:
    """Reads the counters; none of it stops the engine."""
    app = live.app
    streams = {}
    for name, state in runner.streams.items():
        delay = None if state.newest is None else max(0.0, (live.now(app.streams[name]) - state.newest) / 1e6)
        streams[name] = StreamStats(
            accepted=runner.pushed[name] + runner.fed(name),
            processed=state.rows,
            rejected=runner.setaside.rejected_rows[name],
            late=state.late,
            batches=state.batches,
            newest=state.newest,
            delay=delay,
        )
    views = {
        name: ViewStats(
            machine.keys,
            sum(table.rows for table in machine.tables),
            sum(table.bytes for table in machine.tables),
        )
        for name, machine in runner.machines.items()
    }
    ready, problem = live.ready()
    writer = runner.checkpointer
    return Stats(
        app=app.name,
        uptime=time.monotonic() - live.started,
        ready=ready,
        problem=None if ready else problem,
        streams=streams,
        views=views,
        queue_rows=runner.inbox.rows,
        cycles=runner.cycles,
        dead_letters=runner.dead_letters.count(),
        dead_letters_dropped=runner.dead_letters.dropped,
        checkpoints=writer.written,
        checkpoint_rows=writer.rows,
        checkpoint_age=time.monotonic() - writer.last if writer.written else None,
    )
