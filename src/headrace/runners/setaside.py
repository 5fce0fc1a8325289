"""What could not be used: counted by stream, and kept as dead letters with the reason and the original bytes."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.errors import StorageError
from headrace.features.machine import Refused
from headrace.formats.written import lines
from headrace.runners.base import PUSH
from headrace.runners.inbox import Work
from headrace.schema import Reject
from headrace.sources.base import Letter, Writer
from headrace.stores.dead_letters import DeadLetters

if TYPE_CHECKING:
    from headrace.app import Stream

logger = logging.getLogger("headrace")


class SetAside:
    """Writes dead letters for the runner.

    Args:
        letters: Where they are kept.
        now: The app's clock.
        streams: The app's, by name.
    """

    def __init__(
        self, letters: DeadLetters, now: Callable[[], int], streams: Mapping[str, Stream] | None = None
    ) -> None:
        self._streams = streams or {}
        # Old events of sources, in order, that were past every window when they were read.
        self.expired: Counter[str] = Counter()
        self._letters = letters
        self._now = now
        self._lock = threading.Lock()
        self.rejected_rows: Counter[str] = Counter()
        self.lost = 0
        # Where a stream's letters go besides: the writer of its source, which knows whether there is such a place.
        self.writers: dict[str, Writer] = {}

    def rejected(self, stream: str, source: str, rejects: Sequence[Reject], position: Any | None = None) -> None:
        """Rows that are not what the stream's model says; those of a source that can be read again, with where."""
        with self._lock:
            self.rejected_rows[stream] += len(rejects)
        once = None if position is None else f"rejected {source} {_digest(position)}"
        self._keep(stream, source, [(reject.reason, reject.raw) for reject in rejects], once)

    def traced(self, stream: str, letters: Sequence[Letter], why: str) -> None:
        """Inputs whose origin is known: kept once however often they are read again.

        Args:
            why: "rejected", of what is not as the stream's model says, or "refused", of what views cannot use.
        """
        if why == "rejected":
            with self._lock:
                self.rejected_rows[stream] += len(letters)
        rows = [
            (one.trace.origin, one.reason, one.trace.raw, f"{stream}/{why} {one.trace.origin} {_digest(one.reason)}")
            for one in letters
        ]
        try:
            self._letters.add_each(stream, self._now(), rows)
        except StorageError as error:
            self._cannot(stream, len(rows), error)
        writer = self.writers.get(stream)
        if writer is not None:
            try:
                writer.set_aside(letters)
            except StorageError as error:
                logger.error("%d dead letters of %s were not written to its source's: %s", len(letters), stream, error)

    def refused(self, stream: str, works: Sequence[Work], frame: pl.DataFrame, by_view: list[list[Refused]]) -> int:
        """Valid rows that views could not use; returns how many are late for every view.

        A row that a view's expressions fail on, or that has no key for a view, is always set aside; one that is past
        all windows of every view if it was pushed, or came out of its source's order by more than the stream's
        lateness. Otherwise a source has been read from long ago, and it is history: that is only counted.
        """
        if not any(by_view):
            return 0
        late = np.ones(frame.height, bool)
        reasons: list[tuple[int, str]] = []
        for of_view in by_view:
            of_this = np.zeros(frame.height, bool)
            for refused in of_view:
                if refused.late:
                    of_this[refused.rows] = True
                else:
                    reasons += [(int(row), refused.reason) for row in refused.rows]
            late &= of_this
        reason = "too late: older than the longest window of every view"
        if late.any():
            history = late & self._in_order(stream, works, frame)
            late &= ~history
            self.expired[stream] += int(history.sum())
        reasons += [(int(row), reason) for row in np.flatnonzero(late)]
        if reasons:
            rows = frame[[row for row, _ in reasons]]
            raws = self._lines(stream, rows)
            ends = np.cumsum([work.frame.height for work in works])
            for number, work in enumerate(works):
                start = int(ends[number]) - work.frame.height
                here = [
                    (row - start, why, raw)
                    for (row, why), raw in zip(reasons, raws, strict=True)
                    if start <= row < int(ends[number])
                ]
                if here and work.trace is not None:
                    traces = [(why, work.trace(row), raw) for row, why, raw in here]
                    self.traced(
                        stream, [Letter(why, replace(t, raw=t.raw or raw)) for why, t, raw in traces], "refused"
                    )
                elif here:
                    # A crash may replay this work; what it set aside is then there already.
                    letters = [(why, raw) for _, why, raw in here]
                    self._keep(stream, work.source, letters, f"refused {work.source} {_digest(work.position)}")
        return int(late.sum())

    def _lines(self, stream: str, rows: pl.DataFrame) -> list[bytes]:
        declared = self._streams.get(stream)
        return rows.write_ndjson().encode().splitlines() if declared is None else lines(declared.schema, rows)

    def _in_order(self, stream: str, works: Sequence[Work], frame: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """Which rows came from a source and are no older than those before them in their partition, by its lateness."""
        ordered = np.zeros(frame.height, bool)
        declared = self._streams.get(stream)
        if declared is None:
            return ordered
        at = frame[declared.schema.time].to_physical().to_numpy()
        end = 0
        for work in works:
            start, end = end, end + work.frame.height
            if work.source == PUSH:
                continue
            here = at[start:end]
            partitions = np.zeros(len(here), np.int32) if work.partitions is None else work.partitions
            for partition in np.unique(partitions):
                rows = np.flatnonzero(partitions == partition)
                ordered[start + rows] = here[rows] >= np.maximum.accumulate(here[rows]) - declared.lateness
        return ordered

    def _keep(self, stream: str, source: str, letters: list[tuple[str, bytes]], once: str | None) -> None:
        try:
            self._letters.add(stream, source, self._now(), letters, once)
        except StorageError as error:
            self._cannot(stream, len(letters), error)

    def _cannot(self, stream: str, letters: int, error: StorageError) -> None:
        # Input goes on when the letters' disk is full; what cannot be kept is counted and logged.
        with self._lock:
            self.lost += letters
        logger.error("%d dead letters of %s could not be kept: %s", letters, stream, error)


def _digest(position: Any) -> str:
    """A position as short text; equal positions have equal digests."""
    return hashlib.blake2b(json.dumps(position, sort_keys=True).encode(), digest_size=16).hexdigest()
