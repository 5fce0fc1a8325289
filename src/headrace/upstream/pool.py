"""The pool: which server, again when it fails, twice when it is slow, and whether it is well.

An attempt ends when an answer begins; until then another server may be asked instead, afterwards never. A failed
attempt is made again at once where another server is free, else after a backoff. A slow one is hedged: after the 95th
percentile of the waits of late a second server is asked too, the first that answers wins, and the other's connection is
closed. Both are paid from budgets, so that a failure of everything does not multiply itself.

A pool belongs to one event loop, which runs its health checks until `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from headrace.upstream.choose import choose
from headrace.upstream.client import Answer, Server, begin
from headrace.upstream.failures import UpstreamError
from headrace.upstream.retrying import Budget, backoff
from headrace.upstream.spec import Upstream
from headrace.upstream.wire import WireError

log = logging.getLogger("headrace.upstream")

ATTEMPTS = 4
HEALTH_SECONDS = 5.0
_HEALTH_TIMEOUT = 3.0


class Pool:
    """Model servers, of one or several models.

    Args:
        upstreams: At least one.
        hedge: Whether slow attempts are hedged.
        health: Seconds between two health checks; 0 for none.

    Raises:
        ConfigError: A key that an upstream names cannot be had.
    """

    def __init__(self, upstreams: Sequence[Upstream], *, hedge: bool = True, health: float = HEALTH_SECONDS) -> None:
        self.servers = [Server(one) for one in upstreams]
        self._hedge, self._health_every = hedge, health
        places = sum(one.concurrent for one in upstreams)
        # A server that dies with all its requests must not exhaust the budget at once.
        self._retries = Budget(most=max(100.0, 2.0 * places))
        self._hedges = Budget(most=10.0, share=0.05, trickle=0.0)
        self._changed = asyncio.Event()
        self._checks: asyncio.Task[None] | None = None
        self.hedged = self.retried = 0
        self.on_change: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin the health checks, on the running event loop; `open` does it too."""
        if self._checks is None and self._health_every:
            self._checks = asyncio.create_task(self._check_all(), name="headrace-upstream-health")

    def limit(self) -> int:
        """How many requests the servers that are up can take together."""
        now = time.monotonic()
        return sum(one.spec.concurrent for one in self.servers if one.up(now) or one.outstanding) or 1

    def group(self, model: str | None) -> list[Server]:
        """The servers for a model: those declared with it, else those that take any, else those of the first."""
        named = [one for one in self.servers if one.spec.model == model and model is not None]
        open_ = [one for one in self.servers if one.spec.model is None]
        return named or open_ or [one for one in self.servers if one.spec.model == self.servers[0].spec.model]

    async def open(
        self,
        body: Callable[[Server], bytes],
        model: str | None,
        *,
        stream: bool,
        prefix: bytes | None,
        deadline: float,
        attempts: int = ATTEMPTS,
    ) -> Answer:
        """Ask until an answer begins; `release` it in any case.

        Args:
            body: The request for a server (whose model differs).
            model: Whose servers.
            stream: Whether it asks for a stream.
            prefix: The request's stable beginning.
            deadline: By the event loop's clock.
            attempts: The most requests that are sent; hedges aside.

        Raises:
            UpstreamError: The last attempt's.
        """
        self.start()
        group = self.group(model)
        self._retries.request(time.monotonic())
        self._hedges.request(time.monotonic())
        tried: set[str] = set()
        for attempt in range(attempts):
            server = await self._free(group, prefix, tried, deadline)
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._attempt(server, group, body, stream, prefix)
            except TimeoutError:
                raise UpstreamError(
                    f"{server.name}: expected an answer to begin in the request's time, found none",
                    504,
                    again=False,
                    harmful=False,
                    code="upstream_timeout",
                ) from None
            except UpstreamError as error:
                self._news()
                tried.add(server.name)
                if not error.again or attempt + 1 == attempts or not self._retries.take(time.monotonic()):
                    raise
                self.retried += 1
                log.info("asked again: %s", error)
                await self._pause(group, tried, attempt, deadline, error)
        raise AssertionError("every last attempt returns or raises")

    async def release(self, answer: Answer) -> None:
        """An answer has been read, or is given up."""
        answer.close()
        self._news()

    async def close(self) -> None:
        """End the health checks and close all connections."""
        if self._checks is not None:
            self._checks.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._checks
        for server in self.servers:
            server.http.close()

    def figures(self) -> list[dict[str, Any]]:
        """Of each server, what is known of it."""
        now = time.monotonic()
        return [
            {
                "url": one.spec.url,
                "model": one.spec.model,
                "up": one.up(now),
                "healthy": one.healthy,
                "breaker": one.breaker.state(now),
                "outstanding": one.outstanding,
                "requests": one.requests,
                "failures": one.failures,
            }
            for one in self.servers
        ]

    async def _pause(
        self, group: list[Server], tried: set[str], attempt: int, deadline: float, error: UpstreamError
    ) -> None:
        now = time.monotonic()
        if any(one.free(now) and one.name not in tried for one in group):
            return
        delay = max(backoff(attempt, random.random()), error.retry_after or 0.0)
        if asyncio.get_running_loop().time() + delay >= deadline:
            raise error
        await asyncio.sleep(delay)

    async def _free(self, group: list[Server], prefix: bytes | None, tried: set[str], deadline: float) -> Server:
        """A server with room, waited for if all are full; an untried one if there is one."""
        loop = asyncio.get_running_loop()
        while True:
            now = time.monotonic()
            free = [one for one in group if one.free(now)]
            free = [one for one in free if one.name not in tried] or free
            if free:
                return free[choose(free, prefix)]
            up = [one for one in group if one.up(now)]
            waits = [max(one.breaker.opens_in(now), one.resting_until - now) for one in group if one.healthy]
            soonest = min(waits, default=HEALTH_SECONDS)
            left = deadline - loop.time()
            if left <= 0 or (not up and soonest > left):
                raise self._none(group, soonest)
            if (
                not up
                and not any(one.outstanding for one in group)
                and all(not one.healthy or one.breaker.state(now) == "open" for one in group)
            ):
                raise self._none(group, soonest)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, max(soonest, 0.05)) if not up else left):
                    await self._changed.wait()

    def _none(self, group: list[Server], soonest: float) -> UpstreamError:
        after = float(max(1, round(soonest)))
        return UpstreamError(
            f"expected one of {len(group)} upstreams to be up and free, found none; come again in {after:g} s",
            503,
            again=False,
            harmful=False,
            retry_after=after,
            code="no_upstream",
        )

    async def _attempt(
        self, server: Server, group: list[Server], body: Callable[[Server], bytes], stream: bool, prefix: bytes | None
    ) -> Answer:
        after = server.waits.hedge_after() if self._hedge and stream and len(group) > 1 else None
        if after is None:
            return await begin(server, body(server), stream=stream)
        first = asyncio.ensure_future(begin(server, body(server), stream=stream))
        running = {first}
        won: Answer | None = None
        try:
            await asyncio.wait(running, timeout=after)
            if not first.done() and (second := self._second(server, group, prefix)) is not None:
                running.add(asyncio.ensure_future(begin(second, body(second), stream=stream)))
            won = await _first(running)
        finally:
            await _end(running, won)
        return won

    def _second(self, server: Server, group: list[Server], prefix: bytes | None) -> Server | None:
        now = time.monotonic()
        others = [one for one in group if one is not server and one.free(now)]
        if not others or not self._hedges.take(now):
            return None
        self.hedged += 1
        return others[choose(others, prefix)]

    def _news(self) -> None:
        self._changed.set()
        self.on_change()

    async def _check_all(self) -> None:
        while True:
            await asyncio.gather(*(self._check(one) for one in self.servers))
            self._news()
            await asyncio.sleep(self._health_every)

    async def _check(self, server: Server) -> None:
        if server.spec.health is None:
            return
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT):
                status = await server.ask_health()
            # A server without that address, or that wants another key for it, answers all the same.
            well, why = status < 500, f"status {status}"
        except (WireError, OSError) as error:
            well, why = False, f"{type(error).__name__}: {error}"
        if well != server.healthy:
            log.warning("%s is %s (%s)", server.name, "well again" if well else "not well", why)
        server.healthy = well


async def _first(running: set[asyncio.Task[Answer]]) -> Answer:
    """The first answer of several; the last error if there is none. What is returned leaves the set."""
    waiting = set(running)
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                running.discard(task)
                return task.result()
        if not waiting:
            raise next(error for task in done if (error := task.exception()) is not None)


async def _end(running: set[asyncio.Task[Answer]], won: Answer | None) -> None:
    """Cancel what still runs, and close what has begun all the same.

    An answer may begin in the very moment in which it is given up, and who waits here may be given up too; so what is
    left over closes itself as it ends, whether somebody waits for that or not.
    """
    for task in running:
        task.cancel()
        task.add_done_callback(_close)
    try:
        if running:
            await asyncio.wait(running)
    except BaseException:
        if won is not None:
            won.close()
        raise


def _close(task: asyncio.Task[Answer]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
