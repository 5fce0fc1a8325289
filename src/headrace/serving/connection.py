"""One HTTP connection: uvicorn's, with bounds on what it may hold, and a short way for the one hot route.

uvicorn leaves three things to a proxy in front of it, which a server of one process does not have: a client that
sends half a header and then nothing, one that never reads its answer, and a header without end. Each holds a
connection for ever. So once a second every connection is looked at, and one that has made no progress for long is
closed. (A body that comes slowly is `body`'s.)

The short way: a plain `GET /v1/features/{view}/{key}` needs nothing that ASGI is for. It has no body to wait for, and
its row is there at once. So it is answered as soon as its header is whole, without a task, a scope or messages: half of
what such a request costs, and the interpreter that the engine shares with it is free again so much sooner. Whatever is
not as plain as that, or goes wrong in any way, takes the ordinary way through ASGI, and is answered there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headrace.serving.http import FEATURES
from headrace.serving.problems import BUSY, HEAD_TOO_LARGE, MEDIA_TYPE, Kind, ProblemError, problem_of
from headrace.serving.service import JSON, NO_STORE

MAX_CONNECTIONS = 1_000
MAX_HEAD = 64 << 10
STUCK_SECONDS = 30
_BAD_REQUEST = Kind("bad-request", 400, "The bytes are not an HTTP request")
# Requests sent in one go (pipelined) are answered in one go up to here; the others wait for their turn.
_QUICK_AT_ONCE = 16
# What a request with a body, or one that asks before it sends a body, has in its header.
_WITH_BODY = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class Connection(HttpToolsProtocol):
    """One connection, with bounds on its header and its silence; a plain read of one key is answered at once."""

    def connection_made(self, transport: Any) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._requests = 0
        self._sweep = (0, 0)
        self._still = 0
        self._quick_left = 0
        self._answered = False
        self._quick: Callable[[bytes, list[tuple[bytes, bytes]]], bytes | None] | None = None
        super().connection_made(transport)
        self._quick = getattr(self.app, "quick", None)
        if len(self.connections) > MAX_CONNECTIONS:
            self.refuse(BUSY, f"expected at most {MAX_CONNECTIONS:,} connections at once; retry shortly")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._quick_left = _QUICK_AT_ONCE
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self.refuse(HEAD_TOO_LARGE, f"expected a header of at most {MAX_HEAD >> 10} KiB, found more")

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._requests += 1
        self._answered = self._answer_at_once()
        if not self._answered:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._answered:
            super().on_message_complete()

    def _answer_at_once(self) -> bool:
        """Take the short way if this request is for it; whether it has been answered."""
        if (
            self._quick is None
            or not self.url.startswith(FEATURES)
            or self._quick_left <= 0
            or b"?" in self.url
            or self.parser.get_method() != b"GET"
            or self.parser.get_http_version() != "1.1"
            or not self.parser.should_keep_alive()
            or self.parser.should_upgrade()
            or not (self.cycle is None or self.cycle.response_complete)
            or self.flow.write_paused
            or self.transport.is_closing()
            or self.root_path
            or any(name in _WITH_BODY for name, _ in self.headers)
        ):
            return False
        self._quick_left -= 1
        body = self._quick(self.url, self.headers)
        if body is None:
            return False
        head = [b"HTTP/1.1 200 OK\r\n"]
        for name, value in (*self.server_state.default_headers, JSON, NO_STORE):
            head += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join([*head, b"content-length: %d\r\n\r\n" % len(body), body]))
        self.on_response_complete()
        return True

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's, in plain text
        """What uvicorn answers to bytes that are not HTTP."""
        self.refuse(_BAD_REQUEST, "expected an HTTP/1.1 request, found something else")

    def refuse(self, kind: Kind, detail: str) -> None:
        """Answer without asking the app, and close."""
        body = msgspec.json.encode(problem_of(ProblemError(kind, detail)))
        head = f"HTTP/1.1 {kind.status} {kind.title}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode("ascii") + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def look(self) -> None:
        """Once a second: count how long nothing has moved, and close what is stuck."""
        unread = self.transport.get_write_buffer_size()
        # Between requests uvicorn's own timer runs, until a byte comes; then whole requests must.
        idle = self.timeout_keep_alive_task is not None
        waits_for_head = not idle and (self.cycle is None or self.cycle.response_complete)
        moved = (self._requests, unread)
        stuck = moved == self._sweep and (unread > 0 or waits_for_head)
        self._sweep = moved
        self._still = self._still + 1 if stuck else 0
        if self._still >= STUCK_SECONDS:
            # What nobody reads would be waited for by a close.
            self.transport.abort() if unread else self.transport.close()
