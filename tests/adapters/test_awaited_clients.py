"""The adapters over `hr.connect_async`: awaited where a loop asks, refused in words where none does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

import headrace as hr
from headrace.adapters import langchain, llamaindex
from headrace.errors import InputError
from headrace.serving.server import BackgroundServer

ASKED = "who looks at a payment?"
CALL = {"name": "spending", "args": {"user_id": "u1"}, "id": "c1", "type": "tool_call"}


def test_langchain_awaits_it(live: hr.Live, server: BackgroundServer) -> None:
    async def talk() -> tuple[Any, ...]:
        async with hr.connect_async(server.url) as remote:
            retriever = langchain.HeadraceRetriever(client=remote, collection="library", k=2)
            packed = langchain.HeadraceRetriever(client=remote, context="case", arguments={"user_id": "u1"})
            made = {tool.name: tool for tool in await langchain.atools(remote)}
            history = langchain.HeadraceChatHistory(remote, "chat", "s1")
            await history.aadd_messages([HumanMessage("What is rye?")])
            said = await history.aget_messages()
            await history.aclear()
            found = await asyncio.gather(*(retriever.ainvoke(ASKED) for _ in range(12)), packed.ainvoke(ASKED))
            called = await asyncio.gather(*(made["spending"].ainvoke(CALL) for _ in range(12)))
            return found, called, said, await history.aget_messages()

    found, called, said, left = asyncio.run(talk())
    assert [len(one) for one in found] == [2] * 12 + [4]
    assert {one.artifact["total_1h"] for one in called} == {5.0}
    assert [one.content for one in said] == ["What is rye?"]
    assert left == []


def test_llamaindex_awaits_it(server: BackgroundServer) -> None:
    async def talk() -> tuple[Any, ...]:
        async with hr.connect_async(server.url) as remote:
            retriever = llamaindex.HeadraceRetriever(remote, collection="library", k=2)
            made = {tool.metadata.name: tool for tool in await llamaindex.atools(remote)}
            found = await retriever.aretrieve(ASKED)
            right = await made["spending"].acall(user_id="u1")
            return found, right, await made["spending"].acall(user="u1"), made["spending"].call(user_id="u1")

    found, right, wrong, not_awaited = asyncio.run(talk())
    assert len(found) == 2
    assert right.raw_output["total_1h"] == 5.0
    assert wrong.is_error
    assert "Call it again" in wrong.content
    assert not_awaited.is_error
    assert "found AsyncRemote" in not_awaited.content


def test_where_nothing_is_awaited_it_is_refused(server: BackgroundServer) -> None:
    async def talk() -> None:
        async with hr.connect_async(server.url) as remote:
            for make in (langchain.tools, llamaindex.tools):
                with pytest.raises(InputError, match="expected a client that is not awaited"):
                    make(remote)
            with pytest.raises(InputError, match="expected a client that is not awaited"):
                langchain.HeadraceRetriever(client=remote, collection="library").invoke(ASKED)
            with pytest.raises(InputError, match="expected a client that is not awaited"):
                llamaindex.HeadraceRetriever(remote, context="case").retrieve(ASKED)
            with pytest.raises(InputError, match="expected a client that is not awaited"):
                _ = langchain.HeadraceChatHistory(remote, "chat", "s1").messages

    asyncio.run(talk())


def test_a_call_that_is_cancelled_is_given_up(gate: Any, live: hr.Live) -> None:
    gate.open.clear()
    (slow,) = langchain.tools(live, ["slow"], timeout=30)

    async def talk() -> None:
        call = asyncio.ensure_future(slow.ainvoke({"query": "rye", "k": 1}))
        while live.calls.inside == 0:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(talk())
    gate.open.set()
    live.calls.close()
