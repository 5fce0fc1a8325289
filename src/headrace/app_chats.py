"""What `App` offers of chat: the declaration of its endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headrace.errors import ConfigError
from headrace.units import SECOND, duration
from headrace.upstream.spec import Upstream, from_environment, read

if TYPE_CHECKING:
    from headrace.declarations import Context

MOST_ROUNDS = 32
MOST_QUEUE = 100_000


@dataclass(frozen=True, eq=False)
class Chat:
    """How `POST /v1/chat/completions` answers.

    Attributes:
        context: The name of the context that a request is given unless it names another; None for none.
        upstreams: The model servers; none are declared if it is empty, and HEADRACE_UPSTREAMS holds none.
        tools: Whether the model is offered the app's tools.
        rounds: How often the model may call them, for one answer.
        tokens: The most tokens that it may write before it is offered them no more.
        time_limit: Seconds for an answer, with all rounds.
        wait: The most seconds in the queue.
        queue: How many requests may wait.
        router: From a request to the model that answers it; None for the one that the request names.
        priority: Of a request in the queue, higher first: a number, or a function from the request to one.
    """

    context: str | None
    upstreams: tuple[Upstream, ...]
    tools: bool
    rounds: int
    tokens: int
    time_limit: float
    wait: float
    queue: int
    router: Callable[[Mapping[str, Any]], str] | None = field(repr=False)
    priority: int | Callable[[Mapping[str, Any]], int] = field(repr=False)


class AppChats:
    """The part of `App` that is about chat."""

    endpoint: Chat | None = None

    def chat(
        self,
        *,
        context: Context | str | None = None,
        upstreams: Sequence[Upstream | str] = (),
        tools: bool = True,
        rounds: int = 4,
        tokens: int = 16_384,
        time_limit: str | timedelta | float = "60s",
        wait: str | timedelta | float = "10s",
        queue: int = 256,
        router: Callable[[Mapping[str, Any]], str] | None = None,
        priority: int | Callable[[Mapping[str, Any]], int] = 0,
    ) -> Chat:
        """Declares the chat endpoint: an OpenAI-compatible API whose model knows this app's contexts and tools.

        Args:
            context: What a request is given unless it names another; its arguments come with the request.
            upstreams: The model servers, or their URLs; if none are given, those of HEADRACE_UPSTREAMS.
            tools: Whether the model is offered the app's tools.
            rounds: How often it may call them, for one answer.
            tokens: The most tokens that it may write before it is offered them no more.
            time_limit: For an answer, with all rounds.
            wait: The most that a request waits for a place.
            queue: How many requests may wait.
            router: From a request to the model that answers it.
            priority: Of a request in the queue, higher first.

        Raises:
            ConfigError: There is a chat endpoint already, or an option cannot be.
        """
        if self.endpoint is not None:
            raise ConfigError("expected one app.chat(), found a second; an app has one chat endpoint")
        for label, value, most in (
            ("rounds", rounds, MOST_ROUNDS),
            ("queue", queue, MOST_QUEUE),
            ("tokens", tokens, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= (most or value):
                raise ConfigError(f"chat: expected {label} from 0{f' to {most:,}' if most else ''}, found {value!r}")
        if router is not None and not callable(router):
            raise ConfigError(f"chat: expected router to be a function from a request to a model, found {router!r}")
        servers = tuple(one if isinstance(one, Upstream) else read(one) for one in upstreams) or from_environment()
        name = context if isinstance(context, str) or context is None else context.name
        limit, longest = duration(time_limit) / SECOND, duration(wait, zero=True) / SECOND
        self.endpoint = Chat(name, servers, tools, rounds, tokens, limit, longest, queue, router, priority)
        return self.endpoint
