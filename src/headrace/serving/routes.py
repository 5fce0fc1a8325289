"""Every route but the hot one: pushes, tools, status, dead letters, health, metrics, and the pages.

A handler takes a request and returns a response; what can block runs on a thread of its kind (see `service`), and
what goes wrong is raised: `http` turns it into problem details.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from headrace.errors import InputError
from headrace.ops.metrics import exposition
from headrace.serving import changes, chat, context_routes, library_routes, memory_routes, openapi, pages, tool_forms
from headrace.serving.body import header
from headrace.serving.options import LONGEST_WAIT, ReadOptions, from_query, whole_number
from headrace.serving.service import Service
from headrace.serving.status import status
from headrace.units import from_micros

if TYPE_CHECKING:
    from headrace.stores.dead_letters import DeadLetter

# What is answered without a key: probes, and pages that hold nothing (they ask for the key themselves).
PUBLIC = frozenset({b"/", b"/docs", b"/healthz", b"/readyz"})
_SMALL_BODY = 1 << 20
_MOST_LISTED = 1_000
_PREVIEW = 1_000
_MOST_IDS = 100_000
_LARGEST_ID = 2**63 - 1

Handler = Callable[[Service, Request], Awaitable[Response]]


class Replay(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/dead-letters/replay`."""

    ids: list[int] | None = None


