"""What Bytewax reads from: lanes of every stream's source and of the push log, and a tick for every worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bytewax.inputs import DynamicSource, FixedPartitionedSource, StatelessSourcePartition

from headrace.runners.bytewax_lane import Lane
from headrace.runners.bytewax_messages import Arrival
from headrace.runners.bytewax_push import PUSH, PushLane
from headrace.runners.bytewax_reading import Reading, SourceLane
from headrace.sources.base import Divisible, Source

if TYPE_CHECKING:
    from headrace.runners.bytewax_site import Site

_TICK = timedelta(milliseconds=100)


class Ticks(DynamicSource[Arrival]):
    """Nothing ever comes of it, but every worker has one: what is due now and then is done when it is asked."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSourcePartition[Arrival]:  # noqa: ARG002
        self._site.arrive(worker_index, worker_count)
        return _Tick(self._site)


class _Tick(StatelessSourcePartition[Arrival]):
    def __init__(self, site: Site) -> None:
        self._site = site

    def next_batch(self) -> list[Arrival]:
        with self._site.explained():
            worker = self._site.here()
            if worker.engine.tick() and worker.counts:
                self._site.tracker.tell()
        return []

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + _TICK


class Lanes(FixedPartitionedSource[Arrival, dict[str, Any]]):
    """All lanes of an app, under names that never change."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._whole: dict[str, Reading] = {}
        self._sources: dict[str, Source] = {
            stream.name: stream.source() for stream in site.app.streams.values() if stream.url is not None
        }

    def list_parts(self) -> list[str]:
        names = [] if self._site.log is None else [PUSH]
        for stream, source in self._sources.items():
            count = self._site.lineage.lanes if isinstance(source, Divisible) else 1
            names += [f"{stream}/{number}" for number in range(count)]
        self._site.sources = [source.name for source in self._sources.values()]
        self._site.expected = names
        return names

    def build_part(self, step_id: str, for_part: str, resume_state: dict[str, Any] | None) -> Lane:  # noqa: ARG002
        with self._site.explained():
            if for_part == PUSH:
                return PushLane(self._site, resume_state)
            stream, _, number = for_part.rpartition("/")
            return SourceLane(for_part, self._reading(stream, int(number)), resume_state)

    def _reading(self, stream: str, number: int) -> Reading:
        """What a lane is read with."""
        source, count = self._sources[stream], self._site.lineage.lanes
        declared = self._site.app.streams[stream]
        if not isinstance(source, Divisible):
            return Reading(self._site, declared, source, 1)
        if self._site.here().count > 1:
            return Reading(self._site, declared, source.lanes(count)[number], 1)
        if stream not in self._whole:
            self._whole[stream] = Reading(self._site, declared, source, count)
        return self._whole[stream]
