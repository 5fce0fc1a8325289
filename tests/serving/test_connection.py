"""The short way of a plain read: the same answers as the ordinary way, in the order of the requests."""

from __future__ import annotations

import asyncio
import re
import socket

import httpx
import pytest

import headrace as hr
from headrace.serving.http import http_app
from headrace.serving.live import Live

BODY = re.compile(rb'\r\n\r\n\{"(?:user_id|type)":"([^"]*)"')


def ask(path: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "host: localhost", *lines, "", ""]).encode()


def converse(url: str, sent: bytes) -> bytes:
    """All that comes back until the server closes, which the last request asks it to."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        connection.sendall(sent)
        found = b""
        while data := connection.recv(65536):
            found += data
        return found


def through_asgi(live: Live, path: str) -> httpx.Response:
    """What the app answers under a server that is not ours."""

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(http_app(live))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(get())


@pytest.mark.parametrize(
    "path", ["/v1/features/spending/u1", "/v1/features/spending/a%2Fb", "/v1/features/route/EWR/7"]
)
def test_both_ways_answer_the_same(live: Live, http: httpx.Client, paid: hr.Token, path: str) -> None:
    short, ordinary = http.get(path), through_asgi(live, path)
    assert (short.status_code, short.content) == (ordinary.status_code, ordinary.content)
    assert short.headers.pop("date")
    assert short.headers == ordinary.headers


@pytest.mark.parametrize("path", ["/v1/features/nothing/u1", "/v1/features/route/EWR", "/v1/features/spending/%FF"])
def test_both_ways_refuse_the_same(live: Live, http: httpx.Client, path: str) -> None:
    short, ordinary = http.get(path), through_asgi(live, path)
    assert (short.status_code, short.content) == (ordinary.status_code, ordinary.content)


def test_the_ordinary_way_does_without_a_raw_path(live: Live, paid: hr.Token) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/features/spending/u1",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(http_app(live)(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 200


def test_many_requests_in_one_go_are_answered_in_their_order(url: str) -> None:
    keys = [f"u{number}" for number in range(100)]
    sent = b"".join(ask(f"/v1/features/spending/{key}") for key in keys)
    found = converse(url, sent + ask("/v1/features/spending/last", "connection: close"))
    assert [key.decode() for key in BODY.findall(found)] == [*keys, "last"]


def test_short_and_ordinary_requests_keep_their_order(url: str) -> None:
    paths = ["spending/a", "spending/b?timeout=1", "spending/c", "nothing/d", "spending/e"]
    sent = b"".join(ask(f"/v1/features/{path}") for path in paths)
    found = converse(url, sent + ask("/v1/features/spending/f", "connection: close"))
    expected = [b"a", b"b", b"c", b"urn:headrace:problem:unknown-name", b"e", b"f"]
    assert BODY.findall(found) == expected


@pytest.mark.parametrize("cut", [1, 7, 30, 60])
def test_a_request_may_come_in_pieces(url: str, cut: int) -> None:
    address = httpx.URL(url)
    request = ask("/v1/features/spending/u1") + ask("/v1/features/spending/u2", "connection: close")
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request), cut):
            connection.sendall(request[at : at + cut])
        found = b"".join(iter(lambda: connection.recv(65536), b""))
    assert BODY.findall(found) == [b"u1", b"u2"]


def test_a_body_that_a_read_has_no_use_for_is_not_taken_for_the_next_request(url: str) -> None:
    sent = (
        ask("/v1/features/spending/a", "content-length: 5")
        + b"hello"
        + ask("/v1/features/spending/b", "connection: close")
    )
    assert BODY.findall(converse(url, sent)) == [b"a", b"b"]


def test_a_connection_ends_when_it_is_asked_to(url: str) -> None:
    assert BODY.findall(converse(url, ask("/v1/features/spending/a", version="1.0"))) == [b"a"]


def test_requests_of_both_ways_are_counted(http: httpx.Client) -> None:
    for path in ("u1", "u1?timeout=1", "u2"):
        http.get(f"/v1/features/spending/{path}")
    lines = http.get("/metrics").text.splitlines()
    assert 'headrace_http_requests_total{route="/v1/features/{view}/{key}",status="200"} 3.0' in lines
