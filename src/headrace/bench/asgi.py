"""An ASGI application served from a thread of this process, on a free port of the loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


@contextmanager
def served(application: Any) -> Iterator[int]:
    """Serve the application with uvicorn; the port. Leaving the block stops it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(application, log_level="error", access_log=False, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        factory = config.get_loop_factory()

        def run() -> None:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(server.serve([listening]))

        thread = threading.Thread(target=run, name="bench-http", daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
