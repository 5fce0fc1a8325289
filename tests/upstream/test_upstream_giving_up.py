"""Given up at any moment, an attempt leaves no place taken, no task and no connection that nobody holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from scripted_upstream import STALL, Raw, ScriptedUpstream, text

from headrace.upstream.client import Answer, Server, begin
from headrace.upstream.failures import UpstreamError
from headrace.upstream.pool import Pool, _end, _first
from headrace.upstream.spec import Upstream

# Turns of the event loop after which an attempt is given up: more than one takes from its beginning to its answer.
TURNS = range(0, 48)


def body(_: Server) -> bytes:
    return b'{"stream": true, "messages": []}'


async def ask(pool: Pool, seconds: float = 20.0) -> Answer:
    deadline = asyncio.get_running_loop().time() + seconds
    return await pool.open(body, None, stream=True, prefix=b"", deadline=deadline)


async def nothing_is_left(pool: Pool) -> None:
    """Every connection is idle or gone, and every place is free."""
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > 1 or any(
            len(one.http.connections) != len(one.http._idle) for one in pool.servers
        ):
            await asyncio.sleep(0.001)
    assert [one.outstanding for one in pool.servers] == [0] * len(pool.servers)


async def give_up_at_every_turn(pool: Pool, give_up: Callable[[asyncio.Task[Answer]], Awaitable[None]]) -> None:
    for turns in TURNS:
        task = asyncio.create_task(ask(pool))
        for _ in range(turns):
            await asyncio.sleep(0)
        await give_up(task)
        [found] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(found, Answer):
            await pool.release(found)
        await nothing_is_left(pool)
    await pool.close()


async def once(task: asyncio.Task[Answer]) -> None:
    task.cancel()


async def twice(task: asyncio.Task[Answer]) -> None:
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()


@pytest.mark.parametrize("give_up", [once, twice])
def test_a_cancel_at_any_turn_leaves_nothing(give_up: Callable[[asyncio.Task[Answer]], Awaitable[None]]) -> None:
    with ScriptedUpstream(text("yes")) as upstream:
        asyncio.run(give_up_at_every_turn(_pool(upstream), give_up))


@pytest.mark.parametrize("give_up", [once, twice])
def test_a_cancel_at_any_turn_of_a_hedge_leaves_nothing(
    give_up: Callable[[asyncio.Task[Answer]], Awaitable[None]],
) -> None:
    async def run(one: ScriptedUpstream, other: ScriptedUpstream) -> None:
        pool = _pool(one, other)
        for server in pool.servers:
            server.waits.hedge_after = lambda: 0.0  # type: ignore[method-assign]
        pool._hedges._most = pool._hedges._left = 1e9
        await give_up_at_every_turn(pool, give_up)
        assert pool.hedged

    with ScriptedUpstream(text("yes")) as one, ScriptedUpstream(text("too")) as other:
        asyncio.run(run(one, other))


def test_two_that_answer_in_the_same_turn_leave_one() -> None:
    """The loser's answer has begun when the winner is taken: it is closed all the same."""

    async def run(one: ScriptedUpstream, other: ScriptedUpstream) -> None:
        pool = _pool(one, other)
        answers = [await _begun(server) for server in pool.servers]

        async def at_once(answer: Answer) -> Answer:
            return answer

        running = {asyncio.ensure_future(at_once(answer)) for answer in answers}
        await asyncio.wait(running)
        won = await _first(running)
        await _end(running, won)
        assert sorted(one.outstanding for one in pool.servers) == [0, 1]
        won.close()
        await nothing_is_left(pool)
        await pool.close()

    with ScriptedUpstream(text("yes")) as one, ScriptedUpstream(text("too")) as other:
        asyncio.run(run(one, other))


