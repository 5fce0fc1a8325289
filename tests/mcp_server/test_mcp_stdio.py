"""MCP over standard input and output: `headrace mcp` as a client starts it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import mcp_types
import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_desk import ERAS

from headrace import cli


def command(*options: str) -> StdioServerParameters:
    arguments = ["-m", "headrace", "mcp", "mcp_desk:app", *options]
    return StdioServerParameters(command=sys.executable, args=arguments, cwd=str(Path(__file__).parent))


@pytest.mark.parametrize("era", ERAS)
def test_a_client_that_starts_it_can_list_call_read_and_ask(tmp_path: Path, era: str) -> None:
    log = tmp_path / "log"

    async def talk() -> None:
        with log.open("w") as stderr:
            async with Client(stdio_client(command("--data", str(tmp_path / "data")), errlog=stderr), mode=era) as mcp:
                assert {"spending", "library"} <= {tool.name for tool in (await mcp.list_tools()).tools}
                row = await mcp.call_tool("spending", {"user_id": "u1"})
                assert row.structured_content["as_of"] is None
                assert (await mcp.call_tool("spending", {})).is_error
                (content,) = (await mcp.read_resource("headrace://features/spending/u1")).contents
                assert json.loads(content.text)["user_id"] == "u1"
                with pytest.raises(MCPError, match="did you mean"):
                    await mcp.read_resource("headrace://features/spendin/u1")

    asyncio.run(talk())
    assert (tmp_path / "data").exists()
    assert "Traceback" not in log.read_text()


# The newer protocol has another way to subscribe; clients of the older one have only this.
@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
def test_a_subscription_is_taken_over_a_pipe_too() -> None:
    async def talk() -> None:
        async with Client(stdio_client(command("--in-memory")), mode="legacy") as mcp:
            answer = await mcp.subscribe_resource("headrace://features/spending/u1")
            assert isinstance(answer, mcp_types.EmptyResult)
            await mcp.unsubscribe_resource("headrace://features/spending/u1")

    asyncio.run(talk())


def test_an_app_that_is_not_there_is_said_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mcp", "nowhere:app"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "nowhere" in said.err
