"""`GET /v1/changes`: what is subscribed to is told, over the ends of connections, and clients that go are let go of."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest

import headrace as hr
from headrace.serving.connection import STUCK_SECONDS, Connection
from headrace.serving.live import Live
from headrace.serving.server import BackgroundServer
from headrace.testing.clock import VirtualClock


class Post(hr.Document):
    id: str
    text: str


NOON = "2026-01-31T12:00:00Z"


@pytest.fixture
def site() -> Iterator[Live]:
    from fraud_desk import make_app

    app = make_app(VirtualClock(NOON))
    posts = app.table(Post)
    app.collection("library", posts, embed="hash", index="memory:")
    with app.open() as live:
        live.drain()
        yield live


@pytest.fixture
def address(site: Live) -> Iterator[str]:
    with BackgroundServer(site) as server:
        yield server.url


class Stream:
    """Events of an open answer, one by one."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()

    def next(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for line in self._lines:
            if not line:
                return found
            name, _, value = line.partition(": ")
            found[name] = json.loads(value) if name == "data" else value
        raise EOFError


def pay(live: Live, user: str, amount: float = 5.0) -> None:
    live.push("payment", {"user_id": user, "amount": amount, "at": "2026-01-31T11:59:30Z"})
    live.drain()


def left(live: Live) -> None:
    """Waits until no client is left, asked whenever one goes."""
    gone = threading.Event()

    def look() -> None:
        if live.hub.subscribers == 0:
            gone.set()
        else:
            live.hub.soon(look)

    live.hub.soon(look)
    assert gone.wait(30)


def test_a_key_is_told_as_it_reads_now(site: Live, address: str) -> None:
    with httpx.stream("GET", f"{address}/v1/changes?view=spending&key=u1", timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = Stream(answer)
        ready = events.next()
        assert (ready["event"], ready["data"]) == ("ready", {"subscribed": ["features spending"]})
        pay(site, "u2")
        pay(site, "u1")
        change = events.next()
        assert change["event"] == "features"
        assert (change["data"]["view"], change["data"]["key"]) == ("spending", {"user_id": "u1"})
        assert change["data"]["row"]["total_10m"] == 5.0
        assert change["id"] != ready["id"]


def test_a_client_that_comes_back_goes_on_where_it_was(site: Live, address: str) -> None:
    path = f"{address}/v1/changes?view=spending"
    with httpx.stream("GET", path, timeout=60) as answer:
        events = Stream(answer)
        events.next()
        pay(site, "u1")
        last = events.next()["id"]
    pay(site, "u2")
    with httpx.stream("GET", path, headers={"Last-Event-ID": last}, timeout=60) as answer:
        events = Stream(answer)
        assert "id" not in events.next()
        assert events.next()["data"]["key"] == {"user_id": "u2"}
    with httpx.stream("GET", path, headers={"Last-Event-ID": "somebody-7"}, timeout=60) as answer:
        events = Stream(answer)
        assert events.next()["event"] == "ready"
        reset = events.next()
        assert (reset["event"], "read everything again" in reset["data"]["detail"]) == ("reset", True)
    # From there on it goes on as any other.
    with httpx.stream("GET", path, headers={"Last-Event-ID": reset["id"]}, timeout=60) as answer:
        assert Stream(answer).next() == {"event": "ready", "data": {"subscribed": ["features spending"]}} | (
            {"id": reset["id"]}
        )


def test_documents_and_rows_are_told(site: Live, address: str) -> None:
    with httpx.stream("GET", f"{address}/v1/changes?collection=library&table=post", timeout=60) as answer:
        events = Stream(answer)
        events.next()
        site.push("post", {"id": "a", "text": "Ports freeze."})
        first = [events.next(), events.next()]
        site.drain()
        site.delete("post", ["a"])
        second = [events.next(), events.next()]
    by = [{(one["event"], one["data"]["what"]) for one in some} for some in (first, second)]
    assert by == [{("row", "written"), ("document", "written")}, {("row", "deleted"), ("document", "gone")}]


def test_clients_that_go_are_let_go_of(site: Live, address: str) -> None:
    for _ in range(5):
        with httpx.stream("GET", f"{address}/v1/changes?view=spending&key=u1", timeout=60) as answer:
            events = Stream(answer)
            events.next()
            assert site.hub.subscribers >= 1
    left(site)
    assert site.hub.subscribers == 0


def test_silence_is_broken_and_an_ending_server_ends_its_streams(site: Live) -> None:
    site.hub.keep_alive = 0.01
    with (
        BackgroundServer(site) as server,
        httpx.Client() as client,
        client.stream("GET", f"{server.url}/v1/changes?view=spending") as answer,
    ):
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith(":")) == ": keep-alive"
        ender = threading.Thread(target=server.close)
        ender.start()
        for _ in lines:
            pass
        ender.join(5)
        assert not ender.is_alive()


def sweep(server: BackgroundServer, seconds: int) -> None:
    """Has every connection looked at as often as in so many seconds, on the server's loop."""
    (listening,) = server._server.servers  # its loop has no public name

    async def look() -> None:
        for _ in range(seconds):
            for one in list(server._server.server_state.connections):
                cast("Connection", one).look()

    asyncio.run_coroutine_threadsafe(look(), listening.get_loop()).result(30)


def test_a_silent_stream_is_held_as_long_as_the_client_stays(site: Live) -> None:
    site.hub.keep_alive = 0.01
    with BackgroundServer(site) as server, httpx.stream("GET", f"{server.url}/v1/changes?view=spending") as answer:
        lines = answer.iter_lines()
        for _ in range(5):
            assert next(line for line in lines if line.startswith(":")) == ": keep-alive"
            sweep(server, 2 * STUCK_SECONDS)
        site.hub.keep_alive = 3600.0
        sweep(server, 2 * STUCK_SECONDS)
        pay(site, "u1")
        assert next(line for line in lines if line.startswith("event")) == "event: features"


def test_a_client_that_does_not_read_is_closed_and_costs_no_more_than_a_bound(site: Live) -> None:
    with BackgroundServer(site) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((host, int(port)))
            reader.sendall(f"GET /v1/changes?view=spending HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode())
            assert b"200" in reader.recv(16)
            stuck = False
            for start in range(0, 400_000, 20_000):
                rows = [
                    {"user_id": f"user-{start + one}", "amount": 1.0, "at": "2026-01-31T11:59:30Z"}
                    for one in range(20_000)
                ]
                site.push("payment", rows)
                site.drain()
                sweep(server, 1)
                (connection,) = server._server.server_state.connections
                stuck = cast("Connection", connection).transport.get_write_buffer_size() > 0
                if stuck and start:
                    break
            assert stuck
            (place,) = site.hub._subscriptions  # what it is owed has no public name
            assert len(place.pending) <= 10_000
            sweep(server, 2 * STUCK_SECONDS)
            left(site)
            assert site.hub.subscribers == 0


def test_a_closed_app_ends_its_streams(address: str, site: Live) -> None:
    with httpx.stream("GET", f"{address}/v1/changes?view=spending", timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        site.close()
        assert list(lines)[-1] == ""


def test_there_are_no_more_subscribers_than_a_bound(site: Live, address: str) -> None:
    site.hub.most = 1
    with httpx.stream("GET", f"{address}/v1/changes?view=spending", timeout=60) as answer:
        events = Stream(answer)
        events.next()
        refused = httpx.get(f"{address}/v1/changes?view=spending")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["type"] == "urn:headrace:problem:busy"


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("key=u1", 400), ("view=nope", 404), ("colection=a", 400), ("pack=pack_1", 404), ("table=none", 404)],
)
def test_what_cannot_be_subscribed_to_is_said(address: str, query: str, status: int) -> None:
    answer = httpx.get(f"{address}/v1/changes?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_key_is_needed_where_there_is_one(site: Live) -> None:
    with BackgroundServer(site, api_key="secret") as server:
        assert httpx.get(f"{server.url}/v1/changes?view=spending").status_code == 401
        assert httpx.get(f"{server.url}/v1/packs/pack_1").status_code == 401


def test_a_program_follows_changes(site: Live) -> None:
    with site.changes(view="spending", keys=["u1"], timeout=0.0) as changes:
        assert changes.next(0.0) is None
        pay(site, "u1")
        change = changes.next(30)
        assert change is not None
        assert (change.event, change.data["row"].total_10m) == ("features", 5.0)
        assert list(changes) == []
    assert site.hub.subscribers == 0
    assert changes.next() is None
    with pytest.raises(hr.InputError, match="found nothing"):
        site.changes()
