"""The routes of memories: turns in, what is recalled out, and forgetting.

A session is the rest of the path, whatever is in it; it is read from the bytes that were sent, so that no two sessions
are taken for one because neither was UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from headrace.errors import InputError
from headrace.serving.options import ReadOptions, from_query, whole_number
from headrace.serving.service import Service

if TYPE_CHECKING:
    from headrace.runners.library.memory_turns import Recalled
    from headrace.serving.token import Token

_BODY = 8 << 20
_MOST_TURNS = 1_000
_MOST_OLDER = 100
_PATH = b"/v1/memories/"
# What is made of turns (chunks, vectors, summaries) goes with them, which takes longer than a read.
_FORGET_SECONDS = "30"


class _Rest(Convertor[str]):
    """The rest of a path: any characters, slashes and line ends too."""

    regex = r"(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("headrace_rest", _Rest())
ONE = "/v1/memories/{name}/{session:headrace_rest}"
ALL = "/v1/memories/{name}"


class Append(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/memories/{name}/{session}`."""

    turns: list[dict[str, Any]]
    subject: str | None = None


async def append(service: Service, request: Request) -> Response:
    """`POST /v1/memories/{name}/{session}`: what was said."""
    memory, session = service.live.app.memory_of(request.path_params["name"]), _session(request)
    async with service.bodies.read(request.scope["headers"], request.receive, _BODY) as body:
        try:
            asked = msgspec.json.decode(body, type=Append)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            example = '{"turns": [{"role": "user", "content": "…"}]}'
            raise InputError(f"expected a JSON body such as {example}, found one that is not: {error}") from error

    def work() -> Token:
        return service.live.remember(memory, session, asked.turns, subject=asked.subject)

    token = await service.pushes.run(work)
    return _reply({"remembered": token.accepted, "token": str(token)})


async def recall(service: Service, request: Request) -> Response:
    """`GET /v1/memories/{name}/{session}`: what is recalled."""
    memory, session = service.live.app.memory_of(request.path_params["name"]), _session(request)
    query = from_query(request.scope["query_string"], ("question", "turns", "k", "after", "timeout"))
    options = ReadOptions({"after": query.get("after"), "timeout": query.get("timeout")})
    turns = whole_number("turns", query.get("turns"), memory.turns, 0, _MOST_TURNS)
    k = whole_number("k", query.get("k"), 3, 0, _MOST_OLDER)

    def work() -> Recalled:
        return service.live.recall(
            memory,
            session,
            query.get("question", ""),
            turns=turns,
            k=k,
            after=options.after,
            timeout=options.timeout,
        )

    pool = service.waits if options.may_wait else service.searches
    return _reply(await pool.run(work))


async def forget_session(service: Service, request: Request) -> Response:
    """`DELETE /v1/memories/{name}/{session}`."""
    memory, session = service.live.app.memory_of(request.path_params["name"]), _session(request)
    timeout = _forgetting(from_query(request.scope["query_string"], ("timeout",)))
    count = await service.waits.run(service.live.forget, memory, session=session, timeout=timeout)
    return _reply({"forgotten": count})


async def forget(service: Service, request: Request) -> Response:
    """`DELETE /v1/memories/{name}?subject=…` or `?before=…`."""
    memory = service.live.app.memory_of(request.path_params["name"])
    query = from_query(request.scope["query_string"], ("subject", "before", "timeout"))
    before, timeout = ReadOptions({"now": query.get("before")}).now, _forgetting(query)
    count = await service.waits.run(
        service.live.forget, memory, subject=query.get("subject"), before=before, timeout=timeout
    )
    return _reply({"forgotten": count})


def _forgetting(query: Mapping[str, str]) -> float:
    """How long to wait until what was made of the turns is gone, too."""
    return ReadOptions({"timeout": query.get("timeout", _FORGET_SECONDS)}).timeout


def _session(request: Request) -> str:
    raw = request.scope.get("raw_path")
    if not isinstance(raw, bytes) or not raw.startswith(_PATH):
        return str(request.path_params["session"])
    sent = raw.partition(b"?")[0][len(_PATH) :].partition(b"/")[2]
    try:
        return unquote_to_bytes(sent).decode()
    except UnicodeDecodeError:
        raise InputError("expected the session in the path to be percent-encoded UTF-8, found other bytes") from None


def _reply(value: Any) -> Response:
    return Response(msgspec.json.encode(value), headers={"cache-control": "no-store"}, media_type="application/json")
