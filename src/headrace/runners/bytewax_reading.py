"""A stream's source as lanes, and one reading for as many of them as a worker has.

The number of lanes is fixed, so that a saved position means the same whatever the number of workers. But a reader for
each costs more than one for all: eight consumers of a topic took a third more processor time than one. So a worker that
is alone reads the source undivided: one lane brings everything, and each saves where its own partitions stand.

That is exact because all lanes of a reading save one position for one epoch: whichever is asked first for the k'th time
fixes it, and the lane that brings waits until it has been asked for the k'th time itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.errors import StorageError
from headrace.runners.bytewax_lane import Lane
from headrace.runners.bytewax_messages import Arrival
from headrace.runners.feeder import Feeder
from headrace.runners.inbox import BATCH_ROWS, Inbox
from headrace.runners.intake import Intake
from headrace.sources.base import Source, Writable

if TYPE_CHECKING:
    from headrace.app import Stream
    from headrace.runners.bytewax_site import Site

logger = logging.getLogger("headrace")


class Reading:
    """One reader for some lanes of a stream.

    Args:
        site: The process.
        stream: What is read.
        source: Where from: what all the lanes have.
        lanes: How many there will be; reading begins when all have come.
    """

    def __init__(self, site: Site, stream: Stream, source: Source, lanes: int) -> None:
        self.site = site
        self.stream = stream
        self.source = source
        self.lines = [site.lineage.lines[name] for name, view in site.app.views.items() if view.stream == stream.name]
        self.ended = False
        self._expected = lanes
        self._lanes: list[SourceLane] = []
        self._fixed: dict[int, Mapping[str, Any] | None] = {}

    def join(self, lane: SourceLane) -> None:
        """Takes a lane in; the first is the one that brings what is read."""
        self._lanes.append(lane)
        if len(self._lanes) < self._expected:
            return
        first = self._lanes[0]
        for other in self._lanes[1:]:
            for stream, moment in other.newest.items():
                first.newest[stream] = max(moment, first.newest.get(stream, moment))
            if other.position is not None:
                first.position = {**(first.position or {}), **other.position}
        if isinstance(self.source, Writable) and self.stream.name not in self.site.setaside.writers:
            self.site.setaside.writers[self.stream.name] = self.source.writer(self.stream.schema)
        app = self.site.app
        intake = Intake(self.stream.name, self.stream.schema, self.source, self.site.setaside, app.clock.now)
        first.feeder = Feeder(self.stream.name, self.source, intake, first.inbox)
        first.feeder.start(first.position)

    @property
    def begun(self) -> bool:
        """Whether all lanes have come."""
        return len(self._lanes) == self._expected

    def brings(self, lane: SourceLane) -> bool:
        """Whether a lane is the one that brings, and may: not when others have saved this epoch and it has not."""
        return self.begun and lane is self._lanes[0] and lane.saved not in self._fixed

    def save(self, lane: SourceLane) -> Mapping[str, Any]:
        """What a lane has to save for the epoch that it ends."""
        if lane.saved not in self._fixed:
            self._fixed[lane.saved] = self._lanes[0].standing() if self.begun else None
        found = self._fixed[lane.saved]
        lane.saved += 1
        oldest = min(one.saved for one in self._lanes)
        self._fixed = {number: state for number, state in self._fixed.items() if number >= oldest}
        # Before the reading has begun, each stands where it stood.
        return lane.standing() if found is None else {**found, "position": self._own(lane, found["position"])}

    def _own(self, lane: SourceLane, position: Any) -> Any:
        """A position's partitions that are a lane's: of the others, another lane says where they stand."""
        if self._expected == 1 or position is None:
            return position
        mine = lane.number
        return {key: at for key, at in position.items() if not key.isdecimal() or int(key) % self._expected == mine}


class SourceLane(Lane):
    """A part of a stream's source.

    Attributes:
        number: Which of the stream's lanes: it has the partitions p with p % lanes == number.
        saved: How many epochs it has saved.
    """

    def __init__(self, name: str, reading: Reading, state: dict[str, Any] | None) -> None:
        state = _continued(reading, state)
        super().__init__(reading.site, name, reading.source.name, Inbox(BATCH_ROWS), state)
        self.number = int(name.rpartition("/")[2])
        self.saved = 0
        self._reading = reading
        reading.join(self)

    def more(self) -> list[Arrival] | None:
        if self.feeder is not None and self.feeder.failure is not None and self.site.log is None:
            # No one asks a cluster's process how it is: it ends, and says why.
            raise StorageError(f"the source {self.source} has stopped: {self.feeder.failure}")
        if not self._reading.brings(self):
            return None if self._reading.ended else []
        found = super().more()
        self._reading.ended = found is None
        return found

    def begun(self) -> bool:
        return self._reading.begun

    def snapshot(self) -> dict[str, Any]:
        return {**self._reading.save(self), "lines": self._reading.lines}


def _continued(reading: Reading, state: dict[str, Any] | None) -> dict[str, Any] | None:
    """A lane's saved state, if it can be gone on with: some view has seen what was read before."""
    name = reading.source.name
    if state is None or state["source"] != name:
        return None
    present, known = set(reading.lines), set(state["lines"])
    if present <= known:
        return state
    if present & known:
        logger.warning(
            "of the stream %r some views are new or have changed, others not: those begin where the source %s "
            "stands; for their past too, open the app on a new data directory",
            reading.stream.name,
            name,
        )
        return state
    logger.warning("all views of %r are new or have changed: %s is read again", reading.stream.name, name)
    return None
