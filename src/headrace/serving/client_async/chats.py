"""What a client offers of chat: an answer in one piece, or as it is written."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, overload

from headrace.errors import RemoteError
from headrace.serving import client_answers as answers
from headrace.serving.client_answers import ChatAnswer, ChatChunk
from headrace.serving.client_async.link import AsyncBody, AsyncLink, AsyncOpened
from headrace.serving.token import Token

if TYPE_CHECKING:
    from headrace.declarations import Context


class AsyncChats(AsyncLink):
    """The part of a client that is about chat."""

    @overload
    async def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        stream: Literal[False] = False,
        context: Context | str | None = None,
        arguments: Mapping[str, Any] | None = None,
        budget: int | None = None,
        max_age: str | timedelta | float | None = None,
        on_stale: Literal["wait", "flag", "refuse"] | None = None,
        after: Token | str | None = None,
        session: str | None = None,
        priority: int | None = None,
        timeout: float = 60.0,
        **options: Any,
    ) -> ChatAnswer: ...

    @overload
    async def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        stream: Literal[True],
        context: Context | str | None = None,
        arguments: Mapping[str, Any] | None = None,
        budget: int | None = None,
        max_age: str | timedelta | float | None = None,
        on_stale: Literal["wait", "flag", "refuse"] | None = None,
        after: Token | str | None = None,
        session: str | None = None,
        priority: int | None = None,
        timeout: float = 60.0,
        **options: Any,
    ) -> AsyncChatStream: ...

    async def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        stream: bool = False,
        context: Context | str | None = None,
        arguments: Mapping[str, Any] | None = None,
        budget: int | None = None,
        max_age: str | timedelta | float | None = None,
        on_stale: Literal["wait", "flag", "refuse"] | None = None,
        after: Token | str | None = None,
        session: str | None = None,
        priority: int | None = None,
        timeout: float = 60.0,
        **options: Any,
    ) -> ChatAnswer | AsyncChatStream:
        """Asks the model behind the server, which is given a context and the app's tools.

        Args:
            messages: A question, or messages as OpenAI's API has them.
            stream: Whether the answer comes as it is written: an iterator of chunks, which ends the request when it
                is closed.
            context: Which context the model is given; None for the one that the app's chat declares.
            arguments: Those of the context's function.
            budget: The context's tokens; as with the next three, None for what it declares.
            max_age: How old may be what the context reads.
            on_stale: What is done when it is older.
            after: The context sees the write that returned this token.
            session: Whose conversation it is: an argument of the context, if it has one of that name.
            priority: What the app's rule for the queue may read.
            timeout: How many seconds the answer may take; of a stream, each of its pieces.
            options: Further members of the request, such as ``model=``, ``temperature=`` and ``tools=``.

        Raises:
            UnknownNameError: There is no such context, or no chat endpoint.
            InputError: The messages, the arguments or an option cannot be used.
            StaleError: The context is older than asked for.
            RemoteError: No model server answered, the queue is full (429), or the server did not answer.
        """
        body = answers.asked(
            messages,
            stream,
            options,
            context=context,
            arguments=arguments,
            budget=budget,
            max_age=max_age,
            on_stale=on_stale,
            after=after,
            session=session,
            priority=priority,
        )
        request: dict[str, Any] = {"content": body, "headers": {"content-type": "application/json"}}
        if not stream:
            answer = await self._call("POST", answers.PATH, wait=timeout, refused=answers.refused, **request)
            return answers.answered(answer.content)
        silence = self._timeout + timeout
        opened = await self._open("POST", answers.PATH, silence=silence, refused=answers.refused, **request)
        return AsyncChatStream(self._opened, opened)


class AsyncChatStream:
    """An answer on its way: an iterator of `ChatChunk`.

    Closed by leaving its `async with` block, which ends the request: the model stops, too.
    """

    def __init__(self, opened: set[AsyncOpened], body: AsyncBody) -> None:
        self._opened = opened
        self._body = body
        self._reader = answers.ChatReader()
        self._ready: deque[ChatChunk] = deque()
        opened.add(self)

    @property
    def answer(self) -> ChatAnswer:
        """What has come so far, as one answer; after the last chunk with what it stands on."""
        return self._reader.whole()

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        return self

    async def __anext__(self) -> ChatChunk:
        try:
            while not self._ready:
                await self._more()
        except BaseException:
            await self.close()
            raise
        return self._ready.popleft()

    async def _more(self) -> None:
        if self._reader.done or self._body.closed:
            raise StopAsyncIteration
        piece = await self._body.piece()
        self._ready += self._reader.feed(piece)
        if not piece and not self._body.closed:
            raise RemoteError("expected the rest of an answer, found its end; what has come of it is in `answer`")

    async def close(self) -> None:
        """Ends the request; again does nothing."""
        self._opened.discard(self)
        await self._body.close()

    async def __aenter__(self) -> AsyncChatStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
