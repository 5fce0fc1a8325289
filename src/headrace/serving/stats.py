"""What goes on in a running app, as plain data: for metrics, the status route and people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.runners.base import Figures, Runner, StreamFigures, ViewFigures
from headrace.runners.enriching.figures import EnrichmentFigures
from headrace.runners.library.figures import CollectionFigures, LibraryFigures, MemoryFigures, TableFigures

if TYPE_CHECKING:
    from headrace.serving.live import Live


@dataclass(frozen=True)
class StreamStats(StreamFigures):
    """A stream's counts, and the seconds between its newest event and now."""

    delay: float | None = None


@dataclass(frozen=True)
class Stats(Figures):
    """A moment's figures."""

    app: str = ""
    uptime: float = 0.0
    ready: bool = False
    problem: str | None = None
    lagging: bool = False
    streams: Mapping[str, StreamStats] = field(default_factory=dict)
    views: Mapping[str, ViewFigures] = field(default_factory=dict)
    tables: Mapping[str, TableFigures] = field(default_factory=dict)
    collections: Mapping[str, CollectionFigures] = field(default_factory=dict)
    memories: Mapping[str, MemoryFigures] = field(default_factory=dict)
    enrichments: Mapping[str, EnrichmentFigures] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    dead_letters_dropped: int = 0


def measure(live: Live, runner: Runner, library: LibraryFigures) -> Stats:
    """Reads the counters; none of it stops the engine."""
    figures = runner.figures()
    ready, problem = live.ready()
    streams = {name: _stream(live, name, one) for name, one in figures.streams.items()}
    return Stats(
        **{**vars(figures), "streams": streams},
        app=live.app.name,
        uptime=time.monotonic() - live.started,
        ready=ready,
        problem=None if ready else problem,
        lagging=live.lagging(),
        tables=library.tables,
        collections=library.collections,
        memories=library.memories,
        enrichments=live.enrichment_figures(),
        dead_letters=runner.dead_letters.count(),
        dead_letters_dropped=runner.dead_letters.dropped,
    )


def _stream(live: Live, name: str, figures: StreamFigures) -> StreamStats:
    delay = None
    if figures.newest is not None:
        delay = max(0.0, (live.now(live.app.streams[name]) - figures.newest) / 1e6)
    return StreamStats(**vars(figures), delay=delay)
