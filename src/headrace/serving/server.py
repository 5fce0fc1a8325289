"""The server process: uvicorn around the ASGI app, and a clean end.

A first SIGTERM or SIGINT stops accepting, lets what is being answered finish, closes the live app (which writes its
checkpoint) and ends with status 0. A second one ends the process at once: what was acknowledged is on disk by then.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import uvicorn

from headrace.errors import ClosedError, ConfigError
from headrace.ops.security import check_binding
from headrace.serving.connection import Connection
from headrace.serving.http import MAX_BODY, http_app

if TYPE_CHECKING:
    from headrace.serving.live import Live

log = logging.getLogger("headrace.http")

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8900
# Longer than clients keep an idle connection for: the one that closes it should be the one that would use it next.
KEEP_ALIVE_SECONDS = 75
# How long requests may take to finish once the server is told to stop.
GRACE_SECONDS = 10
_BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn without its signal handling (which ends the process by the signal), and with a look at connections."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing: `serve` handles signals until the live app is closed, which is after this server's end."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams that stand open would be waited for.
        if (ends := getattr(self.config.app, "ends", None)) is not None:
            await ends()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # ten ticks a second
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.look()
        return await super().on_tick(counter)


def serve(
    live: Live,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    api_key: str | None = None,
    max_body: int = MAX_BODY,
    on_ready: Callable[[str], None] | None = None,
) -> int:
    """Serve until a signal ends it, and close `live` in the end, whatever the end is.

    Args:
        live: The open app.
        host: Where to listen; more than loopback needs a key.
        port: 0 takes a free one.
        api_key: What requests must bring as a bearer token.
        max_body: The longest body of a push, in bytes.
        on_ready: Called with the server's URL once it answers.

    Returns:
        The process's exit status.

    Raises:
        ConfigError: There is no key where one is needed, or the port cannot be had.
    """
    with live:
        check_binding(host, api_key)
        sock = bind(host, port)
        url = _url(host, sock)

        def started() -> None:
            log.info("%s listens on %s", live.app.name, url)
            if on_ready is not None:
                on_ready(url)

        app = http_app(live, api_key=api_key, max_body=max_body)
        server = Server(_config(app), started)
        with _signals(server):
            server.run([sock])
            # Still under our signal handling: a second signal while the checkpoint is written ends it at once.
            live.close()
    return 0


class BackgroundServer:
    """A server on a thread of its own, for programs that have other things to do; `live` stays the caller's to close.

    with BackgroundServer(live) as server:
        httpx.get(server.url + "/healthz")
    """

    def __init__(
        self,
        live: Live,
        host: str = DEFAULT_HOST,
        port: int = 0,
        *,
        api_key: str | None = None,
        max_body: int = MAX_BODY,
    ) -> None:
        """
        Raises:
            ConfigError: There is no key where one is needed, or the port cannot be had.
            ClosedError: The server did not start; the log has the reason.
        """
        check_binding(host, api_key)
        self._socket = bind(host, port)
        self.url = _url(host, self._socket)
        self._started = threading.Event()
        self._server = Server(_config(http_app(live, api_key=api_key, max_body=max_body)), self._started.set)
        self._thread = threading.Thread(target=self._run, name="headrace-http", daemon=True)
        self._thread.start()
        self._started.wait()
        if not self._server.started:
            raise ClosedError("expected the server to start, found that it ended; see the log")

    def _run(self) -> None:
        try:
            self._server.run([self._socket])
        finally:
            self._started.set()

    def close(self) -> None:
        """Stop accepting, finish what is being answered, and wait for the end."""
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> BackgroundServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens, or an error that says why there is none.

    Raises:
        ConfigError: The port is taken or not allowed, or the host is none of this machine's.
    """
    if not 0 <= port <= 65_535:  # the C library would take it modulo 65,536
        raise ConfigError(f"expected a port from 0 (a free one) to 65535, found {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"expected a host and port to listen on, found {host!r} and {port!r}: {error}") from error
    sock = socket.socket(family, kind, protocol)
    try:
        # A server that was stopped a moment ago must not keep its successor from the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(_why_not(host, port, error)) from error
    return sock


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"expected port {port} of {host} to be free, found it in use; "
            f"stop what listens there, or choose another with --port (0 takes a free one)"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"expected to be allowed to listen on port {port}, found that only root may; choose one from 1024 up"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"expected an address of this machine to listen on, found {host!r}; 127.0.0.1 always is one"
    return f"expected to listen on {host}:{port}, found: {error}"


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _url(host: str, sock: socket.socket) -> str:
    port = sock.getsockname()[1]
    # 0.0.0.0 and :: are where it listens, not where it can be reached.
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}"


@contextmanager
def _signals(server: uvicorn.Server) -> Generator[None, None, None]:
    """The first signal asks the server to end, the second ends the process; only a main thread can have this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if server.should_exit:
            os._exit(128 + number)
        log.info("ends, on %s; once more ends it at once", signal.Signals(number).name)
        server.should_exit = True

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
