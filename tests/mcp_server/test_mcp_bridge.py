"""`headrace mcp --url`: a server that runs elsewhere, for a client that can only start programs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types
import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_desk import ERAS, Gate, paid
from scripted_server import ScriptedServer

import headrace as hr
from headrace import cli
from headrace.serving.server import BackgroundServer, bind

KEY = "right-key-right-key"


@pytest.fixture
def url(live: hr.Live) -> Iterator[str]:
    with BackgroundServer(live, api_key=KEY) as server:
        yield server.url


@asynccontextmanager
async def bridged(url: str, log: Path, era: str, key: str = KEY, **options: Any) -> AsyncIterator[Client]:
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "headrace", "mcp", "--url", url],
        env={**os.environ, "HEADRACE_API_KEY": key},
    )
    with log.open("w") as stderr:
        async with Client(stdio_client(command, errlog=stderr), mode=era, **options) as mcp:
            yield mcp


@pytest.mark.parametrize("era", ERAS)
def test_all_that_the_server_offers_is_there(url: str, tmp_path: Path, era: str) -> None:
    async def talk() -> None:
        async with bridged(url, tmp_path / "log", era) as mcp:
            assert {tool.name for tool in (await mcp.list_tools()).tools} == {"spending", "library", "case"}
            row = await mcp.call_tool("spending", {"user_id": "u1"})
            assert row.structured_content["total_1h"] == 5.0
            wrong = await mcp.call_tool("spending", {"user": "u1"})
            assert wrong.is_error
            (content,) = (await mcp.read_resource("headrace://features/spending/u%C3%BC")).contents
            assert json.loads(content.text)["user_id"] == "uü"
            with pytest.raises(MCPError, match="did you mean 'spending'"):
                await mcp.read_resource("headrace://features/spendin/u1")
            arguments = {"user_id": "u1", "question": "large payments", "hits": "1"}
            (message,) = (await mcp.get_prompt("case", arguments)).messages
            assert "A payment of more than 1000" in message.content.text

    asyncio.run(talk())
    assert "Traceback" not in (tmp_path / "log").read_text()


# The newer protocol has another way to subscribe; clients of the older one have only this.
@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
def test_who_subscribes_through_it_is_told(url: str, live: hr.Live, tmp_path: Path) -> None:
    async def talk() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()

        async def handle(message: Any) -> None:
            if isinstance(message, mcp_types.ResourceUpdatedNotification):
                await told.put(str(message.params.uri))

        async with bridged(url, tmp_path / "log", "legacy", message_handler=handle) as mcp:
            await mcp.subscribe_resource("headrace://features/spending/u1")
            async with asyncio.timeout(60):
                while told.empty():  # the stream that it is told over may open after the subscription
                    await asyncio.to_thread(paid, live, 1.0)
            assert await told.get() == "headrace://features/spending/u1"

    asyncio.run(talk())


def test_who_listens_through_it_is_told(url: str, live: hr.Live, tmp_path: Path) -> None:
    async def talk() -> None:
        uri = "headrace://features/spending/u1"
        async with (
            bridged(url, tmp_path / "log", "2026-07-28") as mcp,
            mcp.listen(resource_subscriptions=[uri]) as events,
        ):
            await asyncio.to_thread(paid, live, 7.0)
            async with asyncio.timeout(60):
                assert (await anext(events)).uri == uri

    asyncio.run(talk())


@pytest.mark.parametrize("era", ERAS)
def test_a_call_through_it_tells_its_progress_and_can_be_cancelled(
    url: str, live: hr.Live, gate: Gate, tmp_path: Path, era: str
) -> None:
    async def talk() -> None:
        gate.open.clear()
        begun = asyncio.Event()

        async def progress(done: float, total: float | None, message: str | None) -> None:
            begun.set()

        async with bridged(url, tmp_path / "log", era) as mcp:
            call = asyncio.create_task(
                mcp.call_tool("library", {"query": "payments", "k": None}, progress_callback=progress)
            )
            async with asyncio.timeout(60):
                await begun.wait()
                await asyncio.to_thread(gate.waiting.acquire)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert not (await mcp.call_tool("spending", {"user_id": "u1"})).is_error
            gate.open.set()
            async with asyncio.timeout(60):
                while live.calls.inside:
                    await asyncio.sleep(0)

    asyncio.run(talk())


@pytest.mark.parametrize("era", ERAS)
def test_a_wrong_key_and_a_server_that_is_not_there_are_said(url: str, tmp_path: Path, era: str) -> None:
    with bind("127.0.0.1", 0) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"

    async def talk(address: str, key: str) -> str:
        with pytest.raises(BaseException) as raised:
            async with bridged(address, tmp_path / "log", era, key) as mcp:
                await mcp.list_tools()
        errors = [raised.value]
        while isinstance(errors[-1], BaseExceptionGroup):
            errors.append(errors[-1].exceptions[0])
        return str(errors[-1])

    assert "API key" in asyncio.run(talk(url, "wrong-key-wrong-key"))
    assert f"expected an answer from {nobody}, found none" in asyncio.run(talk(nobody, KEY))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "expected an app or --url"),
        (["mcp_desk:app", "--url", "http://127.0.0.1:1"], "expected an app or --url"),
        (["--url", "127.0.0.1:8900"], "expected an address such as"),
    ],
)
def test_what_cannot_be_bridged_is_said(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mcp", *options]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err


@pytest.mark.parametrize("end", ["the input ends", "SIGTERM"])
def test_the_end_of_the_program_ends_its_session(end: str) -> None:
    answer = b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: s-1\r\nconnection: close\r\n"
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    with ScriptedServer([head + b"content-length: %d\r\n\r\n" % len(answer) + answer]) as server:
        command = [sys.executable, "-m", "headrace", "mcp", "--url", server.url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write(json.dumps(asked).encode() + b"\n")
            program.stdin.flush()
            assert json.loads(program.stdout.readline()) == json.loads(answer)
            if end == "SIGTERM":
                program.send_signal(signal.SIGTERM)
            else:
                program.stdin.close()
            assert program.wait(60) == 0
        assert server.requests[-1].startswith(b"DELETE /mcp ")
        assert b"mcp-session-id: s-1" in server.requests[-1].lower()
