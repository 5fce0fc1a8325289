"""The route of contexts: a request in, a pack out, rendered as it was asked for.

The body is flat: the function's arguments beside the options, which is why no parameter may have an option's name.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.assembly.plain import plain
from headrace.declarations import RESERVED
from headrace.errors import InputError
from headrace.serving.body import MIB
from headrace.serving.options import ReadOptions
from headrace.serving.service import Service

PATH = "/v1/contexts/{name}"
_BODY = 2 * MIB


async def context(service: Service, request: Request) -> Response:
    """`POST /v1/contexts/{name}`."""
    target = service.live.app.context_of(request.path_params["name"])
    async with service.bodies.read(request.scope["headers"], request.receive, _BODY) as body:
        asked = _object(body)
    options = {name: asked.pop(name) for name in RESERVED if name in asked}
    read = ReadOptions({name: options.get(name) for name in ("after", "max_age", "timeout")})
    form = options.get("format", "markdown")
    consistent = options.get("consistent")
    if consistent is not None and not isinstance(consistent, bool):
        raise InputError(f"expected consistent to be true or false, found {consistent!r}")

    def work() -> bytes:
        pack = service.live.context(
            target,
            budget=options.get("budget"),
            max_age=read.max_age,
            on_stale=options.get("on_stale"),
            after=read.after,
            timeout=read.timeout,
            consistent=consistent,
            **asked,
        )
        rendered = {} if form is None else {"rendered": pack.render(form)}
        return service.encode(plain(pack) | rendered)

    answer = await service.contexts.run(work)
    return Response(answer, headers={"cache-control": "no-store"}, media_type="application/json")


def _object(body: bytearray) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        found: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f'expected a JSON object such as {{"question": "…", "budget": 1500}}, found what is none: {error}'
        ) from error
    return found
