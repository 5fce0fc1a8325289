"""MCP on standard input and output for a server that runs elsewhere: what a client says is passed on to its `/mcp`.

Messages are passed as they are, both ways, so whatever client and server agree on (either generation of the protocol,
subscriptions, progress, cancellation) works as without anything between. Only what streamable HTTP wants in headers is
added, which standard input has no place for. What goes wrong on the way is answered as an error of the protocol, with
its reason: the client shows that, and no one sees the log of a program that a client has started.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import anyio
import httpx2
import msgspec
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp.server.stdio import stdio_server
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
)
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import INTERNAL_ERROR, PROTOCOL_VERSION_META_KEY, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from headrace.serving import client_wire as wire

_CONNECT_SECONDS = 10.0
# A call may take as long as the server lets it, and a stream of notifications stands open: the server ends both.
_ANSWER_SECONDS = 300.0
_LEAVE_SECONDS = 2.0
_JSON = {"content-type": "application/json"}


def run(url: str, api_key: str | None = None) -> None:
    """Passes messages on until the client closes the input.

    Raises:
        InputError: `url` is not an HTTP address, or the key cannot be sent.
    """
    asyncio.run(_serve(wire.address(url), wire.headers(api_key)))


async def _serve(url: str, headers: dict[str, str]) -> None:
    timeout = httpx2.Timeout(_CONNECT_SECONDS, read=_ANSWER_SECONDS)
    del headers["accept"]  # the protocol has its own
    transport = _Answering(url)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, transport=transport) as http,
        streamable_http_client(f"{url}/mcp", http_client=http) as (from_server, to_server),
        stdio_server() as (from_client, to_client),
        to_client,
        anyio.create_task_group() as beside,
    ):
        stamps = _Stamps()
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

        async def end() -> None:
            await ended.wait()
            await transport.leave(http)
            os._exit(0)  # a thread waits for input, and no exit would be waited for to the end

        async def back() -> None:
            async for message in from_server:
                if isinstance(message, Exception):
                    continue  # the SDK has logged what it could not read
                stamps.answered(message)
                await to_client.send(message)

        beside.start_soon(back)
        beside.start_soon(end)
        async for message in from_client:
            if isinstance(message, Exception):
                continue
            await to_server.send(stamps.stamped(message))
        beside.cancel_scope.cancel()


class _Stamps:
    """The headers of messages."""

    def __init__(self) -> None:
        self._asked: Any = None
        self._version: str | None = None

    def stamped(self, message: SessionMessage) -> SessionMessage:
        """A message of the client's with the headers that it is sent with."""
        said = message.message
        if not isinstance(said, JSONRPCRequest | JSONRPCNotification):
            return message
        params = said.params or {}
        if said.method == "initialize" and isinstance(said, JSONRPCRequest):
            self._asked = said.id
        version = (params.get("_meta") or {}).get(PROTOCOL_VERSION_META_KEY) or self._version
        headers = {MCP_METHOD_HEADER: said.method}
        if isinstance(version, str) and said.method != "initialize":
            headers[MCP_PROTOCOL_VERSION_HEADER] = version
        name = params.get(NAME_BEARING_METHODS.get(said.method, ""))
        if isinstance(name, str):
            headers[MCP_NAME_HEADER] = encode_header_value(name)
        return SessionMessage(said, ClientMessageMetadata(headers=headers))

    def answered(self, message: SessionMessage) -> None:
        """Keeps the version of the protocol that client and server agree on."""
        said = message.message
        if isinstance(said, JSONRPCResponse) and self._asked is not None and said.id == self._asked:
            self._version = said.result.get("protocolVersion")


class _Answering(httpx2.AsyncHTTPTransport):
    """Answers with an error of the protocol where the server does not, or says that it refuses."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._session: str | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            answer = await super().handle_async_request(request)
        except httpx2.TransportError as error:
            reason = (
                f"found none: {str(error) or type(error).__name__}; is the server running, and is this its address?"
            )
            return _error(503, f"expected an answer from {self._url}, {reason}")
        self._session = answer.headers.get(MCP_SESSION_ID, self._session)
        if "problem+json" not in answer.headers.get("content-type", ""):
            return answer
        try:
            found = msgspec.json.decode(await answer.aread(), type=dict[str, Any])
        finally:
            await answer.aclose()
        return _error(answer.status_code, f"{self._url} refuses: {found.get('detail') or found.get('title')}")

    async def leave(self, http: httpx2.AsyncClient) -> None:
        """Ends the session at the server, if there is one: it would keep its place for half an hour."""
        if self._session is not None:
            headers = {MCP_SESSION_ID: self._session}
            await http.delete(f"{self._url}/mcp", headers=headers, timeout=_LEAVE_SECONDS)


def _error(status: int, message: str) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": INTERNAL_ERROR, "message": message}}
    return httpx2.Response(status, headers=_JSON, content=msgspec.json.encode(body))
