"""What is between a thread that keeps a connection and the thread that reads: a bounded queue of pieces.

A client that waits for its server cannot be told to stop at once, and a reader has to be. So the connection has a
thread of its own, and a read waits here: for a piece, for what went wrong, or for `close`, whichever comes first. What
is not read fills the queue, and `put` waits: so a slow reader slows the server down, and memory stays bounded.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

from headrace.errors import HeadraceError

T = TypeVar("T")

ITEMS = 1_000
BYTES = 16 << 20


class Handover(Generic[T]):
    """The queue, for one thread that puts and one that takes; any thread may close it.

    Args:
        items: How many changes may wait.
        size: How many bytes of them; a larger piece may be there alone.
    """

    def __init__(self, items: int = 4 * ITEMS, size: int = 2 * BYTES) -> None:
        self._most, self._most_bytes = items, size
        self._pieces: deque[tuple[T, int, int]] = deque()
        self._items = self._bytes = 0
        self._error: HeadraceError | None = None
        self._closed = False
        self._quiet = 0.0
        self._changed = threading.Condition()

    @property
    def closed(self) -> bool:
        """Whether nobody will take any more."""
        return self._closed

    @property
    def bytes(self) -> int:
        """How many bytes wait."""
        return self._bytes

    def put(self, piece: T, count: int, size: int, *, wait: bool = True) -> bool:
        """Adds a piece, once there is room; False if the queue was closed.

        Args:
            count: How many changes are in it.
            size: About how many bytes.
            wait: Whether to wait for room; without it, the queue may grow past its limits.
        """
        with self._changed:
            while wait and not self._closed and self._full(count, size):
                self._changed.wait()
            if self._closed:
                return False
            self._pieces.append((piece, count, size))
            self._items += count
            self._bytes += size
            self._changed.notify_all()
            return True

    def _full(self, count: int, size: int) -> bool:
        over = self._items + count > self._most or self._bytes + size > self._most_bytes
        return bool(self._pieces) and over

    def quiet(self, asked: float) -> None:
        """The server was asked at that moment of the monotonic clock, and had nothing."""
        with self._changed:
            self._quiet = asked
            self._changed.notify_all()

    def fail(self, error: HeadraceError) -> None:
        """Nothing more will be put, and why: told once, after what was put."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waiting."""
        with self._changed:
            self._closed = True
            self._pieces.clear()
            self._items = self._bytes = 0
            self._changed.notify_all()

    def take(self, timeout: float) -> list[T]:
        """As many pieces as make a batch, and none after `timeout` seconds without any.

        Raises:
            HeadraceError: What the other thread failed with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._error or self._closed, max(0.0, timeout))
            if not self._pieces and self._error is not None:
                error, self._error = self._error, None
                raise error
            taken: list[T] = []
            count = size = 0
            while self._pieces:
                piece, items, length = self._pieces[0]
                if taken and (count + items > ITEMS or size + length > BYTES):
                    break
                self._pieces.popleft()
                taken.append(piece)
                count, size = count + items, size + length
            self._items -= count
            self._bytes -= size
            self._changed.notify_all()
            return taken

    def is_quiet(self, patience: float) -> bool:
        """Whether a server that is asked from now on has nothing; False after so many seconds without an answer."""
        asked = time.monotonic()

        def told() -> bool:
            return bool(self._pieces) or self._error is not None or self._closed or self._quiet >= asked

        with self._changed:
            self._changed.wait_for(told, patience)
            return not self._pieces and self._error is None and not self._closed and self._quiet >= asked
