"""Memories over HTTP and from the client: the same as in process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import jsonschema
import pytest
from chats import NOON, make_app, texts
from openapi_spec_validator import validate

import headrace as hr
from headrace.serving.live import Live
from headrace.serving.server import BackgroundServer
from headrace.testing.clock import VirtualClock

SAID = [{"role": "user", "content": f"The harbour froze in {year}.", "user_id": "u1"} for year in range(1900, 1906)]


@pytest.fixture
def live() -> Iterator[Live]:
    with make_app(VirtualClock(NOON)).open() as opened:
        yield opened


@pytest.fixture
def url(live: Live) -> Iterator[str]:
    with BackgroundServer(live) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as made:
        yield made


@pytest.fixture
def remote(url: str) -> Iterator[hr.Remote]:
    with hr.connect(url) as made:
        yield made


def test_turns_go_in_come_out_and_are_forgotten(client: httpx.Client) -> None:
    said = client.post("/v1/memories/chat/s", json={"turns": SAID}).json()
    asked = {"question": "harbour 1901", "turns": 2, "k": 4, "after": said["token"]}
    found = client.get("/v1/memories/chat/s", params=asked).json()
    assert (said["remembered"], [one["text"][-5:] for one in found["turns"]], len(found["older"])) == (
        6,
        ["1904.", "1905."],
        4,
    )
    assert client.delete("/v1/memories/chat/s").json() == {"forgotten": 6}
    assert client.get("/v1/memories/chat/s").json()["turns"] == []


@pytest.mark.parametrize("question", ["subject=u1", "before=2026-01-02T00:00:00Z"])
def test_what_is_forgotten_can_be_said_in_the_query(client: httpx.Client, question: str) -> None:
    client.post("/v1/memories/chat/s", json={"turns": SAID})
    assert client.delete(f"/v1/memories/chat?{question}").json() == {"forgotten": 6}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/memories/other/s", 404),
        ("GET", "/v1/memories/chat", 405),
        ("GET", "/v1/memories/chat/s?turns=-1", 422),
        ("GET", "/v1/memories/chat/s?session=t", 422),
        ("GET", "/v1/memories/chat/%FF", 422),
        ("GET", "/v1/memories/chat/" + "x" * 513, 422),
        ("DELETE", "/v1/memories/chat", 422),
        ("DELETE", "/v1/memories/chat?subject=a&before=1", 422),
        ("POST", "/v1/memories/chat/s", 422),
        ("POST", "/v1/collections/memory.chat/search", 404),
        ("PUT", "/v1/tables/memory.chat", 404),
    ],
)
def test_what_cannot_be_is_a_problem(client: httpx.Client, method: str, path: str, status: int) -> None:
    content = b'{"query": "x"}' if "search" in path else None
    answer = client.request(method, path, content=content)
    assert (answer.status_code in (status, 400 if status == 422 else status), "detail" in answer.text) == (True, True)


@pytest.mark.parametrize("session", ["a/b", "..", ".", "a\0b", "a\nb", "a?b#c", "a%2Fb", "ü", "x" * 512])
def test_any_session_is_its_own_from_the_client(remote: hr.Remote, session: str) -> None:
    remote.remember("chat", session, "user", "mine", id="m1")
    remote.remember("chat", session + "x" if len(session) < 512 else "x", "user", "not mine")
    assert texts(remote.recall("chat", session).turns) == ["mine"]
    assert (remote.forget("chat", session=session), texts(remote.recall("chat", session).turns)) == (1, [])


def test_the_client_is_as_the_live_app(live: Live, remote: hr.Remote) -> None:
    token = remote.remember("chat", "s", SAID, subject="u2")
    live.drain()
    asked = {"question": "harbour 1901", "turns": 2, "k": 2, "after": token}
    assert remote.recall("chat", "s", **asked) == live.recall("chat", "s", **asked)
    assert remote.remember("chat", "s", "user", "late", id="x", at=datetime(2026, 1, 1, tzinfo=UTC)).accepted == 1
    assert remote.forget("chat", before=datetime(2026, 1, 1, 1, tzinfo=UTC)) == 1
    assert remote.forget("chat", subject="u1") == 6
    with pytest.raises(hr.InputError, match="expected one of session="):
        remote.forget("chat")
    with pytest.raises(hr.InputError, match="a role of user"):
        remote.remember("chat", "s", "robot", "hello")


def test_openapi_says_what_is_served(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    validate(document)
    client.post("/v1/memories/chat/s", json={"turns": SAID})
    found = client.get("/v1/memories/chat/s").json()
    path = document["paths"]["/v1/memories/chat/{session_id}"]
    schema = path["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(found, schema | {"components": document["components"]})
    assert set(path) == {"post", "get", "delete"}
