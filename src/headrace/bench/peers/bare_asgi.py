"""The lower bound of the HTTP tier: uvicorn, and a route that sends a constant row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from headrace.bench.asgi import served
from headrace.bench.child import serve

ROW = (
    b'{"user_id":"u0000001","total_10m":123.45,"count_10m":12,"mean_10m":10.2875,"min_10m":1.25,"max_10m":40.5,'
    b'"std_10m":9.125,"rate_10m":0.02,"total_1h":523.45,"count_1h":52,"max_1h":99.5,"as_of":"2026-01-01T00:00:00.000000Z",'
    b'"age":0.125,"token":"AAAAAAAAAAA"}'
)
HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(ROW)).encode())],
}


async def application(scope: dict[str, Any], _receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
    """The same row for every request."""
    if scope["type"] == "http":
        await send(HEAD)
        await send({"type": "http.response.body", "body": ROW})


if __name__ == "__main__":
    with served(application) as port:
        serve(lambda: {}, port=port)
