"""A site on this machine: pages that a test changes, and a note of every request."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """What a path answers with."""

    body: bytes = b""
    status: int = 200
    type: str = "text/html; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)


class Site:
    """Serves on a port of 127.0.0.1 until it is closed."""

    def __init__(self) -> None:
        self.pages: dict[str, Reply | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                path = self.path
                site.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
                reply = site.pages.get(path, Reply(b"not here", 404))
                if not isinstance(reply, Reply):
                    reply(self)
                    return
                etag = reply.headers.get("ETag")
                fresh = etag is not None and self.headers.get("If-None-Match") == etag
                body = b"" if fresh else reply.body
                self.send_response(304 if fresh else reply.status)
                self.send_header("Content-Type", reply.type)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in reply.headers and not fresh:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Tests do not read it."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that went away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def page(self, path: str, text: str, **reply: object) -> str:
        """Put a page there; returns its URL."""
        self.pages[path] = Reply(f"<html><title>{path}</title><body><p>{text}</p></body></html>".encode(), **reply)  # type: ignore[arg-type]
        return self.url + path

    def times(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(each == path for each, _ in self.asked)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
