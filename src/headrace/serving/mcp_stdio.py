"""MCP over standard input and output: one client, the program that started this one.

Standard output belongs to the protocol; the SDK turns whatever else is printed to standard error. The end of the
input is the client's way to say that it is done; a SIGTERM says the same where a read of the input cannot be ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from mcp.server.stdio import stdio_server

from headrace.serving.mcp_server import AppServer

if TYPE_CHECKING:
    from headrace.serving.live import Live


def run(live: Live) -> None:
    """Serves `live` until the client closes the input; closing `live` stays with the caller."""
    asyncio.run(_serve(live))


async def _serve(live: Live) -> None:
    def ended() -> None:
        live.close()
        os._exit(0)  # a thread waits for input, and no exit would be waited for to the end

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended)
    app = AppServer(live)
    try:
        async with stdio_server() as (read, write):
            await app.server.run(read, write, app.server.create_initialization_options())
    finally:
        await app.close()
