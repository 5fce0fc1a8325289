"""A chat completion as it is asked for: what is ours is read and checked, all else goes to the model as it came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from headrace.errors import InputError
from headrace.runners.library.search import MOST_QUESTION

MOST_MESSAGES = 4_096
MOST_TOOLS = 512
_LEADING = ("system", "developer")


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request says to Headrace, in its member `headrace`."""

    context: str | None = None
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    budget: int | None = None
    max_age: str | float | None = None
    on_stale: Literal["wait", "flag", "refuse"] | None = None
    after: str | None = None
    session: str | None = None
    priority: int | None = None


class ChatRequest:
    """A request, checked as far as it is read here.

    Attributes:
        body: As it came, without `headrace`; parts of messages and unknown members are never touched.
        wanted: Its member `headrace`.
        stream: Whether the answer is streamed.
        with_usage: Whether a stream is to end with its usage.

    Raises:
        InputError: It is no chat completion's.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        try:
            found = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"expected a JSON body, found one that is not: {error}") from error
        if not isinstance(found, dict):
            raise InputError("expected a JSON object with messages, found another value")
        self.body: dict[str, Any] = found
        try:
            self.wanted = msgspec.convert(found.pop("headrace", None) or {}, Wanted)
        except msgspec.ValidationError as error:
            raise InputError(f"headrace: expected {', '.join(Wanted.__struct_fields__)}, found: {error}") from error
        self._check()
        self.stream: bool = found.get("stream") or False
        options = found.get("stream_options") or {}
        self.with_usage = bool(isinstance(options, Mapping) and options.get("include_usage"))

    def _check(self) -> None:
        messages = self.body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages) or not messages:
            raise InputError("messages: expected a list of at least one message, found none")
        if len(messages) > MOST_MESSAGES:
            raise InputError(f"messages: expected at most {MOST_MESSAGES:,}, found {len(messages):,}")
        if not isinstance(self.body.get("stream"), bool | None):
            raise InputError(f"stream: expected true or false, found {self.body['stream']!r}")
        if not isinstance(self.body.get("model"), str | None):
            raise InputError(f"model: expected a text, found {self.body['model']!r}")
        if not isinstance(self.body.get("stream_options"), dict | None):
            raise InputError(f"stream_options: expected an object, found {self.body['stream_options']!r}")
        tools = self.body.get("tools")
        if not isinstance(tools, list | None) or not all(isinstance(one, dict) for one in tools or ()):
            raise InputError("tools: expected a list of objects, found something else")
        if len(tools or ()) > MOST_TOOLS:
            raise InputError(f"tools: expected at most {MOST_TOOLS}, found {len(tools or ())}")
        n = self.body.get("n", 1)
        if n is not None and (isinstance(n, bool) or n != 1):
            raise InputError(f"n: expected 1, found {n!r}; ask several times for several answers")

    @property
    def model(self) -> str | None:
        """The model that it names."""
        return self.body.get("model")

    def question(self) -> str:
        """The text of the user's newest message, or its end if a search may not be so long; empty if there is none."""
        said: dict[str, Any] = next((one for one in reversed(self.body["messages"]) if one.get("role") == "user"), {})
        content = said.get("content")
        if isinstance(content, list):
            parts = (one.get("text") for one in content if isinstance(one, dict) and one.get("type") == "text")
            content = "\n".join(one for one in parts if isinstance(one, str))
        return content.strip()[-MOST_QUESTION:] if isinstance(content, str) else ""

    def tool_names(self) -> set[str]:
        """The names of the client's own tools."""
        found = (one.get("function") for one in self.body.get("tools") or ())
        return {str(one.get("name")) for one in found if isinstance(one, dict)}

    def prefix(self) -> bytes:
        """What a model server's cache knows a conversation by: its beginning, which stays as it goes on.

        The client's leading instructions and its first message: of several conversations each has its own.
        """
        messages = self.body["messages"]
        first = next((i for i, one in enumerate(messages) if one.get("role") not in _LEADING), len(messages))
        return msgspec.json.encode([self.wanted.session, messages[: first + 1]])

    def placed(self, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages with a context's before the user's.

        A context's own instructions come first, then the client's, then the context's data: what stays the same from
        request to request stands before what changes.
        """
        messages = self.body["messages"]
        leading = next((i for i, one in enumerate(messages) if one.get("role") not in _LEADING), len(messages))
        rules = [one for one in given if one.get("role") in _LEADING]
        data = [one for one in given if one.get("role") not in _LEADING]
        return [*rules, *messages[:leading], *data, *messages[leading:]]