@pytest.mark.parametrize("turns", range(0, 40, 3))
def test_a_deadline_in_the_moment_of_the_answer_returns_it_or_closes_it(turns: int) -> None:
    """The deadline fires at a turn of the loop, whatever the clock says: also in the one in which the answer is won."""

    async def run(upstream: ScriptedUpstream) -> None:
        pool, loop = _pool(upstream), asyncio.get_running_loop()
        late = 0.0
        real = loop.time
        loop.time = lambda: real() + late  # type: ignore[method-assign]
        task = asyncio.create_task(ask(pool, 60.0))
        for _ in range(turns):
            await asyncio.sleep(0)
        late = 100.0
        [found] = await asyncio.gather(task, return_exceptions=True)
        late = 0.0
        if isinstance(found, Answer):
            await pool.release(found)
        else:
            assert isinstance(found, UpstreamError)
            assert found.status == 504
        await nothing_is_left(pool)
        await pool.close()

    with ScriptedUpstream(text("yes")) as upstream:
        asyncio.run(run(upstream))


@pytest.mark.parametrize(
    "said",
    [
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\ndata:",
        b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_bytes_that_are_no_answer_are_an_error_that_leaves_nothing(said: bytes) -> None:
    async def run(upstream: ScriptedUpstream) -> None:
        pool = _pool(upstream)
        with pytest.raises(UpstreamError, match="expected"):
            await ask(pool, 10.0)
        await nothing_is_left(pool)
        await pool.close()

    with ScriptedUpstream([Raw(said)]) as upstream:
        asyncio.run(run(upstream))


def test_a_stream_that_ends_with_its_connection_is_whole() -> None:
    said = b'HTTP/1.0 200 OK\r\n\r\ndata: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'

    async def run(upstream: ScriptedUpstream) -> int:
        pool = _pool(upstream)
        answer = await ask(pool)
        count = await _read(answer)
        await pool.release(answer)
        await nothing_is_left(pool)
        return count

    with ScriptedUpstream([Raw(said)]) as upstream:
        assert asyncio.run(run(upstream)) == 1


def test_a_connection_is_used_again_and_one_that_was_closed_meanwhile_is_no_failure() -> None:
    async def run(upstream: ScriptedUpstream) -> tuple[int, int]:
        pool = _pool(upstream)
        server = pool.servers[0]
        seen = set()
        for number in range(6):
            answer = await ask(pool)
            seen |= server.http.connections
            await _read(answer)
            await pool.release(answer)
            await nothing_is_left(pool)
            if number == 2:
                upstream.drop()
        await pool.close()
        return len(seen), server.failures

    with ScriptedUpstream(text("yes")) as upstream:
        assert asyncio.run(run(upstream)) == (2, 0)


def test_a_reader_that_takes_his_time_is_not_the_servers_fault() -> None:
    """The pause between two chunks is the server's only while it is waited for."""

    async def run(upstream: ScriptedUpstream) -> None:
        pool = Pool([Upstream(upstream.url, between=0.05)], health=0)
        answer = await ask(pool)
        assert await answer.events()
        await asyncio.sleep(0.2)
        await _read(answer)
        await pool.release(answer)
        await pool.close()

    with ScriptedUpstream(text("yes")) as upstream:
        asyncio.run(run(upstream))


def test_a_stall_is_told_after_its_pause() -> None:
    async def run(upstream: ScriptedUpstream) -> None:
        pool = Pool([Upstream(upstream.url, between=0.05)], health=0)
        answer = await ask(pool)
        with pytest.raises(UpstreamError, match="the next part of its answer within"):
            await _read(answer)
        await pool.release(answer)
        await nothing_is_left(pool)
        await pool.close()

    with ScriptedUpstream([*text("yes")[:2], STALL]) as upstream:
        asyncio.run(run(upstream))


async def _begun(server: Server) -> Answer:
    return await begin(server, body(server), stream=True)


async def _read(answer: Answer) -> int:
    count = 0
    while came := await answer.events():
        count += len(came)
    return count


def _pool(*upstreams: ScriptedUpstream) -> Pool:
    return Pool([Upstream(one.url) for one in upstreams], health=0)
