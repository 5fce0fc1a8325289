"""Who may begin: a bounded queue with priorities, in which nobody waits in vain.

As many requests are inside as the servers can take; others wait in order of priority, then of arrival. A request is
turned away at once, with the seconds after which it may come again, when the queue is full, or when what stands before
it would take longer than it is willing to wait: an answer that comes too late has cost as much as one in time. How
long that takes is told from how long requests stayed of late (Little's law).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from headrace.upstream.failures import QueueFullError

_WEIGHT = 0.1  # of the newest stay in the mean


@dataclass(order=True)
class _Waiting:
    rank: tuple[int, int]
    turn: asyncio.Future[None] = field(compare=False)


class Admission:
    """The queue in front of a pool; for one event loop.

    Args:
        limit: How many may be inside now.
        queue: How many may wait.
        clock: Seconds.
    """

    def __init__(self, limit: Callable[[], int], queue: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._queue, self._clock = limit, queue, clock
        self._waiting: list[_Waiting] = []
        self._numbers = itertools.count()
        self._stay: float | None = None
        self.inside = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def enter(self, priority: int = 0, wait: float = 10.0) -> AsyncIterator[None]:
        """Wait for a place and keep it.

        Args:
            priority: Higher goes first.
            wait: The most seconds to wait.

        Raises:
            QueueFullError: The queue is full, or it would take, or took, longer than `wait`.
        """
        await self._enter(priority, wait)
        since = self._clock()
        try:
            yield
        finally:
            stay = self._clock() - since
            self._stay = stay if self._stay is None else self._stay + _WEIGHT * (stay - self._stay)
            self.inside -= 1
            self.turn()

    async def _enter(self, priority: int, wait: float) -> None:
        if not self._waiting and self.inside < self._limit():
            self.inside += 1
            return
        self._refuse_early(priority, wait)
        one = _Waiting((-priority, next(self._numbers)), asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, one)
        try:
            async with asyncio.timeout(wait):
                await one.turn
        except BaseException as error:
            if one.turn.done() and not one.turn.cancelled():
                self.inside -= 1  # the place came in the same moment
                self.turn()
            elif one in self._waiting:
                self._waiting.remove(one)
                heapq.heapify(self._waiting)
            if isinstance(error, TimeoutError):
                raise self._full(f"expected a place within {wait:g} s, found none") from None
            raise

    def _refuse_early(self, priority: int, wait: float) -> None:
        if len(self._waiting) >= self._queue:
            raise self._full(f"expected fewer than {self._queue} requests waiting, found the queue full")
        ahead = sum(1 for one in self._waiting if one.rank[0] <= -priority)
        expected = self.expected(ahead)
        if expected > wait:
            raise self._full(f"expected a place within {wait:g} s, found {ahead} requests ahead ({expected:.1f} s)")

    def expected(self, ahead: int) -> float:
        """Seconds until a place is free for a request with so many ahead of it, as far as one can tell.

        Half of the mean: who is turned away for it would not have made it with luck, either.
        """
        return 0.0 if self._stay is None else (ahead + 1) * self._stay / max(1, self._limit()) / 2

    def _full(self, why: str) -> QueueFullError:
        after = float(max(1, math.ceil(self.expected(len(self._waiting)))))
        return QueueFullError(f"{why}; come again in {after:g} s", after)

    def turn(self) -> None:
        """Let in who waits, as far as there is room; called by itself, and when the limit has grown."""
        while self._waiting and self.inside < self._limit():
            one = heapq.heappop(self._waiting)
            if not one.turn.done():
                self.inside += 1
                one.turn.set_result(None)
