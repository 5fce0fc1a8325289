"""What only the client for an event loop has: many calls at once, and calls that are given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from client_desk import paid, served
from scripted_server import EVENTS, GO, HOLD, ScriptedServer
from scripted_upstream import STALL, ScriptedUpstream, text

import headrace as hr
from headrace.serving.client_waiting import AsyncPull, Pull

MINUTE = 60.0
READY = b"event: ready\nid: hub-0\ndata: {}\n\n"


def test_many_calls_run_at_once_on_one_client(live: hr.Live, url: str) -> None:
    live.push("payment", [paid(float(number), f"u{number}") for number in range(200)])
    live.drain()

    async def talk() -> None:
        async with hr.connect_async(url) as remote:
            rows: list[Any] = await asyncio.gather(*(remote.read("spending", f"u{number}") for number in range(200)))
            assert [row.total_1h for row in rows] == [float(number) for number in range(200)]
            tokens = await asyncio.gather(*(remote.push("payment", paid(1.0, "all")) for _ in range(50)))
            row: Any = (await asyncio.gather(*(remote.read("spending", "all", after=one) for one in tokens)))[-1]
            assert row.total_1h == 50.0

    asyncio.run(talk())


def test_many_subscriptions_and_calls_share_one_client(live: hr.Live, url: str) -> None:
    async def follow(remote: hr.AsyncRemote, user: str) -> float:
        async with await remote.changes(view="spending", keys=[user]) as changes:
            await remote.push("payment", paid(7.0, user))
            async for change in changes:
                return float(change.data["row"].total_1h)
        return 0.0

    async def talk() -> list[float]:
        async with hr.connect_async(url) as remote:
            return await asyncio.gather(*(follow(remote, f"u{number}") for number in range(20)))

    assert asyncio.run(talk()) == [7.0] * 20


def test_a_call_that_is_cancelled_closes_its_socket() -> None:
    async def talk(server: ScriptedServer) -> None:
        async with hr.connect_async(server.url) as remote:
            call = asyncio.create_task(remote.tools())
            assert await asyncio.to_thread(server.held.wait, MINUTE)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(server.gone.wait, MINUTE)

    with ScriptedServer([HOLD]) as server:
        asyncio.run(talk(server))


def test_a_subscription_that_is_given_up_before_it_stands_closes_its_socket() -> None:
    async def talk(server: ScriptedServer) -> None:
        async with hr.connect_async(server.url) as remote:
            call = asyncio.create_task(remote.changes(table="note"))
            assert await asyncio.to_thread(server.held.wait, MINUTE)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(server.gone.wait, MINUTE)

    with ScriptedServer([EVENTS, HOLD]) as server:
        asyncio.run(talk(server))


def test_a_wait_for_a_change_can_be_given_up_and_none_is_missed_by_that() -> None:
    change = b'event: row\nid: hub-1\ndata: {"table":"note","key":"n1"}\n\n'

    async def talk(server: ScriptedServer) -> None:
        async with hr.connect_async(server.url) as remote, await remote.changes(table="note") as changes:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await changes.next()
            assert await changes.next(timeout=0.01) is None
            server.go.set()
            found = await changes.next(timeout=MINUTE)
            assert found is not None
            assert found.id == "hub-1"

    with ScriptedServer([EVENTS + READY, GO, change, HOLD]) as server:
        asyncio.run(talk(server))


def test_a_chat_that_is_cancelled_ends_the_models_work() -> None:
    async def talk(url: str, upstream: ScriptedUpstream) -> None:
        async with hr.connect_async(url) as remote:

            async def ask() -> None:
                async for _ in await remote.chat("hello", stream=True):
                    pass

            call = asyncio.create_task(ask())
            assert await asyncio.to_thread(upstream.stalled.wait, MINUTE)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(upstream.gone.wait, MINUTE)

    with ScriptedUpstream([*text("It is ")[:2], STALL]) as upstream, served(upstream) as url:
        asyncio.run(talk(url, upstream))


@pytest.mark.parametrize("steps", [[HOLD], [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[]", HOLD]])
def test_a_server_that_does_not_answer_in_time_is_a_remote_error(steps: list[bytes]) -> None:
    async def talk(url: str) -> None:
        async with hr.connect_async(url, timeout=0.05) as remote:
            with pytest.raises(hr.RemoteError, match=r"found none: \w+"):
                await remote.tools()

    with ScriptedServer(steps) as server:
        asyncio.run(talk(server.url))
        with hr.connect(server.url, timeout=0.05) as remote, pytest.raises(hr.RemoteError, match=r"found none: \w+"):
            remote.tools()
        assert server.gone.wait(MINUTE)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[]", b"SSH-2.0-x\r\n"])
def test_a_server_that_dies_in_the_middle_of_an_answer_is_a_remote_error(answer: bytes) -> None:
    async def talk(url: str) -> None:
        async with hr.connect_async(url) as remote:
            with pytest.raises(hr.RemoteError, match="expected an answer from") as raised:
                await remote.tools()
            assert raised.value.status == 0

    with ScriptedServer([answer]) as server:
        asyncio.run(talk(server.url))
        with hr.connect(server.url) as remote, pytest.raises(hr.RemoteError, match="expected an answer from"):
            remote.tools()


def test_a_closed_client_says_so(url: str) -> None:
    async def talk() -> None:
        remote = hr.connect_async(url)
        await remote.close()
        with pytest.raises(hr.RemoteError, match="found it closed"):
            await remote.tools()

    asyncio.run(talk())


def test_a_pull_raises_what_went_wrong_and_goes_on() -> None:
    answers = iter([1, ValueError("twice"), 3])

    def fetch() -> int:
        one = next(answers)
        if isinstance(one, ValueError):
            raise one
        return one

    async def fetch_async() -> int:
        return fetch()

    pull = Pull(fetch)
    assert pull.next(MINUTE) == 1
    with pytest.raises(ValueError, match="twice"):
        pull.next(MINUTE)
    pull.close()
    assert pull.next(MINUTE) is None

    async def talk() -> None:
        other = AsyncPull(fetch_async)
        assert await other.next(MINUTE) == 3
        await other.close()
        assert await other.next(None) is None

    asyncio.run(talk())
