"""HTTP/1.1 to one server, as lean as a stream of small parts wants it: kept-alive connections, one request on each.

An answer of a model comes in hundreds of small parts, and what is spent on each is spent hundreds of times. A general
client passes every part through half a dozen layers (some 150 µs); here it goes from the socket to the reader in one
step. The bytes are read by llhttp (`httptools`), which the server uses too; TLS is asyncio's. What a reader does not
take is bounded: past that, the socket is not read.

Closing is a plain call, not a coroutine: it cannot be cancelled half-way, so what was won in the moment in which it was
given up can always be let go of.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from typing import cast

import httptools

from headrace.upstream.reach import Reach

MOST_HEAD = 64 << 10
_MOST_BUFFERED = 256 << 10
# Servers keep a connection for five seconds and more: one that has lain for longer may be closed while it is used.
_KEEP_SECONDS = 4.0
_LINGER_SECONDS = 1.0
_STOPPED = "no more connections are made: the server stops"


class WireError(Exception):
    """A connection that could not be made, broke, or holds what is no HTTP."""


class SlowConnectError(WireError):
    """A connection that took too long to make."""


class _StaleError(WireError):
    """A kept connection that the server had closed: nothing of the request was answered."""


class Connection(asyncio.Protocol):
    """A connection, with the answer that is on it.

    Attributes:
        status: Of the answer.
        headers: Of the answer, by their lower-case names.
    """

    def __init__(self, home: Http) -> None:
        self._home = home
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        self._used = self._asked = self._lost = False
        self._renew()

    def _renew(self) -> None:
        self.status, self.headers = 0, dict[str, str]()
        self._parts: list[bytes] = []
        self._buffered = self._head_bytes = self._since_body = 0
        self._headed = self._complete = self._paused = False
        self._keep = self._lingers = False
        self._error: Exception | None = None
        self._due = self._between = self._ends = self._armed = math.inf

    # -- what the loop calls -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._home.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._unwatch()
        self._home.forget(self)
        if self._asked and not self._complete:
            if self._headed and exc is None and self._until_end():
                self._complete = True
            else:
                self._fail(WireError(f"the connection was closed before the answer's end ({exc or 'no reason given'})"))
        self._wake()

    def data_received(self, data: bytes) -> None:
        if not self._asked or self._complete:
            self.abort()  # nobody asked for it: what comes next could not be told apart from it
            return
        self._since_body += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._complete:  # after it, it is no part of the answer
                self._fail(WireError(f"bytes that are no HTTP answer ({error})"))
            self.abort()
        if not self._headed:
            self._head_bytes += len(data)
        if self._since_body > MOST_HEAD and not self._complete:
            # The parser keeps a header, and a trailer, until it is whole.
            self._fail(WireError(f"a header of more than {MOST_HEAD >> 10} KiB"))
            self.abort()
            return
        if self._lingers and (self._complete or self._parts):
            self.close()
        self._wake()

    # -- what the parser calls ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Of llhttp."""
        if self._complete:
            self._keep = False  # a second answer to one request; it is passed over

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of llhttp."""
        if not self._headed:  # after it come a body's trailers
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Of llhttp."""
        if self._headed:
            return
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:
            self.headers = {}  # an answer before the answer
        else:
            self._headed = True

    def on_body(self, body: bytes) -> None:
        """Of llhttp."""
        if self._complete:
            return
        self._parts.append(body)
        self._since_body = 0
        self._buffered += len(body)
        if self._buffered > _MOST_BUFFERED and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Of llhttp."""
        if self._headed and not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # -- what is asked of it -----------------------------------------------------------------------------------------

    async def exchange(self, request: bytes) -> None:
        """Send a request and wait for the header of its answer.

        Raises:
            WireError: The connection broke, or what came is no HTTP.
        """
        again, self._used = self._used, True
        self._renew()
        self._asked = True
        try:
            if self._transport is None or self._lost or self._transport.is_closing():
                raise (_StaleError if again else WireError)("the connection was closed")
            self._transport.write(request)
            while not self._headed:
                if self._error is not None:
                    if again and not self._head_bytes and self._lost:
                        raise _StaleError(str(self._error)) from self._error
                    raise self._error
                await self._wait()
        except BaseException:
            self.close()
            raise

    def limit(self, between: float, ends: float) -> None:
        """Bound every further read: by so many seconds, and by this moment of the loop's clock."""
        self._between, self._ends = between, ends
        self._arm(min(self._loop.time() + between, ends))

    async def read(self) -> bytes:
        """The next part of the body; empty at its end.

        Raises:
            WireError: The connection broke, or what came is no HTTP.
            TimeoutError: Nothing came within the limit.
        """
        while True:
            if self._parts:
                data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts, self._buffered = [], 0
                if self._paused and self._transport is not None and not self._transport.is_closing():
                    self._paused = False
                    self._transport.resume_reading()
                return data
            if self._error is not None:
                raise self._error
            if self._complete:
                return b""
            await self._wait()

    def close(self, *, at_end: bool = False) -> None:
        """Keep the connection for another request if this one's answer is whole, else break it off.

        Args:
            at_end: Nothing more is to come but the mark of the body's end, which is waited for without the caller.
        """
        self._unwatch()
        if at_end and self._asked and not self._complete and not self._parts and not self._lost:
            self._lingers = True
            self._watch = self._loop.call_later(_LINGER_SECONDS, self.abort)
            return
        asked, self._asked = self._asked, False
        if asked and self._complete and self._keep and not self._parts and self._is_quiet():
            self._home.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Break it off."""
        self._unwatch()
        self._home.forget(self)
        if self._transport is not None and not self._lost:
            self._transport.abort()

    async def encrypt(self, reach: Reach) -> None:
        """Begin TLS on what is a tunnel now."""
        assert self._transport is not None
        assert reach.tls is not None
        self._parser = httptools.HttpResponseParser(self)
        self._asked = False
        made = await self._loop.start_tls(self._transport, self, reach.tls, server_hostname=reach.host)
        assert made is not None
        self._transport, self._used = made, False

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        if self._between < math.inf:
            self._due = min(self._loop.time() + self._between, self._ends)
            if self._armed > self._due:
                self._arm(self._due)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _arm(self, when: float) -> None:
        # One timer for the whole answer, which looks when the last read would be late: not one for every part.
        self._unwatch()
        self._armed = when
        self._watch = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self._waiter is None:  # it is the reader who takes his time
            self._arm(now + self._between)
        elif now < self._due:
            self._arm(self._due)
        else:
            self._watch = None
            self._fail(TimeoutError())

    def _is_quiet(self) -> bool:
        """Whether it is open, and the request was sent to its end: a server may answer before it has read that."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def _until_end(self) -> bool:
        """Whether the body ends with the connection."""
        chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        return not chunked and "content-length" not in self.headers


