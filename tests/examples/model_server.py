"""A server that speaks OpenAI's chat completions on loopback, with a model that follows a script.

The wire is the real one: HTTP, JSON, a bearer key, the members that OpenAI's servers send. Only the model is made up:
it is a function from the request to the message of the answer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Message = dict[str, Any]
Model = Callable[[Mapping[str, Any]], Message]


def says(text: str) -> Message:
    """An answer in words."""
    return {"role": "assistant", "content": text, "refusal": None, "annotations": []}


def calls(name: str, *arguments: str) -> Message:
    """An answer that calls a tool, once for each of the arguments' texts."""
    made = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": text}}
        for number, text in enumerate(arguments)
    ]
    return {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": made}


class ModelServer(ThreadingHTTPServer):
    """The server; `requests` is what it was sent, in order."""

    daemon_threads = True

    def __init__(self, model: Model, key: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model, self.key = model, key
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {self.server.key}":
            self._answer(401, {"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}})
        elif self.path != "/v1/chat/completions":
            self._answer(404, {"error": {"message": f"no {self.path}", "type": "invalid_request_error"}})
        else:
            self.server.requests.append(body)
            self._answer(200, _completion(body, self.server.model(body)))

    def _answer(self, status: int, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at `requests`."""


def _completion(request: Mapping[str, Any], message: Message) -> dict[str, Any]:
    why = "tool_calls" if message.get("tool_calls") else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_767_225_600,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": why}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        "service_tier": "default",
        "system_fingerprint": "fp_test",
    }


@contextmanager
def serving(model: Model, key: str = "none") -> Iterator[ModelServer]:
    """The server, while the block runs."""
    with ModelServer(model, key) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
