"""What every route shares: the live app, the guard, bounded threads for what blocks, and one way to answer.

The event loop must never wait: a read of features takes microseconds and runs on it, everything that may block (a
push that is written to disk, a read that waits for a push, the dead letters) runs on a thread. Threads are bounded
per kind of work, so that reads that wait cannot keep pushes from happening (which is what they wait for), and the
queue in front of them is bounded too: past it a client is told to come again.
"""

from __future__ import annotations

import functools
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import anyio
import anyio.to_thread
import msgspec
from starlette.types import Scope, Send

from headrace.errors import StaleError
from headrace.ops.metrics import HttpTally
from headrace.ops.security import Guard, Refusal
from headrace.serving.body import Bodies
from headrace.serving.event_streams import EventStreams
from headrace.serving.options import ReadOptions
from headrace.serving.problems import (
    BUSY,
    FORBIDDEN,
    INTERNAL,
    UNAUTHORIZED,
    ProblemError,
    headers_of,
    kind_of,
    problem_of,
)

if TYPE_CHECKING:
    from headrace.serving.live import Live

log = logging.getLogger("headrace.http")

P = ParamSpec("P")
T = TypeVar("T")

JSON = (b"content-type", b"application/json")
# An answer is right at the moment it is given: nothing between here and the reader may keep it.
NO_STORE = (b"cache-control", b"no-store")
_QUEUED_PER_THREAD = 16


class Pool:
    """Threads for one kind of blocking work, and a bounded queue in front of them."""

    def __init__(self, threads: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._most = threads * (1 + _QUEUED_PER_THREAD)
        self._inside = 0

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns, run on a thread.

        Raises:
            ProblemError: The threads are taken and so is the queue.
        """
        if self._inside >= self._most:
            raise ProblemError(BUSY, f"expected fewer than {self._most} requests of this kind at once; retry shortly")
        self._inside += 1
        try:
            bound = functools.partial(work, *args, **kwargs)
            # A request that is given up (the server stops) leaves its thread to end by itself.
            return await anyio.to_thread.run_sync(bound, abandon_on_cancel=True, limiter=self._limiter)
        finally:
            self._inside -= 1


class Service:
    """The live app as HTTP sees it."""

    def __init__(self, live: Live, guard: Guard, max_body: int) -> None:
        self.live = live
        self.guard = guard
        self.bodies = Bodies(max_body)
        self.tally = HttpTally()
        self.pushes = Pool(16)
        self.waits = Pool(32)
        self.others = Pool(4)
        self.remote = Pool(16)
        self.searches = Pool(8)
        self.contexts = Pool(16)
        self.streams = EventStreams()
        self.encode = msgspec.json.Encoder().encode
        # The chat endpoint, once it has been asked; see `chat`.
        self.chat: Any = None

    async def close(self) -> None:
        """Let go of what belongs to this server's event loop."""
        if self.chat is not None:
            found, self.chat = self.chat, None
            await found.close()

    def check_access(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Let a request pass, or say why not.

        Raises:
            ProblemError: The key is missing or wrong, or the request comes from another site's page.
        """
        refusal = self.guard.refuses(headers)
        if refusal is not None:
            raise ProblemError(UNAUTHORIZED if refusal is Refusal.KEY else FORBIDDEN, refusal.value)

    async def read(self, work: Callable[..., T], options: ReadOptions, *args: Any) -> T:
        """Run a read: at once on the event loop, and on a thread if it has to wait, or to ask a store elsewhere.

        Args:
            work: `live.read`, or another that takes the same options.
            options: What the caller asked for.
            args: The view and the key or keys.
        """
        if not options.may_wait:
            if self.live.remote:
                return await self.remote.run(work, *args, **options.arguments(options.timeout))
            return work(*args, **options.arguments(options.timeout))
        if self.live.remote:
            return await self.waits.run(work, *args, **options.arguments(options.timeout))
        started = time.monotonic()
        try:
            # What has been waited for is mostly there already: most pushes are visible within milliseconds.
            return work(*args, **options.arguments(0.0))
        except StaleError:
            if options.timeout <= 0:
                raise

        def wait() -> T:
            # Time spent in the queue is time the caller has waited.
            left = options.timeout - (time.monotonic() - started)
            return work(*args, **options.arguments(round(max(left, 0.0), 3)))

        return await self.waits.run(wait)


async def answer(
    send: Send, body: bytes, status: int = 200, content_type: tuple[bytes, bytes] = JSON, more: Iterable[Any] = ()
) -> None:
    """Send one whole answer."""
    headers = [content_type, NO_STORE, (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_problem(scope: Scope, send: Send, error: Exception) -> int:
    """Send an error as problem details; a fault of ours goes to the log with its traceback, and not to the client.

    Returns:
        The status that was sent.
    """
    instance = str(scope.get("path", ""))
    kind = kind_of(error)
    if kind is INTERNAL:
        instance = uuid.uuid4().urn
        log.error("%s %s failed: %s", scope["method"], scope.get("path"), instance, exc_info=error)
    elif kind.status >= 500 and not isinstance(error, StaleError):
        log.warning("%s %s: %s", scope["method"], scope.get("path"), error)
    body = msgspec.json.encode(problem_of(error, instance))
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": kind.status, "headers": [*headers_of(error), length]})
    await send({"type": "http.response.body", "body": body})
    return kind.status
