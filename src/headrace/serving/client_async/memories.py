"""What a client offers of memories: as `LiveMemories`, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from headrace.errors import InputError
from headrace.runners.library.memory_turns import Recalled, identifier
from headrace.serving import client_wire as wire
from headrace.serving.client_async.link import AsyncLink
from headrace.serving.token import Token

if TYPE_CHECKING:
    from headrace.declarations import Memory


class AsyncMemories(AsyncLink):
    """The part of a client that is about memories."""

    async def remember(
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
        said = {"turns": turns, "subject": subject}
        body = wire.as_json(said, "expected messages that JSON can hold, found others")
        answer = (await self._call("POST", _path(memory, session), content=body)).json()
        return Token(Token.parse(answer["token"]).positions, answer["remembered"])

    async def recall(
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
        answer = await self._call("GET", _path(memory, session), wait=timeout, params=asked)
        return msgspec.json.decode(answer.content, type=Recalled)

    async def forget(
        self,
        memory: Memory | str,
        *,
        session: str | None = None,
        subject: str | None = None,
        before: datetime | int | None = None,
        timeout: float = 30.0,
    ) -> int:
        """As `Live.forget`."""
        if sum(one is not None for one in (session, subject, before)) != 1:
            raise InputError(
                f"{wire.name_of(memory)}: expected one of session=, subject= and before=, found none or several"
            )
        asked: dict[str, Any] = {"timeout": timeout}
        if subject is not None:
            asked["subject"] = subject
        if before is not None:
            asked["before"] = wire.moment(before)
        path = _path(memory, session) if session is not None else f"/v1/memories/{quote(wire.name_of(memory), safe='')}"
        answer = await self._call("DELETE", path, wait=timeout, params=asked)
        return int(answer.json()["forgotten"])


def _path(memory: Memory | str, session: str) -> str:
    identifier("the session", session)
    # Dots are encoded, too: a session "." or ".." is no step in a path.
    return f"/v1/memories/{quote(wire.name_of(memory), safe='')}/{quote(session, safe='').replace('.', '%2E')}"
