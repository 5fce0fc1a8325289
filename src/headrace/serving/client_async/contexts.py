"""What a client offers of contexts: as `LiveContext`, over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from headrace.assembly.plain import revive
from headrace.serving import client_wire as wire
from headrace.serving.client_async.link import AsyncLink
from headrace.serving.options import LONGEST_WAIT
from headrace.serving.token import Token

if TYPE_CHECKING:
    from headrace.assembly.pack import Pack
    from headrace.declarations import Context


class AsyncContexts(AsyncLink):
    """The part of a client that is about contexts."""

    async def context(
        self,
        target: Context | str,
        /,
        *,
        budget: int | None = None,
        max_age: str | timedelta | float | None = None,
        on_stale: Literal["wait", "flag", "refuse"] | None = None,
        after: Token | str | None = None,
        timeout: float = 10.0,
        consistent: bool | None = None,
        **arguments: Any,
    ) -> Pack:
        """As `Live.context`."""
        name = wire.name_of(target)
        options = wire.given(
            budget=budget,
            max_age=wire.seconds(max_age),
            on_stale=on_stale,
            after=None if after is None else str(after),
            timeout=timeout,
            consistent=consistent,
        )
        # The pack renders itself here: the server need not.
        asked = arguments | options | {"format": None}
        body = wire.as_json(asked, f"{name}: expected arguments that JSON can hold, found others")
        answer = await self._call("POST", f"/v1/contexts/{quote(name, safe='')}", wait=timeout, content=body)
        return revive(msgspec.json.decode(answer.content))

    async def pack(self, id: str) -> Pack:
        """As `Live.pack`."""
        answer = await self._call("GET", _path(id))
        return revive(msgspec.json.decode(answer.content))

    async def replay(self, id: str) -> dict[str, Any]:
        """As `Live.replay`."""
        found: dict[str, Any] = (await self._call("GET", f"{_path(id)}/replay", wait=LONGEST_WAIT)).json()
        return found


def _path(pack: str) -> str:
    # Dots are encoded, too: a pack "." or ".." is no step in a path.
    return f"/v1/packs/{quote(pack, safe='').replace('.', '%2E')}"
