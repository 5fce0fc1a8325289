"""Which resources are subscribed to over MCP, and who is told that they have changed.

The hub of changes (`changes_hub`) says which keys changed; here each address that somebody subscribes to has one place
at the hub, however many clients share it. A client is told that a resource has changed, not how: it reads again. So
changes that come faster than they are told are told once, and a key that changes a thousand times a second costs a
client at most `1 / REST` notifications a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourceUpdated

from headrace.errors import HeadraceError, TooLargeError
from headrace.serving import mcp_resources
from headrace.serving.change_sources import DOCUMENT
from headrace.serving.changes_hub import ALL, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mcp.server.connection import Connection
    from mcp.server.context import ServerRequestContext
    from mcp.server.session import ServerSession

    from headrace.serving.changes_hub import Subscription
    from headrace.serving.live import Live

log = logging.getLogger("headrace.mcp")

REST = 0.05
"""Seconds between two rounds of notifications."""
MOST_ADDRESSES = 128
_MOST_A_CLIENT = 64
_TELL_SECONDS = 10.0


@dataclass
class _Watched:
    """One address: its place at the hub, and who wants to hear of it."""

    place: Subscription
    listening: int = 0
    sessions: dict[Connection, ServerSession] = field(default_factory=dict)


class Watch:
    """The addresses that are subscribed to; used on one event loop."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.bus = InMemorySubscriptionBus()
        self._watched: dict[str, _Watched] = {}
        self._changed: set[str] = set()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def addresses(self) -> int:
        """How many addresses are watched."""
        return len(self._watched)

    def subscribe(self, session: ServerSession, uri: str) -> None:
        """A client of the older protocol wants to hear of an address, until it leaves.

        Raises:
            InputError: It is no address, or its changes are not known here.
            TooLargeError: There are too many.
        """
        connection = _client(session)
        if sum(connection in one.sessions for one in self._watched.values()) >= _MOST_A_CLIENT:
            raise TooLargeError(f"expected at most {_MOST_A_CLIENT} subscriptions of a client; end one first")
        self._enter(uri).sessions[connection] = session
        if "headrace" not in connection.state:
            connection.state["headrace"] = True
            connection.exit_stack.callback(self._left, connection)

    def unsubscribe(self, session: ServerSession, uri: str) -> None:
        """A client no longer wants to."""
        if (one := self._watched.get(uri)) is not None:
            one.sessions.pop(_client(session), None)
            self._leave(uri)

    def _left(self, connection: Connection) -> None:
        for uri, one in list(self._watched.items()):
            one.sessions.pop(connection, None)
            self._leave(uri)

    @contextlib.contextmanager
    def listening(self, uris: Iterable[str]) -> Any:
        """Watches addresses while a stream of the newer protocol is open.

        Raises:
            InputError: One is no address, or its changes are not known here.
            TooLargeError: There are too many.
        """
        entered: list[str] = []
        try:
            for uri in dict.fromkeys(uris):
                self._enter(uri).listening += 1
                entered.append(uri)
            yield
        finally:
            for uri in entered:
                if (one := self._watched.get(uri)) is not None:
                    one.listening -= 1
                    self._leave(uri)

    def _enter(self, uri: str) -> _Watched:
        if (one := self._watched.get(uri)) is not None:
            return one
        kind, name, key = mcp_resources.parse(self._live.app, uri)
        if len(self._watched) >= MOST_ADDRESSES:
            raise TooLargeError(f"expected at most {MOST_ADDRESSES} resources to be subscribed to; come back shortly")
        subject: Subject = (kind, name, key) if kind == mcp_resources.FEATURES else (DOCUMENT, name, ALL)
        loop = asyncio.get_running_loop()

        def wake() -> None:
            # The loop may have ended; then nobody is left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._note, uri)

        self._watched[uri] = _Watched(self._live.hub.subscribe([subject], wake))
        if self._task is None:
            self._task = asyncio.create_task(self._tell(), name="headrace-mcp-watch")
        return self._watched[uri]

    def _leave(self, uri: str) -> None:
        one = self._watched[uri]
        if not one.listening and not one.sessions:
            del self._watched[uri]
            self._changed.discard(uri)
            one.place.close()

    def _note(self, uri: str) -> None:
        if uri in self._watched:
            self._changed.add(uri)
            self._news.set()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            changed, self._changed = self._changed, set()
            for uri in changed:
                one = self._watched.get(uri)
                if one is not None:
                    while one.place.take().changes:
                        pass  # what changed is read anew
                    await self._tell_one(uri, one)
            await asyncio.sleep(REST)

    async def _tell_one(self, uri: str, one: _Watched) -> None:
        await self.bus.publish(ResourceUpdated(uri=uri))
        for connection, session in list(one.sessions.items()):
            try:
                async with asyncio.timeout(_TELL_SECONDS):
                    await session.send_resource_updated(uri)
            except Exception as error:  # noqa: BLE001 - a client that is gone must not keep others from being told
                log.info("a client that subscribed to %s cannot be told, and is no longer: %r", uri, error)
                self._left(connection)

    async def close(self) -> None:
        """Ends everything."""
        self._closed = True
        for one in self._watched.values():
            one.place.close()
        self._watched.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None


def _client(session: ServerSession) -> Connection:
    """The client that a request is of.

    The SDK's session is of one request; its connection is the client's, and ends with it. A handler of the low-level
    server has no other way to it (mcp 2.3): `Context.connection`, which is public, is not what handlers are given.
    """
    return session._connection


class Listener(ListenHandler):
    """`subscriptions/listen`, with its addresses watched while the stream is open."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch.bus)
        self._watch = watch

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        uris = [str(uri) for uri in params.notifications.resource_subscriptions or ()]
        if len(uris) > _MOST_A_CLIENT:
            raise MCPError(types.INVALID_PARAMS, f"expected at most {_MOST_A_CLIENT} resources, found {len(uris)}")
        try:
            with self._watch.listening(uris):
                return await super().__call__(ctx, params)
        except HeadraceError as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from error
