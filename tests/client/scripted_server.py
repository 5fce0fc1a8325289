"""A server of bytes: each connection is answered as a test says, and is known to have ended."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
HOLD = b"hold"
"""A step: until the client ends the connection."""


GO = b"go"
"""A step: until the test says so."""


class ScriptedServer:
    """Takes one connection after the other; each has its steps, the last ones again for all that come later.

    Attributes:
        requests: What was asked, up to the first empty line, in the order of the connections.
        held: Set when a connection is held.
        gone: Set when a client has ended a connection that was held.
        go: What the step `GO` waits for.
    """

    def __init__(self, *scripts: Sequence[bytes]) -> None:
        self.requests: list[bytes] = []
        self.held, self.gone, self.go = threading.Event(), threading.Event(), threading.Event()
        self._scripts = list(scripts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer(connection)
                except ConnectionError:
                    self.gone.set()

    def _answer(self, connection: socket.socket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            if not (piece := connection.recv(65536)):
                return
            asked += piece
        head, _, body = asked.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        while length is not None and len(body) < int(length[1]):
            body += connection.recv(65536)
        self.requests.append(head)
        steps = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        for step in steps:
            if step is HOLD:
                self.held.set()
                while connection.recv(65536):
                    pass
                self.gone.set()
            elif step is GO:
                assert self.go.wait(60)
            else:
                connection.sendall(step)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
