"""`hr.connect(url)` and `hr.connect_async(url)`: a running server with the methods of a `Live`, over HTTP.

Both clients have one definition, `client_async`; `client_sync` is made of it, by `make client`.
"""

from __future__ import annotations

from headrace.serving.client_async.remote import AsyncRemote as AsyncRemote
from headrace.serving.client_sync.remote import Remote as Remote


def connect(url: str, *, api_key: str | None = None, timeout: float = 10.0) -> Remote:
    """A client of a running server.

    Args:
        url: Where it is: "http://127.0.0.1:8900".
        api_key: The server's key, if it has one.
        timeout: Seconds to wait for the server, besides what a read itself waits.

    Raises:
        InputError: `url` is not an HTTP address, or the key cannot be sent.
    """
    return Remote(url, api_key=api_key, timeout=timeout)


def connect_async(url: str, *, api_key: str | None = None, timeout: float = 10.0) -> AsyncRemote:
    """A client of a running server, for an event loop: as `connect`, and every call is awaited.

    Args:
        url: Where it is: "http://127.0.0.1:8900".
        api_key: The server's key, if it has one.
        timeout: Seconds to wait for the server, besides what a read itself waits.

    Raises:
        InputError: `url` is not an HTTP address, or the key cannot be sent.
    """
    return AsyncRemote(url, api_key=api_key, timeout=timeout)
