"""One source, read and decoded in threads of its own, so that reading, decoding and processing overlap.

Both hand-overs are bounded: a slow engine slows the decoder, and a slow decoder the reader.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from queue import Empty, Full, Queue
from typing import Any

from headrace.errors import ClosedError, HeadraceError, StorageError
from headrace.formats import decode, decode_frame
from headrace.runners.inbox import Inbox, Work
from headrace.schema import Decoded, Reject, Schema
from headrace.sources.base import Chunk, EndOfSource, Reader, Source

logger = logging.getLogger("headrace")
# Chunks read ahead of the decoder.
_AHEAD = 4
_POLL = 0.05
_LONGEST_BACKOFF = 10.0


class Feeder:
    """Moves a source's rows into the inbox until it ends or is closed.

    Args:
        stream: The stream's name.
        schema: What rows must be.
        source: Where they come from, and its key among the positions.
        inbox: Where they go.
        now: The app's clock.
        rejected: Told of rows that cannot be used, with where they came from.
    """

    def __init__(
        self,
        stream: str,
        schema: Schema,
        source: Source,
        inbox: Inbox,
        now: Callable[[], int],
        rejected: Callable[[str, str, list[Reject], Any], None],
    ) -> None:
        self.stream = stream
        self.source = source
        self._schema = schema
        self._inbox = inbox
        self._now = now
        self._rejected = rejected
        self._chunks: Queue[Chunk | float] = Queue(_AHEAD)
        self._idle = threading.Condition()
        self._asked = 0.0
        self._answered = 0.0
        self._closing = threading.Event()
        self._reader: Reader | None = None
        self._threads: list[threading.Thread] = []
        self.failure: str | None = None
        self.finished = False
        self.rows = 0

    def start(self, position: Any | None) -> None:
        """Begins after a position of this source; None is its beginning."""
        self._reader = self.source.open(position)
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
                backoff = _POLL
            except EndOfSource:
                self._hand_over(math.inf)
                return
            except ClosedError:
                return
            except StorageError as error:
                logger.warning("%s: %s; trying again in %.1f s", self.source.name, error, backoff)
                self._closing.wait(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF)
                continue
            except Exception as error:
                logger.exception("%s: reading stopped", self.source.name)
                self._fail(f"{type(error).__name__}: {error}")
                return
            if chunk is not None:
                self._hand_over(chunk)
            elif asked > self._answered:
                self._hand_over(asked)

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
        decoded = self._decoded(chunk)
        rejects = [*decoded.rejects]
        rejects += [
            Reject(-1, f"{skipped.reason} ({skipped.path}, bytes {skipped.start} to {skipped.end})", skipped.raw)
            for skipped in chunk.skipped
        ]
        if rejects:
            self._rejected(self.stream, chunk.origin or self.source.name, rejects, chunk.position)
        self.rows += decoded.frame.height
        self._inbox.put(Work(self.stream, decoded.frame, self.source.name, chunk.position, self._now()))

    def _decoded(self, chunk: Chunk) -> Decoded:
        try:
            if chunk.frame is not None:
                return decode_frame(self._schema, chunk.frame)
            return decode(self._schema, chunk.data, chunk.format)
        except HeadraceError as error:
            # Nothing of the chunk can be used: it is set aside whole, and what follows goes on.
            return Decoded(self._schema.empty(), [Reject(0, str(error), chunk.data)])

    def _fail(self, reason: str) -> None:
        with self._idle:
            self.failure = reason
            self._idle.notify_all()
