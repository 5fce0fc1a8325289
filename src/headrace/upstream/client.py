"""One request to one server, up to the moment when its answer begins, and then the answer.

Until an answer begins, nothing has been promised to anybody and the request may be made again elsewhere; from then on
it is this server's or nobody's. So `begin` returns only once the first event of a stream (or the whole of an answer
that is not streamed) is there and has been checked, and everything that goes wrong before is one `UpstreamError` that
says whether to try again. Each wait is bounded: connecting, the first byte, the pause between two chunks, the whole.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headrace.upstream.breaker import Breaker
from headrace.upstream.failures import UpstreamError, broken, malformed, slow
from headrace.upstream.reach import reach
from headrace.upstream.retrying import Waits, retry_after
from headrace.upstream.spec import Upstream
from headrace.upstream.sse import SseError, SseReader
from headrace.upstream.wire import Connection, Http, SlowConnectError, WireError

MOST_ANSWER = 64 << 20
_MOST_REFUSAL = 64 << 10
_CLIENTS_FAULT = frozenset({400, 404, 413, 415, 422})
_AGAIN = frozenset({408, 409, 425, 429})
_DONE = b"[DONE]"
Event = tuple[bytes, dict[str, Any]]
_json = msgspec.json.Decoder().decode


class Server:
    """An upstream with what is known of it now.

    Args:
        spec: Its declaration; the key is read here.
        breaker: Its breaker.

    Raises:
        ConfigError: The key cannot be had, or the server not be reached the way that the environment says.
    """

    def __init__(self, spec: Upstream, breaker: Breaker | None = None) -> None:
        self.spec = spec
        self.name = f"{spec.url.rstrip('/')}#{spec.model or ''}"
        self.breaker = breaker or Breaker()
        self.waits = Waits()
        self.outstanding = 0
        self.healthy = True
        self.resting_until = 0.0
        self.requests = self.failures = 0
        key = self._key = spec.key()
        authorization = {"authorization": f"Bearer {key}"} if key else {}
        self.http = Http(reach(spec.url), spec.seconds("connect"), spec.concurrent, authorization)
        self.path = urlsplit(spec.endpoint).path
        # Once, not for every request: the limits are texts such as "30s".
        self.first, self.between, self.total = (spec.seconds(one) for one in ("first_byte", "between", "total"))

    def quoted(self, found: Any, most: int = 60) -> str:
        """What the server sent, as it may be shown and logged: servers that refuse a key like to quote it."""
        text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
        text = (text.replace(self._key, "***") if self._key else text)[:most]
        return "".join(one if one.isprintable() else " " for one in text)  # a line of a log stays one

    async def ask_health(self) -> int:
        """The status with which it answers when it is asked whether it is well.

        Raises:
            WireError: It does not.
        """
        parts = urlsplit(self.spec.health_url or self.spec.url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection = await self.http.ask("GET", path or "/")
        try:
            await _bytes(connection, _MOST_REFUSAL)  # read, so that the connection can be used again
            return connection.status
        finally:
            connection.close()

    def free(self, now: float) -> bool:
        """Whether it may be given a request at this moment."""
        return self.outstanding < self.spec.concurrent and self.up(now)

    def up(self, now: float) -> bool:
        """Whether it would be, if it had room."""
        return self.healthy and self.breaker.allows(now) and self.resting_until <= now


class Answer:
    """An answer that has begun; `close` it in any case.

    Attributes:
        server: Whose it is.
        whole: Of a request that is not streamed: the answer.
    """

    def __init__(self, server: Server, connection: Connection, whole: dict[str, Any] | None = None) -> None:
        self.server = server
        self.whole = whole
        self._connection = connection
        self._reader = SseReader()
        self._first: list[Event] = []
        self._failure: UpstreamError | None = None
        self._read = 0
        self._finished = self._over = False
        self._closed = False
        self._ends = asyncio.get_running_loop().time() + server.total

    async def start(self) -> None:
        """Read the first event."""
        self._first = await self.events()
        if not self._first:
            raise malformed(self.server.name, "a stream that ended before it began")
        self._connection.limit(self.server.between, self._ends)

    async def events(self) -> list[Event]:
        """The next events of the stream: those that came together, as they came and read; none at its end.

        Raises:
            UpstreamError: It paused too long, broke, was cut off, or holds what is no chunk. What came before that has
                been returned before.
        """
        if self._first:
            first, self._first = self._first, []
            return first
        if self._failure is not None:
            raise self._failure
        while not self._over:
            try:
                data = await self._connection.read()
            except TimeoutError:
                raise slow(self.server.name, "the next part of its answer", self.server.between) from None
            except (WireError, OSError) as error:
                raise broken(self.server.name, error) from error
            if found := self._events(data):
                return found
        return []

    def _events(self, data: bytes) -> list[Event]:
        found: list[Event] = []
        try:
            for event in self._take(data):
                if event.strip() == _DONE:
                    self._over = True
                    break
                found.append((event, self._chunk(event)))
        except UpstreamError as error:
            if not found:
                raise
            self._failure = error
        return found

    def _take(self, data: bytes) -> list[bytes]:
        if not data:
            self._over = True
            if not self._finished or not self._reader.empty:
                raise malformed(self.server.name, "a stream that was cut off")
            return []
        self._read += len(data)
        if self._read > MOST_ANSWER:
            raise malformed(self.server.name, f"a stream of more than {MOST_ANSWER >> 20} MiB")
        try:
            return self._reader.feed(data)
        except SseError as error:
            found = f": {self.server.quoted(error.found)!r}" if error.found else ""
            raise malformed(self.server.name, f"{error}{found}") from error

    def _chunk(self, event: bytes) -> dict[str, Any]:
        try:
            chunk = _json(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(self.server.name, f"a chunk that is not JSON ({error})") from error
        checked = _checked(self.server, chunk, "delta")
        self._finished = self._finished or any(one.get("finish_reason") for one in checked["choices"])
        return checked

    def close(self) -> None:
        """Give the connection back, or close it when the answer is not whole; may be called again."""
        if not self._closed:
            self._closed = True
            self.server.outstanding -= 1
            self._connection.close(at_end=self._over)


async def begin(server: Server, body: bytes, *, stream: bool) -> Answer:
    """Send a request and wait until its answer begins.

    Raises:
        UpstreamError: It did not; `again` says whether another attempt may help.
    """
    now = time.monotonic()
    server.breaker.begin(now)
    server.outstanding += 1
    server.requests += 1
    answer: Answer | None = None
    try:
        answer = await _within(server, body, stream)
        server.breaker.success()
        server.waits.add(time.monotonic() - now)
        return answer
    except UpstreamError as error:
        failed(server, error)
        raise
    except BaseException:
        server.breaker.abandon()
        raise
    finally:
        if answer is None:
            server.outstanding -= 1


def failed(server: Server, error: UpstreamError) -> None:
    """Note what an error says about a server."""
    now = time.monotonic()
    if error.retry_after is not None:
        server.resting_until = max(server.resting_until, now + error.retry_after)
    if error.harmful:
        server.failures += 1
        server.breaker.failure(now)
    else:
        server.breaker.abandon()


async def _within(server: Server, body: bytes, stream: bool) -> Answer:
    # An answer that is not streamed begins when it is whole.
    seconds = server.first if stream else server.total
    try:
        async with asyncio.timeout(seconds):
            return await _send(server, body, stream)
    except TimeoutError:
        raise slow(server.name, "an answer to begin" if stream else "an answer", seconds) from None
    except SlowConnectError as error:
        raise slow(server.name, "a connection", server.spec.seconds("connect")) from error
    except (WireError, OSError) as error:
        raise broken(server.name, error) from error


async def _send(server: Server, body: bytes, stream: bool) -> Answer:
    kind = "text/event-stream" if stream else "application/json"
    connection = await server.http.ask("POST", server.path, body, accept=kind)
    try:
        if (packed := connection.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
            raise malformed(server.name, f"one in {packed[:20]!r}, where the request takes none but identity")
        if connection.status != 200:
            raise await _refusal(server, connection)
        if not stream:
            return Answer(server, connection, await _whole(server, connection))
        answer = Answer(server, connection)
        await answer.start()
        return answer
    except BaseException:
        connection.close()
        raise


async def _whole(server: Server, connection: Connection) -> dict[str, Any]:
    data = await _bytes(connection, MOST_ANSWER)
    if data is None:
        raise malformed(server.name, f"an answer of more than {MOST_ANSWER >> 20} MiB")
    try:
        value = _json(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(server.name, f"an answer that is not JSON ({error})") from error
    return _checked(server, value, "message")


async def _bytes(connection: Connection, most: int) -> bytes | None:
    data = bytearray()
    while part := await connection.read():
        data += part
        if len(data) > most:
            return None
    return bytes(data)


def _checked(server: Server, value: Any, part: str) -> dict[str, Any]:
    """A chunk or an answer in which what is read here has the types that it should."""
    name = server.name
    if not isinstance(value, dict):
        raise malformed(name, f"JSON that is no object: {server.quoted(value)!r}")
    if (error := value.get("error")) is not None:
        raise UpstreamError(f"{name}: found an error in its answer: {_message(server, error)}")
    choices = value.get("choices")
    if not isinstance(choices, list):
        raise malformed(name, "JSON without a list of choices")
    if not choices and part == "message":
        raise malformed(name, "an answer without a choice")
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(choice.get(part, {}) or {}, dict):
            raise malformed(name, f"a choice without a {part}")
        inner = choice.get(part) or {}
        calls = inner.get("tool_calls")
        if not isinstance(inner.get("content"), str | list | None) or not isinstance(calls, list | None):
            raise malformed(name, f"a {part} whose content is no text, or whose tool_calls are no list")
        for call in calls or ():
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict | None) or not isinstance(call, dict):
                raise malformed(name, "a tool call that is no object")
    return value


async def _refusal(server: Server, connection: Connection) -> UpstreamError:
    data = await _bytes(connection, _MOST_REFUSAL) or b""
    status = connection.status
    try:
        found = _json(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    error = found.get("error", found) if isinstance(found, dict) else server.quoted(data, 300)
    text = f"{server.name}: expected an answer, found status {status}: {_message(server, error)}"
    if status in _CLIENTS_FAULT:
        return UpstreamError(text, status, again=False, harmful=False, code="upstream_refused")
    if status in _AGAIN:
        wait = retry_after(connection.headers.get("retry-after"))
        return UpstreamError(text, 429, harmful=False, retry_after=wait, code="upstream_busy")
    if status >= 500:
        wait = retry_after(connection.headers.get("retry-after")) if status == 503 else None
        return UpstreamError(text, 502, retry_after=wait, code="upstream_failed")
    # A wrong key is ours, not the client's: it must not read as if its own were wrong.
    return UpstreamError(text, 502, again=True, harmful=True, code="upstream_refused")


def _message(server: Server, error: Any) -> str:
    return server.quoted(error.get("message") if isinstance(error, dict) else error, 500)
