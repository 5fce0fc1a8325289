"""MCP: who may ask, what is said of wrong calls, how large an answer is, and what is left when clients go."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import mcp_slow_desk
import mcp_types
import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_desk import ERAS, Gate, client, paid

import headrace as hr
from headrace.serving.server import BackgroundServer
from headrace.serving.tool_calls import MOST_BYTES

ACCEPT = {"accept": "application/json, text/event-stream"}
ASKED = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
URI = "headrace://features/spending/u1"


def said(result: mcp_types.CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, mcp_types.TextContent)
    return content.text


# -- who may ask -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "wrong-key-wrong-key"])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_without_the_key_it_is_401_and_says_what_is_needed(live: hr.Live, method: str, key: str | None) -> None:
    headers = ACCEPT | ({} if key is None else {"authorization": f"Bearer {key}"}) | {"mcp-session-id": "somebodys"}
    with BackgroundServer(live, api_key="right-key-right-key") as server:
        answer = httpx.request(method, server.url + "/mcp", headers=headers, json=ASKED if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="headrace"'
    assert answer.json()["type"] == "urn:headrace:problem:unauthorized"
    assert "right-key" not in answer.text


# -- wrong calls -------------------------------------------------------------------------------------------------------


async def _wrong(mcp: Client) -> None:
    for name, arguments, words in (
        ("quik", {"question": "?"}, "did you mean 'quick'"),
        ("quick", {}, "'question'"),
        ("quick", {"question": 7}, "'question'"),
        ("quick", {"question": "?", "colour": "red"}, "'colour'"),
    ):
        result = await mcp.call_tool(name, arguments)
        assert result.is_error
        assert words in said(result)
    with pytest.raises(MCPError, match="did you mean 'quick'"):
        await mcp.get_prompt("quik", {"question": "?"})
    with pytest.raises(MCPError, match="'question'"):
        await mcp.get_prompt("quick", {})
    with pytest.raises(MCPError, match="expected an address such as headrace://"):
        await mcp.read_resource("headrace://nothing")
    with pytest.raises(MCPError, match="expected the name of a view"):
        await mcp.read_resource("headrace://features/none/u1")


def _command() -> StdioServerParameters:
    arguments = ["-m", "headrace", "mcp", "mcp_slow_desk:app", "--in-memory"]
    environ = {**os.environ}
    return StdioServerParameters(command=sys.executable, args=arguments, cwd=str(Path(__file__).parent), env=environ)


@pytest.mark.parametrize("era", ERAS)
def test_wrong_calls_are_told_how_to_be_mended_over_http(era: str) -> None:
    async def talk(url: str) -> None:
        async with client(url, era) as mcp:
            await _wrong(mcp)

    with mcp_slow_desk.app.open() as opened, BackgroundServer(opened) as server:
        asyncio.run(talk(server.url))


@pytest.mark.parametrize("era", ERAS)
def test_wrong_calls_are_told_how_to_be_mended_over_a_pipe(era: str) -> None:
    async def talk() -> None:
        async with Client(stdio_client(_command()), mode=era) as mcp:
            await _wrong(mcp)

    asyncio.run(talk())


# -- whose conversation ------------------------------------------------------------------------------------------------


def test_a_model_cannot_name_the_session_that_is_recalled() -> None:
    async def talk(url: str) -> None:
        async with client(url) as mcp:
            assert not any("chat" in tool.name for tool in (await mcp.list_tools()).tools)
            assert not any("chat" in str(one.uri) for one in (await mcp.list_resources()).resources)
            for arguments in ({"question": "?", "session": "session-17"}, {"question": "?", "session": "17"}):
                result = await mcp.call_tool("talk", arguments)
                assert result.is_error
                assert "'session'" in said(result)
                assert "only the application" in said(result)
                with pytest.raises(MCPError, match="only the application"):
                    await mcp.get_prompt("talk", arguments)
            mine = await mcp.call_tool("own", {"question": "what did I say?"})
            assert "walnut" in said(mine)

    with mcp_slow_desk.app.open() as opened, BackgroundServer(opened) as server:
        opened.remember("chat", "session-17", "user", "The word is walnut.")
        asyncio.run(talk(server.url))
        assert "walnut" in opened.context("talk", question="?", session="session-17").render()
        answer = httpx.post(server.url + "/v1/tools/talk", json={"question": "?", "session": "session-17"})
        assert (answer.status_code, "only the application" in answer.text) == (400, True)


# -- how large ---------------------------------------------------------------------------------------------------------


def test_answers_and_resources_are_bounded() -> None:
    class Line(hr.Event):
        user: str
        text: str
        at: datetime = hr.event_time()

    app = hr.App("large", clock="event")
    lines = app.stream(Line)

    @app.features(lines, key="user")
    class Said:
        recent = hr.latest(100, "text", "at", over="1d")

    async def talk(url: str) -> None:
        async with client(url) as mcp:
            answer = await mcp.call_tool("said", {"user": "u1"})
            (content,) = (await mcp.read_resource("headrace://features/said/u1")).contents
            assert isinstance(content, mcp_types.TextResourceContents)
            for text in (said(answer), content.text):
                assert len(text.encode()) <= MOST_BYTES
                assert "shortened" in json.loads(text)["_note"]

    with app.open() as opened, BackgroundServer(opened) as server:
        row = {"user": "u1", "text": "a" * 4_000, "at": "2026-01-31T12:00:00Z"}
        opened.push(lines, [row] * 100)
        opened.drain()
        asyncio.run(talk(server.url))


# -- calls that are given up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
def test_a_call_over_a_pipe_tells_its_progress_and_can_be_cancelled(
    era: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setenv(mcp_slow_desk.PIPE, str(pipe))

    async def talk() -> None:
        begun = asyncio.Event()

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            assert (message, total) == ("slow: begun", 10.0)
            begun.set()

        async with Client(stdio_client(_command()), mode=era) as mcp:
            call = asyncio.create_task(mcp.call_tool("slow", {"question": "?"}, progress_callback=progress))
            async with asyncio.timeout(30):
                await begun.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert not (await mcp.call_tool("quick", {"question": "?"})).is_error
            await asyncio.to_thread(pipe.write_text, "Said.")  # its thread is free again

    asyncio.run(talk())


# -- what is left ------------------------------------------------------------------------------------------------------


class Left:
    """What a server's process holds: asyncio tasks of its loop, and sockets."""

    def __init__(self, server: BackgroundServer, live: hr.Live) -> None:
        self._live = live
        (listening,) = server._server.servers  # its loop has no public name
        self._loop: asyncio.AbstractEventLoop = listening.get_loop()
        self._run(self._until(lambda: not live.hub.subscribers))
        self._before = self._run(self._now())

    def nothing_more(self) -> None:
        """Waits until there is no more than there was when this was made."""
        live = self._live
        # A call whose client is gone still runs to its end, on a thread.
        self._run(self._until(lambda: not live.hub.subscribers and not live.calls.inside, self._before))
        tasks, open_ = self._run(self._now())
        assert (tasks - self._before[0] <= 0, open_ - self._before[1] <= 0) == (True, True)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _now(self) -> tuple[int, int]:
        return len(asyncio.all_tasks()), sockets()

    async def _until(self, done: Any, most: tuple[int, int] = (1 << 30, 1 << 30)) -> None:
        try:
            async with asyncio.timeout(30):
                while not (done() and all(one <= bound for one, bound in zip(await self._now(), most, strict=True))):
                    await asyncio.sleep(0)
        except TimeoutError:
            names = [f"{one.get_name()}: {one.get_coro()}" for one in asyncio.all_tasks()]
            raise AssertionError(f"expected {most}, found {await self._now()}: {names}") from None


