"""A stand-in for `POST /v1/embeddings` as OpenAI documents it, on a loopback port, that can be told to misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headrace.documents.embed.hashed import HashEmbedder

Misbehave = Callable[[dict[str, Any]], Response | None]


class EmbeddingServer:
    """The server; a context.

    Attributes:
        requests: The bodies of all requests, in order.
        answers: What is done instead of answering: each once, in order, before all is well again.
        always: And what is asked of every request.
        poison: A text that holds this is refused, as a text that is too long would be.
        most: The most requests that were there at a time.
    """

    def __init__(self, dimension: int = 64, key: str = "secret") -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: list[Misbehave] = []
        self.always: Misbehave | None = None
        self.poison: str | None = None
        self.dimension = dimension
        self.gate: threading.Barrier | None = None
        self._key = key
        app = Starlette(routes=[Route("/v1/embeddings", self._embed, methods=["POST"])])
        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        original = self._server.startup

        async def startup(sockets: Any = None) -> None:
            await original(sockets)
            self._ready.set()

        self._server.startup = startup  # type: ignore[method-assign]
        self._server.run()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)

    async def _embed(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append(body)
        if request.headers.get("authorization") != f"Bearer {self._key}":
            return JSONResponse({"error": {"message": "Incorrect API key provided"}}, 401)
        asked = self.answers.pop(0) if self.answers else self.always
        if asked is not None and (answer := asked(body)) is not None:
            return answer
        texts = body["input"]
        if not texts or not all(texts):
            return JSONResponse({"error": {"message": "input cannot be an empty string"}}, 400)
        if self.poison is not None and any(self.poison in text for text in texts):
            return JSONResponse({"error": {"message": "this text is refused"}}, 400)
        dimension = body.get("dimensions", self.dimension)
        vectors = HashEmbedder(f"hash:{dimension}").embed(texts)
        # Unordered and not of length 1, as neither is promised.
        data = [{"object": "embedding", "index": n, "embedding": (3 * v).tolist()} for n, v in enumerate(vectors)]
        return JSONResponse({"object": "list", "data": data[::-1], "model": body["model"], "usage": {}})


def status(code: int, **headers: str) -> Misbehave:
    """An error of that status."""
    return lambda body: JSONResponse({"error": {"message": f"problem {code}"}}, code, headers=headers)


def vectors(*found: list[float] | list[None]) -> Misbehave:
    """These vectors, whatever was asked."""
    return lambda body: JSONResponse({"data": [{"index": n, "embedding": v} for n, v in enumerate(found)]})
