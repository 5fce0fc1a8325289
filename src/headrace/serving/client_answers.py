"""What a chat answers, as values: texts, and what they stand on.

The members are OpenAI's, and `headrace`, which says what the model was given. A stream's pieces are put together here,
so that its end is the same value as an answer in one piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from headrace.errors import HeadraceError, InputError, RemoteError
from headrace.serving import client_wire as wire
from headrace.serving.chat_merge import ToolCalls
from headrace.serving.client_events import EventReader
from headrace.serving.problems import error_named, error_of
from headrace.serving.token import Token

if TYPE_CHECKING:
    from headrace.declarations import Context

PATH = "/v1/chat/completions"
_DONE = b"[DONE]"
_OURS = ("messages", "stream", "headrace")


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """What a number in an answer stands for.

    Attributes:
        n: The number.
        source: Where it comes from: a view, a collection, a memory.
        title: Of the document, if it has one.
        document: Its key in its table, or the id of the item.
    """

    n: int
    source: str = ""
    title: str | None = None
    document: Any = None


class ToolRun(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of the app that the model called.

    Attributes:
        name: Which.
        ok: Whether it answered.
        seconds: How long it took.
        error: What went wrong, in the words that the model was told.
    """

    name: str
    ok: bool
    seconds: float = 0.0
    error: str = ""


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model answered.

    Attributes:
        text: What it wrote.
        pack: The id of the context that it was given, for `remote.pack`; None if it was given none.
        citations: What the numbers in the text stand for.
        tools: The app's tools that it called.
        tool_calls: Its calls of the client's own tools, as OpenAI's API has them.
        finish_reason: Why it ended: "stop", "length", "tool_calls", …
        model: Which it was.
        usage: The tokens of all rounds, where they were told.
        usage_doubted: Whether a model server told what cannot be, and it was counted here instead.
    """

    text: str
    pack: str | None = None
    citations: list[Citation] = []
    tools: list[ToolRun] = []
    tool_calls: list[dict[str, Any]] = []
    finish_reason: str | None = None
    model: str = ""
    usage: dict[str, Any] = {}
    usage_doubted: bool = False


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an answer on its way.

    Attributes:
        text: What was written since the last; may be empty.
        raw: The chunk as OpenAI's API has it.
    """

    text: str
    raw: dict[str, Any]


class _Told(msgspec.Struct):
    """The member `headrace` of an answer."""

    pack: str | None = None
    citations: list[Citation] = []
    tools: list[ToolRun] = []
    usage_doubted: bool = False


def asked(
    messages: str | Sequence[Mapping[str, Any]],
    stream: bool,
    options: Mapping[str, Any],
    *,
    context: Context | str | None,
    arguments: Mapping[str, Any] | None,
    budget: int | None,
    max_age: str | timedelta | float | None,
    on_stale: Literal["wait", "flag", "refuse"] | None,
    after: Token | str | None,
    session: str | None,
    priority: int | None,
) -> bytes:
    """The body of a chat completion.

    Raises:
        InputError: JSON cannot hold it, or an option is one that has a name of its own.
    """
    if taken := sorted(set(options) & set(_OURS)):
        raise InputError(f"expected members of OpenAI's API as further options, found {taken}, which are made here")
    ours = wire.given(
        context=None if context is None else wire.name_of(context),
        arguments=None if arguments is None else dict(arguments),
        budget=budget,
        max_age=wire.seconds(max_age),
        on_stale=on_stale,
        after=None if after is None else str(after),
        session=session,
        priority=priority,
    )
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    body: dict[str, Any] = {**options, "messages": said, "stream": stream}
    if stream:
        body.setdefault("stream_options", {"include_usage": True})
    return wire.as_json(
        body | ({"headrace": ours} if ours else {}), "expected messages that JSON can hold, found others"
    )


def answered(body: bytes) -> ChatAnswer:
    """An answer in one piece.

    Raises:
        RemoteError: It is none.
    """
    found = _object(body)
    choice = _choice(found)
    message = choice.get("message") or {}
    return _answer(found, str(message.get("content") or ""), message.get("tool_calls") or [], choice)


def refused(status: int, body: bytes) -> HeadraceError:
    """The error that an answer stands for: as OpenAI's API has it, or as problem details."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        found = None
    error = found.get("error") if isinstance(found, dict) else None
    return _error(error, status) if isinstance(error, dict) else error_of(status, body)


def _error(error: Mapping[str, Any], status: int = 0) -> HeadraceError:
    return error_named(str(error.get("code") or ""), str(error.get("message") or "no reason was told"), status)


class ChatReader:
    """A stream's bytes in, its chunks out, and the whole of them at the end."""

    def __init__(self) -> None:
        self._events = EventReader()
        self._text: list[str] = []
        self._calls = ToolCalls()
        self._last: dict[str, Any] = {}
        self._end: dict[str, Any] = {}
        self.done = False

    def feed(self, piece: bytes) -> list[ChatChunk]:
        """The chunks that end in this piece.

        Raises:
            HeadraceError: The server says that it failed in the middle.
            RemoteError: It sent what is no chunk.
        """
        return [self._chunk(event.data) for event in self._events.feed(piece) if not self._is_end(event.data)]

    def _is_end(self, data: bytes) -> bool:
        self.done = self.done or data == _DONE
        return self.done

    def _chunk(self, data: bytes) -> ChatChunk:
        found = _object(data)
        if isinstance(error := found.get("error"), dict):
            raise _error(error)
        choice = _choice(found)
        delta = choice.get("delta") or {}
        text = str(delta.get("content") or "")
        self._text.append(text)
        self._calls.add(delta.get("tool_calls") or ())
        self._last |= {name: value for name, value in found.items() if value is not None}
        if choice.get("finish_reason"):
            self._end = choice
        return ChatChunk(text=text, raw=found)

    def whole(self) -> ChatAnswer:
        """What was told so far, as one answer."""
        return _answer(self._last, "".join(self._text), self._calls.whole(), self._end)


def _object(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise RemoteError(f"expected a chat completion as JSON, found {data[:200]!r}: {error}") from error


def _choice(found: Mapping[str, Any]) -> dict[str, Any]:
    choices = found.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _answer(found: Mapping[str, Any], text: str, calls: list[dict[str, Any]], choice: Mapping[str, Any]) -> ChatAnswer:
    try:
        told = msgspec.convert(found.get("headrace") or {}, _Told)
    except msgspec.ValidationError as error:
        raise RemoteError(
            f"expected what an answer stands on in its member headrace, found another: {error}"
        ) from error
    return ChatAnswer(
        text=text,
        pack=told.pack,
        citations=told.citations,
        tools=told.tools,
        tool_calls=calls,
        finish_reason=choice.get("finish_reason"),
        model=str(found.get("model") or ""),
        usage=dict(found.get("usage") or {}),
        usage_doubted=told.usage_doubted,
    )
