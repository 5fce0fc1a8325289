"""The HTTP server as an ASGI app: the one hot route by hand, the others through Starlette's router.

`GET /v1/features/{view}/{key}` is what a model waits for, so nothing stands in front of it: no middleware, no request
object, no routing table. The path is split as it came (`raw_path`, so a "/" inside a key survives as %2F), the row is
read on the event loop, and two messages answer. Measured on two cores with the engine in the same process, that is
the difference between a tail of a fraction of a millisecond and one of several.

There is one place where errors become answers, `HttpApp.__call__`, for the hot route and the others alike.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec
import polars as pl
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.errors import InputError, TooLargeError, UnknownNameError, nearest
from headrace.ops.security import Guard
from headrace.serving import chat
from headrace.serving.body import MIB, DisconnectedError, header
from headrace.serving.mcp_http import PATH, McpEndpoint
from headrace.serving.options import ReadOptions, from_query
from headrace.serving.problems import NOT_ALLOWED, NOT_FOUND, ProblemError
from headrace.serving.routes import PUBLIC, router
from headrace.serving.service import Service, answer, answer_problem

if TYPE_CHECKING:
    from headrace.features.view import View
    from headrace.serving.live import Live

FEATURES = b"/v1/features/"
MAX_BODY = 64 * MIB
MAX_KEYS = 10_000
MAX_KEYS_BODY = 8 * MIB
ARROW = b"application/vnd.apache.arrow.stream"
# More keys than this are read on a thread: at some 10 µs each they would hold the event loop for too long.
_KEYS_ON_LOOP = 32
_READ, _READ_MANY, _REST = "/v1/features/{view}/{key}", "/v1/features/{view}", "other"


class ReadMany(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/features/{view}`."""

    keys: list[Any]
    after: str | None = None
    now: str | float | None = None
    timeout: str | float | None = None


def http_app(
    live: Live, *, api_key: str | None = None, max_body: int = MAX_BODY, allowed_hosts: Collection[str] = ()
) -> ASGIApp:
    """The ASGI app that serves `live`; closing `live` stays with whoever opened it.

    Args:
        live: The open app.
        api_key: What a request must bring as a bearer token. Without one only this machine's own programs are
            answered: see `headrace.ops.security`.
        max_body: The longest body of a push, in bytes.
        allowed_hosts: Further `Host` names to answer to when there is no key.

    Raises:
        ConfigError: The key cannot be sent in a header.
    """
    return HttpApp(Service(live, Guard(api_key, allowed_hosts), max_body))


