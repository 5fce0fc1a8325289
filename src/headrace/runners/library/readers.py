"""Who reads a collection, so that nothing is taken from an index while somebody may still be given it.

Each flip of the records has a number, the epoch. A search notes the epoch at its start; chunks that a flip removed are
dropped from the index once every search that began before that flip has ended.

Some writes change points in place (the columns that they are filtered by). A filtered search that ran beside such a
write might miss a document in both its states, so it is run again: the counter is that of a seqlock.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator


class Readers:
    """The searches that run, by the epoch at their start."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._active: Counter[int] = Counter()
        self._epoch = 0
        self._changing = False
        self._changes = 0

    @property
    def epoch(self) -> int:
        """How many flips there have been."""
        return self._epoch

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """For as long as the block takes, nothing that is alive now is dropped."""
        with self._lock:
            epoch = self._epoch
            self._active[epoch] += 1
        try:
            yield
        finally:
            with self._lock:
                self._active[epoch] -= 1
                if not self._active[epoch]:
                    del self._active[epoch]
                self._lock.notify_all()

    def flipped(self) -> int:
        """A flip is visible; returns its epoch."""
        with self._lock:
            self._epoch += 1
            return self._epoch

    def gone_before(self, epoch: int) -> bool:
        """Whether every search that began before that flip has ended."""
        with self._lock:
            return not self._active or min(self._active) >= epoch

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Points are changed in place and flipped inside the block."""
        with self._lock:
            self._changing = True
            self._changes += 1
        try:
            yield
        finally:
            with self._lock:
                self._changing = False
                self._lock.notify_all()

    def steady(self, timeout: float) -> int:
        """Waits until nothing is changed in place; the number of such changes so far."""
        with self._lock:
            self._lock.wait_for(lambda: not self._changing, timeout)
            return self._changes

    def unchanged(self, since: int) -> bool:
        """Whether nothing was changed in place since `steady` gave that number."""
        with self._lock:
            return not self._changing and self._changes == since
