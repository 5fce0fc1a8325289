"""MCP over streamable HTTP, by the official client, in both generations of the protocol."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import mcp_types
import pytest
from mcp import Client, MCPError
from mcp_desk import ERAS, Gate, client, paid

import headrace as hr
from headrace.serving.mcp_http import MOST_BODY, load
from headrace.serving.server import BackgroundServer


@pytest.fixture
def url(live: hr.Live) -> Iterator[str]:
    with BackgroundServer(live) as server:
        yield server.url


def texts(result: Any) -> str:
    return "".join(part.text for part in result.content)


@pytest.mark.parametrize("era", ERAS)
def test_it_says_who_it_is_and_lists_what_it_offers(url: str, era: str) -> None:
    async def talk() -> None:
        async with client(url, era) as mcp:
            assert mcp.server_capabilities.tools or era != "legacy"
            tools = {tool.name: tool for tool in (await mcp.list_tools()).tools}
            assert set(tools) == {"spending", "library", "case"}
            for tool in tools.values():
                jsonschema.Draft202012Validator.check_schema(tool.input_schema)
                assert tool.input_schema["additionalProperties"] is False
                assert tool.annotations is not None
                assert tool.annotations.read_only_hint
            (template,) = (await mcp.list_resource_templates()).resource_templates
            assert template.uri_template == "headrace://features/spending/{user_id}"
            (resource,) = (await mcp.list_resources()).resources
            assert resource.uri == "headrace://collections/library"
            (prompt,) = (await mcp.list_prompts()).prompts
            assert [(one.name, one.required) for one in prompt.arguments or ()] == [
                ("user_id", True),
                ("question", True),
                ("hits", False),
            ]

    asyncio.run(talk())


@pytest.mark.parametrize("era", ERAS)
def test_a_call_answers_what_its_schema_says(url: str, era: str) -> None:
    async def talk() -> None:
        async with client(url, era) as mcp:
            schemas = {tool.name: tool.output_schema for tool in (await mcp.list_tools()).tools}
            row = await mcp.call_tool("spending", {"user_id": "u1"})
            assert not row.is_error
            assert row.structured_content["total_1h"] == 5.0
            assert json.loads(texts(row)) == row.structured_content
            found = await mcp.call_tool("library", {"query": "large payments", "k": None})
            assert found.structured_content["hits"][0]["text"].startswith("A payment of more")
            for name, result in (("spending", row), ("library", found)):
                assert schemas[name] is not None
                jsonschema.validate(result.structured_content, schemas[name])
            packed = await mcp.call_tool("case", {"user_id": "u1", "question": "large payments", "hits": None})
            assert "A payment of more" in texts(packed)

    asyncio.run(talk())


@pytest.mark.parametrize("era", ERAS)
def test_a_wrong_call_comes_back_with_words_for_the_model(url: str, era: str) -> None:
    async def talk() -> None:
        async with client(url, era) as mcp:
            for name, arguments, words in (
                ("spending", {"user": "u1"}, "Call it again without 'user'"),
                ("spending", {}, "Call it again with 'user_id'"),
                ("library", {"query": 7, "k": None}, "another value of 'query'"),
                ("spendings", {}, "did you mean 'spending'"),
            ):
                result = await mcp.call_tool(name, arguments)
                assert result.is_error
                assert words in texts(result)

    asyncio.run(talk())


@pytest.mark.parametrize("era", ERAS)
def test_resources_are_read_by_their_addresses(url: str, era: str) -> None:
    async def read(mcp: Client, uri: str) -> Any:
        (content,) = (await mcp.read_resource(uri)).contents
        assert content.mime_type == "application/json"
        return json.loads(content.text)

    async def talk() -> None:
        async with client(url, era) as mcp:
            assert (await read(mcp, "headrace://features/spending/u1"))["total_1h"] == 5.0
            assert (await read(mcp, "headrace://features/spending/a%2Fb"))["user_id"] == "a/b"
            assert (await read(mcp, "headrace://collections/library"))["about"] == "Rules of the house."
            for uri, words in (
                ("headrace://features/spendings/u1", "did you mean 'spending'"),
                ("headrace://rows/spending/u1", "expected an address such as"),
                ("headrace://collections/none", "library"),
            ):
                with pytest.raises(MCPError, match=words):
                    await mcp.read_resource(uri)

    asyncio.run(talk())


# The newer protocol has another way to subscribe; clients of the older one have only this.
@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
def test_who_subscribes_is_told_of_changes(url: str, live: hr.Live) -> None:
    async def talk() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()

        async def handle(message: Any) -> None:
            if isinstance(message, mcp_types.ResourceUpdatedNotification):
                await told.put(str(message.params.uri))

        async with client(url, message_handler=handle) as mcp:
            await mcp.subscribe_resource("headrace://features/spending/u1")
            await asyncio.to_thread(paid, live, 1.0, "u2")
            await asyncio.to_thread(paid, live, 7.0)
            async with asyncio.timeout(10):
                assert await told.get() == "headrace://features/spending/u1"
            (content,) = (await mcp.read_resource("headrace://features/spending/u1")).contents
            assert json.loads(content.text)["total_1h"] == 12.0
            await mcp.subscribe_resource("headrace://collections/library")
            await asyncio.to_thread(live.push, "note", {"id": "new", "body": "Rye is milled on Tuesdays."})
            async with asyncio.timeout(10):
                while await told.get() != "headrace://collections/library":
                    pass
            with pytest.raises(MCPError, match="did you mean 'spending'"):
                await mcp.subscribe_resource("headrace://features/spendin/u1")

    asyncio.run(talk())


def test_who_listens_is_told_of_changes(url: str, live: hr.Live) -> None:
    async def talk() -> None:
        async with client(url, "2026-07-28") as mcp:
            uri = "headrace://features/spending/u1"
            async with mcp.listen(resource_subscriptions=[uri]) as events:
                await asyncio.to_thread(paid, live, 7.0)
                async with asyncio.timeout(10):
                    event = await anext(events)
                assert event.uri == uri

    asyncio.run(talk())


@pytest.mark.parametrize("era", ERAS)
def test_a_prompt_is_the_context_as_it_is_now(url: str, era: str) -> None:
    async def talk() -> None:
        async with client(url, era) as mcp:
            arguments = {"user_id": "u1", "question": "large payments", "hits": "1"}
            (message,) = (await mcp.get_prompt("case", arguments)).messages
            assert "A payment of more than 1000" in message.content.text
            with pytest.raises(MCPError, match="'hits'"):
                await mcp.get_prompt("case", arguments | {"hits": "many"})

    asyncio.run(talk())


@pytest.mark.parametrize("era", ERAS)
def test_a_call_that_waits_tells_its_progress_and_can_be_cancelled(
    url: str, live: hr.Live, gate: Gate, era: str
) -> None:
    async def talk() -> None:
        gate.open.clear()
        begun = asyncio.Event()

        async def progress(done: float, total: float | None, message: str | None) -> None:
            assert message == "library: begun"
            assert total == 10.0
            begun.set()

        async with client(url, era) as mcp:
            call = asyncio.create_task(
                mcp.call_tool("library", {"query": "payments", "k": None}, progress_callback=progress)
            )
            async with asyncio.timeout(10):
                await begun.wait()
                await asyncio.to_thread(gate.waiting.acquire)
            assert live.calls.inside == 1
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            # The server goes on answering, and the thread is free once its own work ends.
            assert not (await mcp.call_tool("spending", {"user_id": "u1"})).is_error
            gate.open.set()
            async with asyncio.timeout(10):
                while live.calls.inside:
                    await asyncio.sleep(0)
            assert not (await mcp.call_tool("library", {"query": "payments", "k": None})).is_error

    asyncio.run(talk())


@pytest.mark.parametrize("era", ERAS)
def test_without_the_key_nothing_is_answered(live: hr.Live, era: str) -> None:
    async def talk(url: str) -> None:
        for key in (None, "wrong-key-wrong-key"):
            answers: list[Any] = []
            with pytest.RaisesGroup(MCPError, flatten_subgroups=True):
                async with client(url, era, key, answers) as mcp:
                    await mcp.list_tools()
            assert {one.status_code for one in answers} == {401}
            assert {one.headers["www-authenticate"] for one in answers} == {'Bearer realm="headrace"'}
        async with client(url, era, "right-key-right-key") as mcp:
            assert (await mcp.list_tools()).tools

    with BackgroundServer(live, api_key="right-key-right-key") as server:
        asyncio.run(talk(server.url))


def test_the_end_of_the_server_ends_sessions_and_leaves_nothing(live: hr.Live) -> None:
    before = {thread.name for thread in threading.enumerate()}

    async def talk(server: BackgroundServer) -> None:
        uris = ["headrace://features/spending/u1"]
        async with client(server.url, "2026-07-28") as mcp, mcp.listen(resource_subscriptions=uris) as events:
            await asyncio.to_thread(server.close)
            async with asyncio.timeout(5):
                with pytest.raises(StopAsyncIteration):
                    await anext(events)

    server = BackgroundServer(live)
    asyncio.run(talk(server))
    after = {thread.name for thread in threading.enumerate()}
    assert {name for name in after - before if "http" in name} == set()


def test_a_page_of_another_site_and_a_body_without_end_are_refused(url: str) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {"accept": "application/json, text/event-stream"}
    assert httpx.post(url + "/mcp", json=asked, headers=accept | {"origin": "http://evil.example"}).status_code == 403
    assert httpx.post(url + "/mcp", json=asked, headers=accept | {"host": "evil.example"}).status_code == 403
    large = asked | {"params": {"cursor": "a" * MOST_BODY}}
    assert httpx.post(url + "/mcp", json=large, headers=accept).status_code == 413
    assert httpx.post(url + "/mcp", content=b"{", headers=accept | {"content-type": "application/json"}).is_client_error


def test_without_the_package_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "headrace.serving.mcp_stdio", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server.stdio", None)
    with pytest.raises(hr.MissingDependencyError, match=r'pip install "headrace\[mcp\]"'):
        load("mcp_stdio")