class Drain(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/drain`."""

    timeout: str | float | None = None


def router(service: Service) -> Router:
    """The routes of `service`; an address that there is none for is raised as a 404."""
    routes: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/streams/{stream}", _push),
        ("PUT", "/v1/tables/{table}", library_routes.put_rows),
        ("DELETE", "/v1/tables/{table}", library_routes.delete_rows),
        ("POST", "/v1/collections/{name}/search", library_routes.search),
        ("POST", memory_routes.ONE, memory_routes.append),
        ("GET", memory_routes.ONE, memory_routes.recall),
        ("DELETE", memory_routes.ONE, memory_routes.forget_session),
        ("DELETE", memory_routes.ALL, memory_routes.forget),
        ("GET", "/v1/changes", changes.changes),
        ("GET", "/v1/packs/{id}", changes.pack),
        ("GET", "/v1/packs/{id}/replay", changes.replay),
        ("POST", context_routes.PATH, context_routes.context),
        ("GET", "/v1/tools", _tools),
        ("POST", "/v1/tools/{name}", _call),
        ("POST", "/v1/chat/completions", chat.completions),
        ("GET", "/v1/status", _status),
        ("POST", "/v1/drain", _drain),
        ("GET", "/v1/dead-letters", _dead_letters),
        ("GET", "/v1/dead-letters/{id:int}", _dead_letter),
        ("POST", "/v1/dead-letters/replay", _replay),
        ("GET", "/healthz", _healthz),
        ("GET", "/readyz", _readyz),
        ("GET", "/metrics", _metrics),
        ("GET", "/openapi.json", _openapi),
        ("GET", "/docs", _docs),
        ("GET", "/", _page),
    ]
    by_path: dict[str, dict[str, Handler]] = {}
    for method, path, handler in routes:
        by_path.setdefault(path, {})[method] = handler
    return Router(
        [Route(path, _endpoint(service, path, found), methods=list(found)) for path, found in by_path.items()],
        redirect_slashes=False,
    )


def _endpoint(service: Service, path: str, handlers: dict[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        request.scope["headrace.route"] = path
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method](service, request)

    return endpoint


def reply(value: Any, status_code: int = 200) -> Response:
    """A JSON answer."""
    body = msgspec.json.encode(value)
    return Response(body, status_code, {"cache-control": "no-store"}, media_type="application/json")


async def _push(service: Service, request: Request) -> Response:
    stream = service.live.app.stream_of(request.path_params["stream"])
    return reply(await library_routes.push(service, request, stream))


async def _tools(service: Service, request: Request) -> Response:
    # A bare list: it goes into the `tools=` of a chat completion as it is.
    form = from_query(request.scope["query_string"], ("form",)).get("form", "chat")
    return reply(tool_forms.formed(service.live.app, form))


async def _call(service: Service, request: Request) -> Response:
    name = request.path_params["name"]
    timeout = ReadOptions(from_query(request.scope["query_string"], ("timeout",))).timeout
    async with service.bodies.read(request.scope["headers"], request.receive, _SMALL_BODY) as body:
        arguments = _arguments(body)
    return reply(await service.live.call_async(name, arguments, timeout=timeout))


async def _status(service: Service, _: Request) -> Response:
    return reply(await service.others.run(status, service.live) | {"chat": chat.figures(service)})


async def _drain(service: Service, request: Request) -> Response:
    async with service.bodies.read(request.scope["headers"], request.receive, _SMALL_BODY) as body:
        asked = _decode(body, Drain)
    timeout = LONGEST_WAIT if asked.timeout is None else ReadOptions({"timeout": asked.timeout}).timeout
    await service.waits.run(service.live.drain, timeout)
    return reply({"drained": True})


async def _dead_letters(service: Service, request: Request) -> Response:
    query = from_query(request.scope["query_string"], ("stream", "limit", "after"))
    limit = whole_number("limit", query.get("limit"), 100, 1, _MOST_LISTED)
    after = whole_number("after", query.get("after"), 0, 0, _LARGEST_ID)
    stream = query.get("stream")
    if stream is not None:
        stream = stream if stream in service.live.app.tables else service.live.app.stream_of(stream).name
    letters = service.live.dead_letters

    def listed() -> dict[str, Any]:
        found = letters.list(stream, limit, after, preview=_PREVIEW + 1)
        return {
            "dead_letters": [_shown(letter, _PREVIEW) for letter in found],
            "next": found[-1].id if len(found) == limit else None,
            "counts": letters.count(),
            "dropped": letters.dropped,
        }

    return reply(await service.others.run(listed))


async def _dead_letter(service: Service, request: Request) -> Response:
    number = min(request.path_params["id"], _LARGEST_ID)  # more than that SQLite cannot hold
    letter = await service.others.run(service.live.dead_letters.get, number)
    return reply(_shown(letter, len(letter.raw)))


async def _replay(service: Service, request: Request) -> Response:
    async with service.bodies.read(request.scope["headers"], request.receive, _SMALL_BODY) as body:
        asked = _decode(body, Replay)
    if asked.ids is not None and len(asked.ids) > _MOST_IDS:
        raise InputError(f"expected at most {_MOST_IDS:,} ids, found {len(asked.ids):,}; replay them in parts")
    replayed, rejected = await service.others.run(service.live.replay_dead_letters, asked.ids)
    return reply({"replayed": replayed, "still_rejected": rejected})


async def _healthz(_: Service, __: Request) -> Response:
    # That this answers at all is the news: the event loop turns.
    return reply({"status": "ok"})


async def _readyz(service: Service, _: Request) -> Response:
    ready, reason = service.live.ready()
    return reply({"ready": ready, "reason": reason}, 200 if ready else 503)


async def _metrics(service: Service, request: Request) -> Response:
    accept = header(request.scope["headers"], b"accept").decode("latin-1")
    figures = chat.figures(service)
    text, media_type = await service.others.run(
        lambda: exposition(service.live.stats(), service.tally, accept, figures)
    )
    return Response(text, headers={"content-type": media_type, "cache-control": "no-store"})


async def _openapi(service: Service, _: Request) -> Response:
    return reply(await service.others.run(openapi.document, service.live.app, service.guard.has_key))


async def _docs(_: Service, __: Request) -> Response:
    return pages.html("docs.html")


async def _page(_: Service, __: Request) -> Response:
    return pages.html("live.html")


def _arguments(body: bytearray) -> str:
    """A tool call's arguments: an object, or the text of one in quotes, as a model's `function.arguments` is."""
    if body.lstrip().startswith(b'"'):
        text: str = _decode(body, str)
        return text
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"expected the arguments as JSON, found bytes that are not UTF-8 ({error})") from error


def _decode(body: bytes | bytearray, kind: type[Any]) -> Any:
    if not body.strip() and kind is not str:
        return kind()
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"expected a JSON body as /docs shows, found one that is not: {error}") from error


def _shown(letter: DeadLetter, most: int) -> dict[str, Any]:
    """A dead letter as JSON: its bytes, `most` of them, as text where they are text, else in Base64."""
    shown: dict[str, Any] = {
        "id": letter.id,
        "stream": letter.stream,
        "source": letter.source,
        "reason": letter.reason,
        "at": from_micros(letter.at),
        "truncated": len(letter.raw) > most,
    }
    raw = letter.raw[:most]
    try:
        # A cut may go through the middle of a character; what is whole must be text throughout.
        return shown | {"raw": raw.decode("utf-8", "ignore" if shown["truncated"] else "strict")}
    except UnicodeDecodeError:
        return shown | {"raw_base64": base64.b64encode(raw).decode("ascii")}
