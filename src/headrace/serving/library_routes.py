"""The routes of tables and collections: rows in and out of a table, and searches.

Each may block (a write is synced to the disk, a search embeds its query), so each runs on a thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.errors import InputError, TooLargeError
from headrace.serving.body import MIB, format_of, header, unpacked
from headrace.serving.options import ReadOptions, from_query, whole_number
from headrace.serving.service import Service

if TYPE_CHECKING:
    from headrace.serving.token import Token

MOST_KEYS = 10_000
_KEYS_BODY = 8 * MIB
_QUERY_BODY = MIB
# Of the rows that a push rejects, as many are named in its answer; all are counted, and all are dead letters.
_ERRORS_NAMED = 100
_MOST_ERRORS_NAMED = 10_000

Handler = Callable[[Service, Request], Awaitable[Response]]


class Delete(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `DELETE /v1/tables/{table}`."""

    keys: list[Any]
    erase: bool = False


class Search(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/collections/{name}/search`."""

    query: str
    k: int = 5
    where: dict[str, Any] | None = None
    mode: str = "hybrid"
    diversity: float = 0.0
    after: str | None = None
    timeout: str | float | None = None


def pushed(token: Token, named: int) -> dict[str, Any]:
    """What a push is answered."""
    return {
        "accepted": token.accepted,
        "rejected": len(token.rejected),
        "errors": [{"row": reject.row, "reason": reject.reason} for reject in token.rejected[:named]],
        "token": str(token),
    }


async def push(service: Service, request: Request, target: Any) -> dict[str, Any]:
    """Takes a body of rows into a stream or a table."""
    query = from_query(request.scope["query_string"], ("format", "errors"))
    named = whole_number("errors", query.get("errors"), _ERRORS_NAMED, 0, _MOST_ERRORS_NAMED)
    headers = request.scope["headers"]

    async with service.bodies.read(headers, request.receive) as body:

        def work() -> Token:
            data = unpacked(body, header(headers, b"content-encoding"), service.bodies.limit)
            format_ = format_of(header(headers, b"content-type"), data, query.get("format", ""))
            return service.live.push(target, bytes(data), format=format_)

        token = await service.pushes.run(work)
    return pushed(token, named)


async def put_rows(service: Service, request: Request) -> Response:
    """`PUT /v1/tables/{table}`: rows that are inserted, or take the place of those with their keys."""
    table = service.live.app.table_of(request.path_params["table"])
    return _reply(await push(service, request, table))


async def delete_rows(service: Service, request: Request) -> Response:
    """`DELETE /v1/tables/{table}`: takes rows away."""
    table = service.live.app.table_of(request.path_params["table"])
    async with service.bodies.read(request.scope["headers"], request.receive, _KEYS_BODY) as body:
        asked = _decoded(body, Delete, '{"keys": ["a1", "a2"]}')
    if len(asked.keys) > MOST_KEYS:
        raise TooLargeError(f"expected at most {MOST_KEYS:,} keys, found {len(asked.keys):,}; delete them in parts")
    token = await service.pushes.run(service.live.delete, table, asked.keys, erase=asked.erase)
    return _reply({"deleted": token.accepted, "token": str(token)})


async def search(service: Service, request: Request) -> Response:
    """`POST /v1/collections/{name}/search`."""
    collection = service.live.app.collection_of(request.path_params["name"])
    async with service.bodies.read(request.scope["headers"], request.receive, _QUERY_BODY) as body:
        asked = _decoded(body, Search, '{"query": "why did the launch slip?", "k": 5}')
    options = ReadOptions({"after": asked.after, "timeout": asked.timeout})

    def work() -> bytes:
        hits = service.live.search(
            collection,
            asked.query,
            k=asked.k,
            where=asked.where,
            mode=asked.mode,
            diversity=asked.diversity,
            after=options.after,
            timeout=options.timeout,
        )
        return service.encode({"hits": hits})

    pool = service.waits if options.may_wait else service.searches
    return Response(await pool.run(work), headers={"cache-control": "no-store"}, media_type="application/json")


def _decoded(body: bytearray, kind: type[Any], example: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"expected a JSON body such as {example}, found one that is not: {error}") from error


def _reply(value: Any) -> Response:
    body = msgspec.json.encode(value)
    return Response(body, headers={"cache-control": "no-store"}, media_type="application/json")
