"""What `Remote` offers of contexts: as `LiveContext`, over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import httpx
import msgspec

from headrace.assembly.plain import revive
from headrace.errors import InputError
from headrace.serving.token import Token
from headrace.units import SECOND, duration

if TYPE_CHECKING:
    from headrace.assembly.pack import Pack
    from headrace.declarations import Context


class RemoteContext:
    """The part of `Remote` that is about contexts."""

    def _call(self, method: str, path: str, *, wait: float = 0.0, **request: Any) -> httpx.Response:
        raise NotImplementedError

    def context(
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
        name = target if isinstance(target, str) else target.name
        options = {
            "budget": budget,
            "max_age": None if max_age is None else duration(max_age) / SECOND,
            "on_stale": on_stale,
            "after": None if after is None else str(after),
            "timeout": timeout,
            "consistent": consistent,
        }
        asked = arguments | {key: value for key, value in options.items() if value is not None}
        try:
            # The pack renders itself here: the server need not.
            body = msgspec.json.encode(asked | {"format": None})
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise InputError(f"{name}: expected arguments that JSON can hold, found others ({error})") from error
        answer = self._call("POST", f"/v1/contexts/{quote(name, safe='')}", wait=timeout, content=body)
        return revive(msgspec.json.decode(answer.content))
