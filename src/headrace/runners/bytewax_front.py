"""Where input enters the dataflow: batches become partials and are cut by shard, on the worker that read them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from headrace.features.combine import Combiner
from headrace.features.layout import Array
from headrace.features.machine import Batch
from headrace.runners.bytewax_interrupt import uninterrupted
from headrace.runners.bytewax_messages import Arrival, Begun, Opening, Piece, StreamDone, Whole
from headrace.runners.inbox import Work
from headrace.runners.setaside import SetAside

if TYPE_CHECKING:
    from headrace.app import App

PROGRESS = "progress"
Item = tuple[str, Piece | Begun | Opening]
# Events of a batch whose freshness is measured, evenly spread over it.
_SAMPLE = 512
# For each worker, keys that are sent word of the start: that one of w workers has none of 64 w is out of the question.
_OPENINGS = 64


class Front:
    """Combines the arrivals of one worker.

    Args:
        app: What is kept.
        workers: How many there are.
        shards: How many virtual shards there are.
        keys: Under which key a view's shard is kept.
        setaside: Where rows go that views cannot use.
    """

    def __init__(
        self, app: App, workers: int, shards: int, keys: Callable[[str, int], str], setaside: SetAside
    ) -> None:
        self._app = app
        # Tells this worker's batches from all others'.
        self._name = uuid.uuid4().hex[:12]
        self._openings = 1 if workers == 1 else workers * _OPENINGS
        self._keys = keys
        self._setaside = setaside
        self._number = 0
        self._combiners = {name: Combiner(view, shards) for name, view in app.views.items()}

    def take(self, arrivals: Iterable[Arrival]) -> list[Item]:
        """What arrived together, under the keys that it goes to."""
        items: list[Item] = []
        together: list[Arrival] = []
        for arrival in arrivals:
            if arrival.only is None and not arrival.opens:
                together.append(arrival)
                continue
            # The first word, and what is read again for some views, are batches of their own; none passes another.
            items += self._batch(together) + self._batch([arrival])
            together = []
        return items + self._batch(together)

    def _batch(self, arrivals: Sequence[Arrival]) -> list[Item]:
        if not arrivals:
            return []
        only = arrivals[0].only
        by_stream: dict[str, list[tuple[Work, Array]]] = {}
        for arrival in arrivals:
            for work, now in zip(arrival.works, arrival.now, strict=True):
                if work.frame.height:
                    by_stream.setdefault(work.stream, []).append((work, now))
        streams: dict[str, StreamDone] = {}
        wholes: list[tuple[str, Whole]] = []
        for stream, brought in by_stream.items():
            works = [work for work, _ in brought]
            frame = works[0].frame if len(works) == 1 else pl.concat([work.frame for work in works])
            made = self._combine(stream, frame, np.concatenate([now for _, now in brought]), only)
            if only is None:
                refused = [whole.combined.refused for _, whole in made]
                late = self._setaside.refused(stream, works, frame, refused) if any(refused) else 0
                at = frame[self._app.streams[stream].schema.time].to_physical().to_numpy()
                sample = at[:: 1 + (len(at) - 1) // _SAMPLE].copy()
                streams[stream] = StreamDone(frame.height, late, int(at.max()), sample)
            wholes += made
        for arrival in arrivals:
            for stream, newest in arrival.newest.items():
                held = streams.get(stream, StreamDone(0, 0, newest, np.empty(0, np.int64)))
                streams[stream] = replace(held, newest=max(held.newest, newest))
        self._number += 1
        batch = f"{self._name}.{self._number}"
        first = None if only is None else arrivals[0].first
        shards = [(view, whole, shard) for view, whole in wholes for shard in whole.shards()]
        pieces: list[Item] = [
            (self._keys(view, shard), Piece(batch, len(shards), view, shard, whole, first))
            for view, whole, shard in shards
        ]
        if any(arrival.opens for arrival in arrivals):
            # Bytewax says of no key which worker has it: among so many, every worker has one.
            opening = Opening(batch, uuid.uuid4().hex)
            pieces += [(f"open/{number}", opening) for number in range(self._openings)]
        begun = Begun(batch, len(pieces), tuple(arrival.done for arrival in arrivals), streams)
        return [(PROGRESS, begun), *pieces]

    def _combine(
        self, stream: str, frame: pl.DataFrame, now: Array, only: frozenset[str] | None
    ) -> list[tuple[str, Whole]]:
        batch = Batch(frame, 0, now, self._app.streams[stream].lateness)
        return [
            (name, Whole(uninterrupted(partial(combiner.combine, batch))))
            for name, combiner in self._combiners.items()
            if combiner.view.stream == stream and (only is None or name in only)
        ]
