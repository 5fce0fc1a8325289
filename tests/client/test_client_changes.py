"""A subscription from afar outlives its connection, and its server for a while; and ends when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from awaited import Awaited
from client_desk import paid
from scripted_server import EVENTS, HOLD, ScriptedServer

import headrace as hr
from headrace.serving.client_async import changes as far_async
from headrace.serving.client_sync import changes as far_sync
from headrace.serving.server import BackgroundServer

MINUTE = 60.0
READY = EVENTS + b'event: ready\nid: hub-0\ndata: {"subscribed":[]}\n\n'


def told(number: int) -> bytes:
    return b'event: row\nid: hub-%d\ndata: {"table":"note","key":"n%d"}\n\n' % (number, number)


@pytest.fixture(params=["threads", "loop"])
def connect(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Any] = []

    def connect(url: str) -> Any:
        made.append(hr.connect(url) if request.param == "threads" else Awaited(url))
        return made[-1]

    yield connect
    for one in made:
        one.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test can reach at once."""
    for module in (far_sync, far_async):
        monkeypatch.setattr(module, "PAUSE", 0.0)
        monkeypatch.setattr(module, "RETRIES", 2)


def test_a_connection_that_breaks_is_made_anew_where_it_was(connect: Any) -> None:
    with ScriptedServer([READY, told(1)], [READY, told(2)[:-9]], [READY, told(2), HOLD]) as server:
        with connect(server.url).changes(table="note") as changes:
            assert [changes.next(MINUTE).id for _ in range(2)] == ["hub-1", "hub-2"]
        names = [[line for line in one.split(b"\r\n") if line.startswith(b"last-event-id")] for one in server.requests]
        assert names == [[], [b"last-event-id: hub-1"], [b"last-event-id: hub-0"]]
        assert server.gone.wait(MINUTE)


def test_a_stream_that_broke_before_its_first_id_says_that_it_was_there(connect: Any) -> None:
    unnumbered = EVENTS + b"event: ready\ndata: {}\n\n"
    script = [unnumbered], [READY + told(1), HOLD]
    with ScriptedServer(*script) as server, connect(server.url).changes(table="note") as changes:
        assert changes.next(MINUTE).id == "hub-1"
        assert b"last-event-id: none" in server.requests[1]


def test_what_the_server_cannot_know_is_lost(connect: Any) -> None:
    reset = b"event: reset\nid: other-7\ndata: {}\n\n"
    with ScriptedServer([READY], [READY + reset, HOLD]) as server, connect(server.url).changes(table="note") as changes:
        change = changes.next(MINUTE)
        assert (change.event, change.data, change.id) == ("lost", {}, "other-7")


def test_a_server_that_stays_away_is_an_error(connect: Any, impatient: None) -> None:
    with ScriptedServer([READY, told(1)]) as server:
        changes = connect(server.url).changes(table="note")
    assert changes.next(MINUTE).id == "hub-1"
    for _ in range(2):
        with pytest.raises(hr.RemoteError, match="expected an answer from"):
            changes.next(MINUTE)


def test_streams_that_say_nothing_are_not_asked_for_for_ever(connect: Any, impatient: None) -> None:
    with ScriptedServer([READY]) as server:
        changes = connect(server.url).changes(table="note")
        with pytest.raises(hr.RemoteError, match="found the stream's end"):
            changes.next(MINUTE)
        assert len(server.requests) == 1 + 2


def test_a_refusal_is_not_asked_for_again(connect: Any) -> None:
    body = b'{"type":"urn:headrace:problem:unauthorized","detail":"the key is another now"}'
    refusal = b"HTTP/1.1 401 x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with ScriptedServer([READY], [refusal]) as server:
        changes = connect(server.url).changes(table="note")
        with pytest.raises(hr.RemoteError, match="the key is another now") as raised:
            changes.next(MINUTE)
        assert (raised.value.status, len(server.requests)) == (401, 2)


def test_an_event_that_could_not_be_told_is_an_error_and_the_next_one_is_told(connect: Any) -> None:
    failed = b'event: error\ndata: {"detail":"the store is away"}\n\n'
    script = [READY + failed + told(1), HOLD]
    with ScriptedServer(script) as server, connect(server.url).changes(table="note") as changes:
        with pytest.raises(hr.RemoteError, match="the store is away"):
            changes.next(MINUTE)
        assert changes.next(MINUTE).id == "hub-1"


def test_a_server_that_is_started_again_goes_on_telling(live: hr.Live, connect: Any) -> None:
    with BackgroundServer(live) as server:
        port = int(server.url.rpartition(":")[2])
        changes = connect(server.url).changes(view="spending")
        live.push("payment", paid(1.0))
        assert changes.next(MINUTE).data["row"].total_1h == 1.0
    live.push("payment", paid(2.0))
    with BackgroundServer(live, port=port):
        assert changes.next(MINUTE).data["row"].total_1h == 3.0
        changes.close()


def test_closing_ends_a_wait_and_the_connection(connect: Any) -> None:
    with ScriptedServer([READY, HOLD]) as server:
        changes = connect(server.url).changes(table="note")
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.extend(changes))
        waiting.start()
        assert server.held.wait(MINUTE)
        changes.close()
        waiting.join(MINUTE)
        assert (waiting.is_alive(), found) == (False, [])
        assert server.gone.wait(MINUTE)


def test_the_end_of_the_client_ends_its_subscriptions(url: str, live: hr.Live) -> None:
    with hr.connect(url) as remote:
        first, second = remote.changes(view="spending"), remote.changes(table="note")
        assert live.hub.subscribers == 2
        assert first.next(timeout=0.01) is None
    assert (first.next(), second.next(), list(first)) == (None, None, [])
    assert "headrace-client-changes" not in {thread.name for thread in threading.enumerate()}
