"""One server's address and connections: a request is sent, and its answer or the error that it stands for comes back.

Nothing is tried twice: a push whose answer was lost may have been stored, and to send it again would count it twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import httpx

from headrace.errors import HeadraceError
from headrace.serving import client_wire as wire
from headrace.serving.client_waiting import AsyncLock
from headrace.serving.problems import error_of
from headrace.serving.revive import Reviver

# Each call that runs and each stream that stands open has one; what is past that waits its turn.
MOST_CONNECTIONS = 256
_MOST_IDLE = 64

Refused = Callable[[int, bytes], HeadraceError]


class AsyncOpened(Protocol):
    """What stands open on a link, and ends with it."""

    async def close(self) -> None:
        """Ends it; again does nothing."""


class AsyncBody:
    """The body of an answer, as it comes.

    Attributes:
        closed: Whether nothing more is wanted of it.
    """

    def __init__(self, link: AsyncLink, answer: httpx.Response) -> None:
        self._link = link
        self._answer = answer
        self._pieces: AsyncIterator[bytes] = answer.aiter_bytes()
        self.closed = False

    async def piece(self) -> bytes:
        """The next bytes; none at the end.

        Raises:
            RemoteError: The connection broke.
        """
        if self.closed:
            return b""
        with self._link._reaching("the rest of an answer"):
            return await anext(self._pieces, b"")

    def hang_up(self) -> None:
        """Ends the connection, also for whoever waits for a piece of it."""
        self.closed = True
        wire.hang_up(self._answer)

    async def close(self) -> None:
        """Ends it; again does nothing."""
        self.closed = True
        await self._answer.aclose()


class AsyncLink:
    """The connections to a server."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 10.0) -> None:
        headers = wire.headers(api_key)
        self.url = wire.address(url)
        self._timeout = timeout
        limits = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=_MOST_IDLE)
        self._http = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout, limits=limits)
        self._revivers: dict[str, Reviver] = {}
        self._lock = AsyncLock()
        self._opened: set[AsyncOpened] = set()

    def _reaching(self, wanted: str = "an answer") -> AbstractContextManager[None]:
        """What goes wrong on the way to the server, as `RemoteError`."""
        return wire.reaching(self.url, self._http, wanted)

    async def _call(
        self, method: str, path: str, *, wait: float = 0.0, refused: Refused = error_of, **request: Any
    ) -> httpx.Response:
        """The answer to a request, whole; `wait` is what the server itself may take besides."""
        with self._reaching():
            answer = await self._http.request(method, path, timeout=self._timeout + wait, **request)
        if answer.status_code != httpx.codes.OK:
            raise refused(answer.status_code, answer.content)
        return answer

    async def _open(
        self, method: str, path: str, *, silence: float, refused: Refused = error_of, **request: Any
    ) -> AsyncBody:
        """The answer to a request as it comes; between two pieces of it `silence` seconds may pass."""
        limits = httpx.Timeout(self._timeout, read=silence)
        with self._reaching():
            asked = self._http.build_request(method, path, timeout=limits, **request)
            answer = await self._http.send(asked, stream=True)
            if answer.status_code == httpx.codes.OK:
                return AsyncBody(self, answer)
            try:
                content = await answer.aread()
            finally:
                await answer.aclose()
        raise refused(answer.status_code, content)

    async def _reviver(self, view: str) -> Reviver:
        """How a view's JSON becomes values again: asked of the server once."""
        async with self._lock:
            if view not in self._revivers:
                self._revivers = Reviver.of_document((await self._call("GET", "/openapi.json")).json())
            # A view that the server does not have: let the server say so, with the nearest name.
            return self._revivers.get(view) or Reviver((), {})

    async def close(self) -> None:
        """Let go of the connections; the server goes on."""
        for opened in list(self._opened):
            await opened.close()
        await self._http.aclose()