class Http:
    """A client of one server; for one event loop.

    Args:
        reach: The way to the server.
        connect: Seconds that a connection may take.
        keep: How many idle connections are kept.
        headers: Sent with every request.
    """

    def __init__(self, reach: Reach, connect: float, keep: int, headers: dict[str, str]) -> None:
        self._reach, self._connect_seconds, self._most = reach, connect, keep
        every = {"host": reach.authority, "accept-encoding": "identity", "user-agent": "headrace"}
        lines = every | reach.headers | headers
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._idle: deque[Connection] = deque()
        self._closed = False
        self.connections: set[Connection] = set()

    async def ask(self, method: str, path: str, body: bytes = b"", *, accept: str = "application/json") -> Connection:
        """Send a request; `close` the answer in any case.

        Raises:
            WireError: No connection could be made, it broke, or what came is no HTTP.
        """
        head = f"{method} {self._reach.target(path)} HTTP/1.1\r\n{self._lines}accept: {accept}\r\n"
        if method == "POST":
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        request = head.encode("latin-1") + b"\r\n" + body
        while (kept := self._kept()) is not None:
            with contextlib.suppress(_StaleError):  # then another one, or a new one
                await kept.exchange(request)
                return kept
        made = await self._connected()
        await made.exchange(request)
        return made

    def _kept(self) -> Connection | None:
        """The connection that was used last: the others may then be let go of in time."""
        oldest = asyncio.get_running_loop().time() - _KEEP_SECONDS
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle[0].abort()
        return self._idle.pop() if self._idle else None

    def keep(self, connection: Connection) -> None:
        """Take back what may be used again."""
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        if len(self._idle) > self._most:
            self._idle[0].abort()

    def forget(self, connection: Connection) -> None:
        """It is broken off."""
        self.connections.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        """Break off all connections, and make no more."""
        self._closed = True
        for one in list(self.connections):
            one.abort()

    async def _connected(self) -> Connection:
        if self._closed:
            raise WireError(_STOPPED)
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await self._connect()
        except TimeoutError:
            raise SlowConnectError("no connection in time") from None
        except (OSError, UnicodeError) as error:  # the latter of a host's name that cannot be one
            raise WireError(f"{type(error).__name__}: {error}") from error

    async def _connect(self) -> Connection:
        loop, reach = asyncio.get_running_loop(), self._reach
        made: list[Connection] = []

        def factory() -> Connection:
            made.append(Connection(self))
            return made[-1]

        tls = reach.tls if reach.tunnel is None else None
        name = reach.host if tls is not None else None
        try:
            await loop.create_connection(factory, *reach.address, ssl=tls, server_hostname=name)
            connection = made[-1]
            if self._closed:
                raise WireError(_STOPPED)
            if reach.tunnel is not None:
                await connection.exchange(reach.tunnel)
                if connection.status != 200:
                    raise WireError(f"the proxy answered with status {connection.status}")
                await connection.encrypt(reach)
            return connection
        except BaseException:
            for one in made:
                one.abort()
            raise