def sockets() -> int:
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        try:
            found += os.readlink(one).startswith("socket:")
        except OSError:
            continue  # it was closed meanwhile
    return found


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts sockets in /proc")


@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
def test_clients_that_end_leave_no_tasks_and_no_sockets(live: hr.Live) -> None:
    async def sessions(url: str, count: int) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(count):
                old = await stack.enter_async_context(client(url, "legacy"))
                await old.subscribe_resource(URI)
                new = await stack.enter_async_context(client(url, "2026-07-28"))
                await stack.enter_async_context(new.listen(resource_subscriptions=[URI]))
            assert live.hub.subscribers == 1

    with BackgroundServer(live) as server:
        asyncio.run(sessions(server.url, 1))
        left = Left(server, live)
        asyncio.run(sessions(server.url, 5))
        left.nothing_more()


KILLED = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {here!r})
from mcp_desk import client

async def talk():
    async with client({url!r}, "legacy") as mcp:
        await mcp.subscribe_resource({uri!r})
        print("subscribed", flush=True)
        await asyncio.Event().wait()

asyncio.run(talk())
"""


@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
def test_a_client_with_a_session_that_is_killed_keeps_nobody_from_being_told(live: hr.Live) -> None:
    async def told(url: str) -> None:
        heard = asyncio.Event()

        async def handle(message: Any) -> None:
            if isinstance(message, mcp_types.ResourceUpdatedNotification):
                heard.set()

        async with client(url, message_handler=handle) as mcp:
            await mcp.subscribe_resource(URI)
            code = KILLED.format(here=str(Path(__file__).parent), url=url, uri=URI)
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"subscribed\n"
            process.kill()
            await process.wait()
            for amount in (1.0, 2.0, 3.0):
                heard.clear()
                await asyncio.to_thread(paid, live, amount)
                async with asyncio.timeout(30):
                    await heard.wait()

    before = sockets()
    with BackgroundServer(live) as server:
        asyncio.run(told(server.url))
    # Its session goes with the server, or once nobody has used it for half an hour.
    assert live.hub.subscribers == 0
    assert sockets() <= before


class Raw:
    """A client of the newer protocol by hand, that can be killed: its socket is closed in the middle of everything."""

    def __init__(self, url: str, method: str, params: dict[str, Any]) -> None:
        host, port = url.removeprefix("http://").split(":")
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}})
        head = {
            "host": f"{host}:{port}",
            "content-type": "application/json",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": method,
            **({"mcp-name": params["name"]} if "name" in params else {}),
            **ACCEPT,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.socket.sendall(f"POST /mcp HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n{body}".encode())

    def until(self, text: bytes) -> None:
        found = b""
        while text not in found:
            more = self.socket.recv(4096)
            assert more, found
            found += more

    def kill(self) -> None:
        self.socket.close()


def test_clients_that_are_killed_leave_no_tasks_and_no_sockets(live: hr.Live, gate: Gate) -> None:
    async def warm(url: str) -> None:
        async with client(url, "2026-07-28") as mcp:
            await mcp.call_tool("library", {"query": "payments", "k": None})
            async with mcp.listen(resource_subscriptions=[URI]):
                pass

    with BackgroundServer(live) as server:
        asyncio.run(warm(server.url))
        left = Left(server, live)
        while gate.waiting.acquire(blocking=False):
            pass
        gate.open.clear()
        calls = [
            Raw(server.url, "tools/call", {"name": "library", "arguments": {"query": "payments", "k": None}})
            for _ in range(2)
        ]
        listeners = [
            Raw(server.url, "subscriptions/listen", {"notifications": {"resourceSubscriptions": [URI]}})
            for _ in range(3)
        ]
        for one in listeners:
            one.until(b"acknowledged")
        for _ in calls:
            assert gate.waiting.acquire(timeout=30)
        assert live.hub.subscribers == 1
        for one in (*calls, *listeners):
            one.kill()
        gate.open.set()
        paid(live, 1.0)
        left.nothing_more()
        assert live.calls.inside == 0
