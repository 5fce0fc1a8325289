"""The process: where it listens, how it ends, and what a connection may hold."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest
from fraud_desk import make_app

import headrace as hr
from headrace.serving import connection
from headrace.serving.live import Live
from headrace.serving.server import BackgroundServer, bind, serve
from headrace.testing.clock import VirtualClock

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from fraud_desk import make_app, NOON
from headrace.serving.server import serve
from headrace.testing.clock import VirtualClock
live = make_app(VirtualClock(NOON)).open(Path({data!r}))
code = serve(live, port=0, on_ready=lambda url: print(url, flush=True))
print("closed", live.ready(), flush=True)
sys.exit(code)
"""
GOOD = {"user_id": "u2", "amount": 7.0, "at": "2026-01-31T11:59:59Z"}


class Process:
    """A server in a process of its own."""

    def __init__(self, data: Path) -> None:
        program = PROGRAM.format(here=str(Path(__file__).parent), data=str(data))
        self.child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert self.child.stdout is not None
        self.out: IO[str] = self.child.stdout
        self.url = self.out.readline().strip()

    def end(self) -> int:
        return self.child.wait(60)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    started = Process(tmp_path / "data")
    yield started
    started.child.kill()
    started.child.wait()
    started.out.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_all_that_was_pushed(process: Process, tmp_path: Path, number: int) -> None:
    assert httpx.post(f"{process.url}/v1/streams/payment", json=[GOOD]).json()["accepted"] == 1
    process.child.send_signal(number)
    assert process.end() == 0
    assert process.out.read() == "closed (False, 'closed')\n"
    with make_app(VirtualClock("2026-01-31T12:00:00Z")).open(tmp_path / "data") as live:
        assert live.read("spending", "u2").total_10m == 7.0  # type: ignore[attr-defined]


def test_what_is_being_answered_is_finished_first(process: Process) -> None:
    with waiting(process, "1s") as held:
        process.child.send_signal(signal.SIGTERM)
        assert held.makefile("rb").readline() == b"HTTP/1.1 504 Gateway Timeout\r\n"
    assert process.end() == 0


def test_a_second_signal_ends_it_at_once(process: Process) -> None:
    with waiting(process, "50s") as held:
        process.child.send_signal(signal.SIGTERM)
        assert_refused(process.url)
        process.child.send_signal(signal.SIGTERM)
        assert (process.end(), held.recv(1)) == (128 + signal.SIGTERM, b"")


def waiting(process: Process, timeout: str) -> socket.socket:
    """A connection on which a read waits for a push that never comes."""
    address = httpx.URL(process.url)
    held = socket.create_connection((address.host, address.port or 0), timeout=60)
    path = f"/v1/features/spending/u2?after={hr.Token({'push': 10**6})}&timeout={timeout}"
    held.sendall(f"GET {path} HTTP/1.1\r\nhost: {address.host}\r\n\r\n".encode())
    # One loop takes requests as they come: once this is answered, the one before it has been taken.
    assert httpx.get(f"{process.url}/healthz").status_code == 200
    return held


def assert_refused(url: str) -> None:
    """Ask until the server takes no more connections."""
    for _ in range(10_000):
        try:
            httpx.get(f"{url}/healthz")
        except httpx.TransportError:
            return
    pytest.fail("the server still takes connections")


def test_a_port_in_use_is_said_with_its_number() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(hr.ConfigError, match=f"expected port {port} of 127.0.0.1 to be free, found it in use"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("no.such.host.invalid", 0, "expected a host and port to listen on, found 'no.such.host.invalid'"),
        ("127.0.0.1", 99999, "expected a port from 0"),
        ("192.0.2.1", 0, "expected an address of this machine to listen on, found '192.0.2.1'"),
    ],
)
def test_where_it_cannot_listen_is_said(host: str, port: int, message: str) -> None:
    with pytest.raises(hr.ConfigError, match=message):
        bind(host, port)


def test_a_server_that_cannot_start_closes_the_app(live: Live) -> None:
    with pytest.raises(hr.ConfigError, match="expected an API key to listen on"):
        serve(live, "0.0.0.0")
    assert live.ready() == (False, "closed")


def test_a_server_in_the_background_leaves_the_app_open(live: Live) -> None:
    with BackgroundServer(live) as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/healthz")
    assert live.ready() == (True, "ready")


def test_a_server_listens_on_ipv6_too(live: Live) -> None:
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    with BackgroundServer(live, "::1") as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200


# -- what a connection may hold ----------------------------------------------------------------------------------------


def converse(url: str, *parts: bytes) -> bytes:
    """All that comes back on a connection on which `parts` are sent, until the server closes it."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        found = b""
        try:
            for part in parts:
                connection.sendall(part)
            while data := connection.recv(65536):
                found += data
        except ConnectionError:
            pass
        return found


def test_bytes_that_are_not_http_get_a_problem(url: str) -> None:
    found = converse(url, b"\x16\x03\x01 hello\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in found
    assert b'"type":"urn:headrace:problem:bad-request"' in found


def test_a_header_without_end_is_refused(url: str) -> None:
    parts = [b"GET / HTTP/1.1\r\nhost: localhost\r\n", *[b"x-more: " + b"y" * 8000 + b"\r\n"] * 40]
    assert converse(url, *parts)[:13] in (b"HTTP/1.1 431 ", b"")


def test_half_a_header_is_not_waited_for_for_ever(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STUCK_SECONDS", 1)
    with BackgroundServer(live) as server:
        assert converse(server.url, b"GET / HTTP/1.1\r\nhost:") == b""


def test_a_connection_that_sends_nothing_is_closed(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STUCK_SECONDS", 1)
    with BackgroundServer(live) as server:
        assert converse(server.url) == b""


def test_a_connection_in_use_is_not_closed_and_one_between_requests_neither(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STUCK_SECONDS", 1)
    never = hr.Token({"push": 10**9})
    with BackgroundServer(live) as server, httpx.Client(base_url=server.url) as http:
        address = httpx.URL(server.url)
        with socket.create_connection((address.host, address.port or 0), timeout=60) as kept:
            request = b"GET /v1/features/spending/u1 HTTP/1.1\r\nhost: localhost\r\n\r\n"
            kept.sendall(request)
            assert kept.recv(65536).startswith(b"HTTP/1.1 200 OK")
            waited = http.get("/v1/features/spending/u2", params={"after": str(never), "timeout": 3})
            kept.sendall(request)
            assert kept.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert waited.status_code == 504


def test_more_connections_than_there_may_be_are_told_so(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 2)
    with BackgroundServer(live) as server:
        clients = [httpx.Client(base_url=server.url) for _ in range(3)]
        statuses = [client.get("/healthz").status_code for client in clients]
        for client in clients:
            client.close()
    assert statuses == [200, 200, 503]
