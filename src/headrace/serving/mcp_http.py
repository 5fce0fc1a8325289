"""MCP over streamable HTTP at `/mcp`: the SDK's sessions, begun by the first request and ended with the server.

Access is checked before anything comes here (the key, or `Host` and `Origin`: see `ops.security`), as for every other
route. The `mcp` package is imported by the first request, on a thread: a server that nobody speaks MCP with does not
pay for it. What the SDK runs beside the requests lives in one task, which the end of the server ends before uvicorn
waits for open answers: a client's standing stream would hold it up.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from headrace.errors import ClosedError, MissingDependencyError

if TYPE_CHECKING:
    from headrace.serving.live import Live

PATH = b"/mcp"
MOST_SESSIONS = 256
MOST_BODY = 1 << 20
IDLE_SECONDS = 30 * 60.0
INSTALL = 'pip install "headrace[mcp]"'


def load(name: str) -> Any:
    """One of the modules here that need the `mcp` package.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return importlib.import_module(f"headrace.serving.{name}")
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "headrace":
            raise
        raise MissingDependencyError(
            f"MCP needs the package {error.name!r}, which cannot be imported ({error}); install it with: {INSTALL}"
        ) from error


class McpEndpoint:
    """The ASGI app behind `/mcp`."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._closed = False
        self._stop = asyncio.Event()
        self._manager: Any = None
        self._task: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._closed:
            raise ClosedError("expected a running server, found one that ends; connect again shortly")
        if self._begun is None or (self._begun.done() and self._begun.exception()):
            self._begun = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._begun), name="headrace-mcp")
        # Many requests may wait for the one beginning; that one of them is given up must not end it.
        await asyncio.shield(self._begun)
        await self._manager.handle_request(scope, receive, send)

    async def _run(self, begun: asyncio.Future[None]) -> None:
        try:
            module = await asyncio.to_thread(load, "mcp_server")
            managers = await asyncio.to_thread(importlib.import_module, "mcp.server.streamable_http_manager")
            app = module.AppServer(self._live)
        except BaseException as error:
            begun.set_exception(error)
            if isinstance(error, Exception):
                return
            raise
        self._manager = managers.StreamableHTTPSessionManager(
            app.server, session_idle_timeout=IDLE_SECONDS, max_sessions=MOST_SESSIONS, max_request_body_size=MOST_BODY
        )
        async with self._manager.run():
            begun.set_result(None)
            await self._stop.wait()
            await app.close()

    async def close(self) -> None:
        """Ends all sessions; again does nothing."""
        self._closed = True
        self._stop.set()
        if self._task is not None:
            await self._task
            self._task = None
