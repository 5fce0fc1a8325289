"""The pool over real sockets: hedges, and what is left when it is closed."""

from __future__ import annotations

import asyncio

from scripted_upstream import STALL, ScriptedUpstream, text

from headrace.upstream.client import Answer, Server
from headrace.upstream.pool import Pool
from headrace.upstream.spec import Upstream


def body(_: Server) -> bytes:
    return b'{"stream": true, "messages": []}'


async def ask(pool: Pool, prefix: bytes) -> Answer:
    deadline = asyncio.get_running_loop().time() + 20
    return await pool.open(body, None, stream=True, prefix=prefix, deadline=deadline)


def test_a_slow_attempt_is_hedged_and_the_loser_is_closed() -> None:
    async def run(slow: ScriptedUpstream, quick: ScriptedUpstream) -> tuple[str, int]:
        pool = Pool([Upstream(slow.url), Upstream(quick.url)], health=0)
        for server in pool.servers:
            for _ in range(20):
                server.waits.add(0.01)
        asked = 0
        while not pool.hedged:
            asked += 1
            answer = await ask(pool, b"%d" % asked)
            said = []
            while came := await answer.events():
                said += [chunk for _, chunk in came]
            await pool.release(answer)
        await asyncio.to_thread(slow.gone.wait, 10)
        left = sum(one.outstanding for one in pool.servers)
        await pool.close()
        assert len(asyncio.all_tasks()) == 1
        return said[1]["choices"][0]["delta"]["content"], left

    with ScriptedUpstream([STALL]) as slow, ScriptedUpstream(text("quick")) as quick:
        assert asyncio.run(run(slow, quick)) == ("quick", 0)
        assert slow.gone.is_set()


def test_a_cancelled_attempt_leaves_neither_task_nor_place() -> None:
    async def run(slow: ScriptedUpstream) -> None:
        pool = Pool([Upstream(slow.url)], health=0)
        task = asyncio.create_task(ask(pool, b""))
        await asyncio.to_thread(slow.stalled.wait, 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(slow.gone.wait, 10)
        assert (pool.servers[0].outstanding, len(asyncio.all_tasks())) == (0, 1)
        await pool.close()

    with ScriptedUpstream([STALL]) as slow:
        asyncio.run(run(slow))
