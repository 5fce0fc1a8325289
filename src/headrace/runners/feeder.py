"""One source, read and decoded in threads of its own, so that reading, decoding and processing overlap.

Both hand-overs are bounded: a slow engine slows the decoder, and a slow decoder the reader.
"""

from __future__ import annotations

import logging
import math
import threading
from queue import Empty, Full, Queue
from typing import Any

from headrace.errors import ClosedError, StorageError
from headrace.runners.inbox import Inbox
from headrace.runners.intake import Intake
from headrace.sources.base import Chunk, EndOfSource, Reader, Source, Tracked

logger = logging.getLogger("headrace")
# Chunks read ahead of the decoder.
_AHEAD = 4
_POLL = 0.05
_LONGEST_BACKOFF = 10.0


class Feeder:
    """Moves a source's rows into the inbox until it ends or is closed.

    Args:
        stream: The stream's name.
        source: Where rows come from, and its key among the positions.
        intake: What makes valid rows of what it brings.
        inbox: Where they go.
    """

    def __init__(self, stream: str, source: Source, intake: Intake, inbox: Inbox) -> None:
        self.stream = stream
        self.source = source
        self._intake = intake
        self._inbox = inbox
        self._chunks: Queue[Chunk | float] = Queue(_AHEAD)
        self._idle = threading.Condition()
        self._asked = 0.0
        self._answered = 0.0
        self._closing = threading.Event()
        self._reader: Reader | None = None
        self._tracked: Tracked | None = None
        self._threads: list[threading.Thread] = []
        self._created: int | None = None
        self.failure: str | None = None
        self.problem: str | None = None  # what is in the way for now; it is tried again
        self.finished = False
        self.rows = 0

    def start(self, position: Any | None) -> None:
        """Begins after a position of this source; None is its beginning."""
        self._reader = self.source.open(position)
        reader: object = self._reader
        self._tracked = reader if isinstance(reader, Tracked) else None
        for target, role in ((self._read, "read"), (self._decode, "decode")):
            thread = threading.Thread(target=target, name=f"headrace-{role}-{self.stream}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def caught_up(self, timeout: float | None) -> bool:
        """Waits until all that was in the source when this was called is in the inbox."""
        with self._idle:
            self._asked += 1
            wanted = self._asked
            done = self._idle.wait_for(lambda: self._answered >= wanted or self.failure is not None, timeout)
            return done and self.failure is None

    def lag(self) -> dict[str, int]:
        """Messages that each partition holds and that were not read, as last heard; nothing if it cannot be known."""
        return dict(self._tracked.lag()) if self._tracked is not None else {}

    def behind_since(self) -> int | None:
        """When that was written which was read last, in microseconds, if there is more to read; else None."""
        return self._created if any(self.lag().values()) else None

    def close(self) -> None:
        """Stops reading; what has been read but not taken in is read again from the last checkpoint."""
        self._closing.set()
        if self._reader is not None:
            self._reader.close()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        assert self._reader is not None
        backoff = _POLL
        while not self._closing.is_set():
            asked = self._asked
            try:
                chunk = self._reader.read(_POLL)
                at_end = chunk is not None or asked <= self._answered or self._at_end()
                backoff = _POLL
                self.problem = None
            except EndOfSource:
                self._hand_over(math.inf)
                return
            except ClosedError:
                return
            except StorageError as error:
                backoff = self._back_off(error, backoff)
                continue
            except Exception as error:
                logger.exception("%s: reading stopped", self.source.name)
                self._fail(f"{type(error).__name__}: {error}")
                return
            if chunk is not None:
                self._hand_over(chunk)
            elif asked > self._answered and at_end:
                self._hand_over(asked)

    def _at_end(self) -> bool:
        return self._tracked.at_end() if self._tracked is not None else True

    def _back_off(self, error: StorageError, wait: float) -> float:
        """Waits, and returns how long to wait the next time."""
        self.problem = str(error)
        logger.warning("%s: %s; trying again in %.1f s", self.source.name, error, wait)
        self._closing.wait(wait)
        return min(wait * 2, _LONGEST_BACKOFF)

    def _hand_over(self, item: Chunk | float) -> None:
        while not self._closing.is_set():
            try:
                self._chunks.put(item, timeout=_POLL)
            except Full:
                continue
            return

    def _decode(self) -> None:
        while True:
            item = self._next()
            if item is None:
                return
            if isinstance(item, float):
                with self._idle:
                    self._answered = max(self._answered, item)
                    self.finished = self.finished or item == math.inf
                    self._idle.notify_all()
                if item == math.inf:
                    return
                continue
            try:
                self._take_in(item)
            except ClosedError:
                return
            except Exception as error:
                logger.exception("%s: decoding stopped", self.source.name)
                self._fail(f"{type(error).__name__}: {error}")
                return

    def _next(self) -> Chunk | float | None:
        while not self._closing.is_set():
            try:
                return self._chunks.get(timeout=_POLL)
            except Empty:
                continue
        return None

    def _take_in(self, chunk: Chunk) -> None:
        backoff = _POLL
        while not self._closing.is_set():
            try:
                work = self._intake.take(chunk)
            except StorageError as error:
                backoff = self._back_off(error, backoff)
                continue
            self.problem = None
            self.rows += work.frame.height
            self._created = chunk.created
            self._inbox.put(work)
            return

    def _fail(self, reason: str) -> None:
        with self._idle:
            self.failure = reason
            self._idle.notify_all()