class HttpApp:
    """Dispatch, access, and errors into answers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._live = service.live
        self._router = router(service)
        self._mcp = McpEndpoint(self._live)
        self._decode_many = msgspec.json.Decoder(ReadMany).decode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _not_http(scope, receive, send, self._service)
            if scope["type"] == "lifespan":
                await self.ends()
            return
        started = perf_counter()
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        if root := scope.get("root_path"):
            path = path.removeprefix(root.encode())
        # Filled in on the way: which route it was, and what it answered.
        seen: dict[str, Any] = {"route": _REST, "status": 0}
        try:
            if path.startswith(FEATURES):
                await self._features(path, scope, receive, send, seen)
            else:
                await self._rest(path, scope, receive, send, seen)
        except DisconnectedError:
            seen["status"] = 499
        except Exception as error:
            if seen["status"]:
                # Half an answer cannot be taken back; the server closes the connection, and so says that it is half.
                raise
            seen["status"] = await answer_problem(scope, send, _as_ours(error, scope))
        self._service.tally.observe(seen["route"], seen["status"], perf_counter() - started)

    async def ends(self) -> None:
        """Ends what runs beside requests and what would stand open for ever; called as the server begins to stop."""
        self._service.streams.end()
        await self._mcp.close()

    def quick(self, path: bytes, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """The body of a plain `GET /v1/features/{view}/{key}`, or None: then the whole route answers, and says why."""
        if self._live.remote:
            return None
        started = perf_counter()
        try:
            self._service.check_access(headers)
            name, *parts = path[len(FEATURES) :].split(b"/")
            if not parts:
                return None
            view = self._view(name)
            body = self._service.encode(self._live.read(view, view.parse_key([_text(part) for part in parts])))
        except Exception:  # noqa: BLE001 - the whole route meets it again, logs it and answers it
            return None
        self._service.tally.observe(_READ, 200, perf_counter() - started)
        return body

    async def _features(self, path: bytes, scope: Scope, receive: Receive, send: Send, seen: dict[str, Any]) -> None:
        self._service.check_access(scope["headers"])
        name, *parts = path[len(FEATURES) :].split(b"/")
        method = scope["method"]
        if method == "POST" and not parts:
            seen["route"] = _READ_MANY
            await self._read_many(self._view(name), scope, receive, send, seen)
            return
        if not parts or method not in ("GET", "HEAD"):
            raise _wrong_method(method, "GET, HEAD" if parts else "POST")
        seen["route"] = _READ
        view = self._view(name)
        key = view.parse_key([_text(part) for part in parts])
        if query := scope["query_string"]:
            row = await self._service.read(self._live.read, ReadOptions(from_query(query)), view, key)
        elif self._live.remote:
            row = await self._service.remote.run(self._live.read, view, key)
        else:
            row = self._live.read(view, key)
        body = self._service.encode(row)
        seen["status"] = 200
        await answer(send, body)

    async def _read_many(self, view: View, scope: Scope, receive: Receive, send: Send, seen: dict[str, Any]) -> None:
        async with self._service.bodies.read(scope["headers"], receive, MAX_KEYS_BODY) as body:
            asked = self._asked(body)
        options = ReadOptions(msgspec.structs.asdict(asked))
        keys = [view.key(key) for key in asked.keys]
        arrow = ARROW in header(scope["headers"], b"accept")

        def read(**arguments: Any) -> bytes:
            if arrow:
                return _arrow(self._live.read_many(view, keys, **arguments))
            return self._service.encode({"rows": self._live.read_rows(view, keys, **arguments)})

        if len(keys) > _KEYS_ON_LOOP and not options.may_wait:
            data = await self._service.others.run(read, **options.arguments(options.timeout))
        else:
            data = await self._service.read(read, options)
        seen["status"] = 200
        await answer(send, data, content_type=(b"content-type", ARROW if arrow else b"application/json"))

    def _asked(self, body: bytearray) -> ReadMany:
        try:
            asked = self._decode_many(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f'expected a JSON object such as {{"keys": ["u1", "u2"]}}, found one that is not: {error}'
            ) from error
        if len(asked.keys) > MAX_KEYS:
            raise TooLargeError(
                f"expected at most {MAX_KEYS:,} keys, found {len(asked.keys):,}; read them in several requests"
            )
        return asked

    def _view(self, name: bytes) -> View:
        views = self._live.app.views
        text = _text(name)
        view = views.get(text)
        if view is None:
            raise UnknownNameError(f"expected the name of a view, found {text!r}; {nearest(text, views)}")
        return view

    async def _rest(self, path: bytes, scope: Scope, receive: Receive, send: Send, seen: dict[str, Any]) -> None:
        if path not in PUBLIC:
            self._service.check_access(scope["headers"])

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
            await send(message)

        # Starlette then raises what it cannot route, instead of answering in plain text.
        scope["app"] = self
        try:
            if path == PATH:
                scope["headrace.route"] = "/mcp"
                await self._mcp(scope, receive, noted)
                return
            await self._router(scope, receive, noted)
        finally:
            seen["route"] = scope.get("headrace.route", _REST)


def _as_ours(error: Exception, scope: Scope) -> Exception:
    """What Starlette's router raises, as a problem."""
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == 405:
        return _wrong_method(scope["method"], (error.headers or {}).get("Allow", ""))
    return ProblemError(NOT_FOUND, f"expected an address that /docs lists, found {scope['path'][:200]!r}")


def _wrong_method(method: str, allowed: str) -> ProblemError:
    return ProblemError(NOT_ALLOWED, f"expected {allowed}, found {method[:20]}", {"allow": allowed})


def _text(part: bytes) -> str:
    if b"%" in part:
        part = unquote_to_bytes(part)
    try:
        return part.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"expected a path of percent-encoded UTF-8, found {part[:60]!r}") from error


def _arrow(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


async def _not_http(scope: Scope, receive: Receive, send: Send, service: Service) -> None:
    """Lifespan is acknowledged (the live app has an owner who opens and closes it); a WebSocket is turned away."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            chat.start(service)
        if message["type"] == "lifespan.shutdown":
            await service.close()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
