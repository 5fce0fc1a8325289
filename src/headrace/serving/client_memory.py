"""What `Remote` offers of memories: as `LiveMemories`, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import msgspec

from headrace.errors import InputError
from headrace.runners.library.memory_turns import Recalled, identifier
from headrace.serving.token import Token
from headrace.units import from_micros

if TYPE_CHECKING:
    from headrace.declarations import Memory

# As long as the server waits until what it forgets is gone from its disk.
_FORGETTING = 30.0


class RemoteMemories:
    """The part of `Remote` that is about memories."""

    def _call(self, method: str, path: str, *, wait: float = 0.0, **request: Any) -> httpx.Response:
        raise NotImplementedError

    def remember(
        self,
        memory: Memory | str,
        session: str,
        role: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        text: str | None = None,
        *,
        subject: str | None = None,
        id: str | None = None,
        at: datetime | int | None = None,
    ) -> Token:
        """As `Live.remember`. With an `id` it may be tried again: the same turn is stored once."""
        if isinstance(role, str):
            turn: dict[str, Any] = {"role": role, "text": text}
            turn |= {name: value for name, value in (("id", id), ("at", at)) if value is not None}
            turns: list[Mapping[str, Any]] = [turn]
        elif text is not None or id is not None or at is not None:
            raise InputError(
                "expected messages to say their text, id and at themselves, found one of these beside them"
            )
        else:
            turns = [role] if isinstance(role, Mapping) else list(role)
        try:
            body = msgspec.json.encode({"turns": turns, "subject": subject})
        except (TypeError, ValueError) as error:
            raise InputError(f"expected messages that JSON can hold, found others ({error})") from error
        answer = self._call("POST", _path(memory, session), content=body).json()
        return Token(Token.parse(answer["token"]).positions, answer["remembered"])

    def recall(
        self,
        memory: Memory | str,
        session: str,
        question: str = "",
        *,
        turns: int | None = None,
        k: int = 3,
        after: Token | str | None = None,
        timeout: float = 10.0,
    ) -> Recalled:
        """As `Live.recall`."""
        asked: dict[str, Any] = {"question": question, "k": k, "timeout": timeout}
        if turns is not None:
            asked["turns"] = turns
        if after is not None:
            asked["after"] = str(after)
        answer = self._call("GET", _path(memory, session), wait=timeout, params=asked)
        return msgspec.json.decode(answer.content, type=Recalled)

    def forget(
        self,
        memory: Memory | str,
        *,
        session: str | None = None,
        subject: str | None = None,
        before: datetime | int | None = None,
    ) -> int:
        """As `Live.forget`."""
        if sum(one is not None for one in (session, subject, before)) != 1:
            raise InputError(f"{_name(memory)}: expected one of session=, subject= and before=, found none or several")
        asked: dict[str, Any] = {}
        if subject is not None:
            asked["subject"] = subject
        if before is not None:
            asked["before"] = (from_micros(before) if isinstance(before, int) else before).isoformat()
        path = _path(memory, session) if session is not None else f"/v1/memories/{quote(_name(memory), safe='')}"
        answer = self._call("DELETE", path, wait=_FORGETTING, params=asked)
        return int(answer.json()["forgotten"])


def _path(memory: Memory | str, session: str) -> str:
    identifier("the session", session)
    # Dots are encoded, too: a session "." or ".." is no step in a path.
    return f"/v1/memories/{quote(_name(memory), safe='')}/{quote(session, safe='').replace('.', '%2E')}"


def _name(memory: Memory | str) -> str:
    return memory if isinstance(memory, str) else memory.name
