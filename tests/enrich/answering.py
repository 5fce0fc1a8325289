"""A model server that answers what a test says, each request in a thread of its own, so that one may wait."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
DROP = object()
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def numbers(body: Json) -> list[int]:
    """The numbers after # in a question: those of its items."""
    return (
        [int(found) for found in re.findall(r"#(\d+)", body["messages"][1]["content"])] if body["messages"][1:] else []
    )


def verdict(number: int) -> Json:
    """What the model says of an event."""
    return {"mood": "good" if number % 2 else "bad", "score": number / 2}


def judge(body: Json) -> Any:
    """A model that judges each item, and says ok to what is none."""
    if "response_format" not in body:
        return "ok"
    found = numbers(body)
    if "answers" in body["response_format"]["json_schema"]["schema"]["properties"]:
        return {"answers": [{"n": n, "answer": verdict(one)} for n, one in enumerate(found, 1)]}
    return verdict(found[0])


class ModelServer:
    """The server; `answer` gives an object to be said as JSON, a text, a status, or DROP."""

    def __init__(self, answer: Callable[[Json], Any] = judge, *, port: int = 0, usage: Any = USAGE) -> None:
        self.answer, self.usage = answer, usage
        self.asked: list[Json] = []
        self.came = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._say(200, {"data": []})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.came:
                    outer.asked.append(body)
                    outer.came.notify_all()
                said = outer.answer(body)
                if said is DROP:
                    self.connection.shutdown(socket.SHUT_RDWR)
                elif isinstance(said, int):
                    self._say(said, {"error": {"message": "as the test says"}})
                else:
                    content = said if isinstance(said, str) else json.dumps(said)
                    message = {"role": "assistant", "content": content}
                    choice = {"index": 0, "message": message, "finish_reason": "stop"}
                    self._say(200, {"choices": [choice], "usage": outer.usage})

            def _say(self, status: int, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                pass  # a client that goes away is part of the tests

        self._server = Quiet(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def wait_for(self, count: int, seconds: float = 30.0) -> None:
        """Waits until so many requests have come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.asked) >= count, seconds), f"{len(self.asked)} came"

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
