"""The scripted model server of the `chat` benchmark: its first token after a fixed time, then one at a fixed gap.

Every token is due at a moment counted from the request's arrival, so a late one does not delay those after it. The
answer is made from the question, so that one given to the wrong client is seen, and says whether the context's words
were in what was asked.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from headrace.bench.asgi import served
from headrace.bench.child import serve

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Stands in the context, and nowhere else.
FACT = "A heron stands in the millrace at noon."


def tokens(question: str, count: int, *, told: bool) -> list[str]:
    """What is answered to a question, token by token.

    Args:
        question: The text of the last message.
        count: How many tokens, of which the first says whether the context was there.
        told: Whether it was.
    """
    return ["told " if told else "alone ", *(f"{question}.{i} " for i in range(1, count))]


class Upstream:
    """An ASGI application.

    Args:
        first: Seconds from a request to the first token.
        gap: Seconds from a token to the next.
        count: Tokens of an answer.
    """

    def __init__(self, first: float, gap: float, count: int) -> None:
        self._first, self._gap, self._count = first, gap, count

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request: a completion, or (to a health check) an empty list of models."""
        begun = asyncio.get_running_loop().time()
        body, more = b"", True
        while more:
            part = await receive()
            body += part.get("body", b"")
            more = part.get("more_body", False)
        if scope["method"] == "POST":
            await self._complete(body, begun, send)
            return
        await _start(send, b"application/json")
        await send({"type": "http.response.body", "body": b'{"object":"list","data":[]}'})

    async def _complete(self, body: bytes, begun: float, send: Send) -> None:
        question = msgspec.json.decode(body)["messages"][-1]["content"]
        said = tokens(question, self._count, told=FACT.encode() in body)
        loop = asyncio.get_running_loop()
        for i, token in enumerate(said):
            await asyncio.sleep(begun + self._first + i * self._gap - loop.time())
            delta = {"content": token} if i else {"role": "assistant", "content": token}
            if not i:
                await _start(send, b"text/event-stream")
            await send({"type": "http.response.body", "body": _event(delta, None), "more_body": True})
        await send({"type": "http.response.body", "body": _event({}, "stop") + b"data: [DONE]\n\n"})


async def _start(send: Send, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})


def _event(delta: dict[str, str], end: str | None) -> bytes:
    chunk = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
    }
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def main(first: str, gap: str, count: str) -> None:
    with served(Upstream(float(first), float(gap), int(count))) as port:
        serve(dict, port=port)


if __name__ == "__main__":
    main(*sys.argv[1:])
