"""The queue before the engine: bounded by rows, taken whole.

Whatever has gathered while the last batch was processed is the next batch: batches grow under load and shrink when
idle, with no setting. A full queue makes whoever fills it wait, back to the source.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.errors import ClosedError
from headrace.sources.base import Trace

MOST_ROWS = 1 << 20
BATCH_ROWS = 1 << 18


@dataclass(frozen=True)
class Work:
    """Valid rows of one stream, and where their source stands after them.

    Attributes:
        received: When they came in, by the app's clock, in microseconds.
        created: When the newest of them was written to its source, by the source's clock; of a push, `received`.
        trace: Where the n'th row came from, if the source can say.
        partitions: Which of its partitions each row came from, shape (rows,), if it has several.
    """

    stream: str
    frame: pl.DataFrame
    source: str
    position: Any
    received: int
    created: int
    trace: Callable[[int], Trace] | None = None
    partitions: npt.NDArray[np.int32] | None = None


class Inbox:
    """Work in order of arrival, from many threads to one."""

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._most = most_rows
        self._queue: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closed: str | None = None
        self.rows = 0
        self.put_count = 0

    def put(self, work: Work) -> int:
        """Waits for room; returns the number of this work (1, 2, …).

        Raises:
            ClosedError: The engine has stopped.
        """
        with self._changed:
            # One piece larger than the whole queue is let in when the queue is empty.
            while self._closed is None and self._queue and self.rows + work.frame.height > self._most:
                self._changed.wait()
            if self._closed is not None:
                raise ClosedError(self._closed)
            self._queue.append(work)
            self.rows += work.frame.height
            self.put_count += 1
            self._changed.notify_all()
            return self.put_count

    def take(self, timeout: float) -> list[Work]:
        """All that waits, up to a batch's rows; nothing if none came within `timeout` seconds."""
        with self._changed:
            if not self._queue and self._closed is None:
                self._changed.wait(timeout)
            taken: list[Work] = []
            rows = 0
            while self._queue and (not taken or rows + self._queue[0].frame.height <= BATCH_ROWS):
                taken.append(self._queue.popleft())
                rows += taken[-1].frame.height
            self.rows -= rows
            self._changed.notify_all()
            return taken

    def rest(self, timeout: float, enough: int) -> None:
        """Waits until `enough` rows are there, but no longer than `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.rows >= enough or self._closed is not None, timeout)

    def oldest(self) -> int | None:
        """When the newest row of the work that has waited longest was written, in microseconds."""
        with self._changed:
            return self._queue[0].created if self._queue else None

    @property
    def closed(self) -> bool:
        return self._closed is not None

    def close(self, reason: str = "the app is closed") -> None:
        """Nothing more is let in; what is there can still be taken."""
        with self._changed:
            self._closed = self._closed or reason
            self._changed.notify_all()
