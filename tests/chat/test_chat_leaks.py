"""After anything that goes wrong the server process holds what it held before: tasks and open files are counted."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from chatting import HELLO, served, until
from scripted_upstream import DIE, STALL, Raw, ScriptedUpstream, delta, text, usage

import headrace as hr

OPEN_FILES = next((one for one in ("/proc/self/fd", "/dev/fd") if Path(one).is_dir()), "")
# More than the connections that may just be closing as the count begins.
ROUNDS = 5
ASK = {"messages": HELLO, "stream": True}


class Counted:
    """A served app, with what its process holds.

    Server, model server and client are in this process, so what any of them leaves open is seen.
    """

    def __init__(self, url: str, upstream: ScriptedUpstream, loops: list[asyncio.AbstractEventLoop]) -> None:
        self.url, self.upstream, self._loops = url + "/chat/completions", upstream, loops
        self.before = (0, 0)

    def now(self) -> tuple[int, int]:
        return len(asyncio.all_tasks(self._loops[0])), len(os.listdir(OPEN_FILES)) if OPEN_FILES else 0

    def settled(self) -> bool:
        """Whether there is no more than there was."""
        return until(lambda: all(now <= then for now, then in zip(self.now(), self.before, strict=True)))


@pytest.fixture
def script() -> list[list[Any]]:
    """What the model server says next; a good answer if nothing is left."""
    return []


@pytest.fixture
def upstream(script: list[list[Any]]) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(lambda _: script.pop() if script else text("yes")) as found:
        yield found


@pytest.fixture
def counted(upstream: ScriptedUpstream) -> Iterator[Counted]:
    loops: list[asyncio.AbstractEventLoop] = []

    def priority(_: Any) -> int:
        loops[:] = [asyncio.get_running_loop()]
        return 0

    # No health checks: their connection comes and goes. One attempt would be made four times, with a pause.
    spec = hr.Upstream(upstream.url, first_byte=0.2, between=0.2, health=None)
    with served(spec, priority=priority) as url:
        found = Counted(url, upstream, loops)
        for _ in range(2):
            assert httpx.post(found.url, json=ASK).status_code == 200
        assert until(lambda: httpx.get(url + "/status").json()["chat"]["inside"] == 0)
        found.before = found.now()
        yield found


def leaves_mid_stream(found: Counted) -> None:
    with httpx.stream("POST", found.url, json=ASK) as answer:
        next(answer.iter_raw())


def leaves_at_once(found: Counted) -> None:
    parts, asked = urlsplit(found.url), len(found.upstream.requests)
    with socket.create_connection((parts.hostname, parts.port)) as one:
        said = b'{"stream":true,"messages":[{"role":"user","content":"x"}]}'
        one.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(said) + said
        )
        # Earlier, it might not be asked for at all, or later, beside what is counted.
        assert until(lambda: len(found.upstream.requests) > asked)


def reads(found: Counted) -> None:
    httpx.post(found.url, json=ASK, timeout=30)


@pytest.mark.parametrize(
    ("steps", "client"),
    [
        pytest.param([delta(content="so "), STALL], leaves_mid_stream, id="the client leaves in the middle"),
        pytest.param([STALL], leaves_at_once, id="the client leaves before the beginning"),
        pytest.param([STALL], reads, id="the server stalls before the beginning"),
        pytest.param([delta(content="so "), STALL], reads, id="the server stalls in the middle"),
        pytest.param([delta(content="so "), DIE], reads, id="the server dies in the middle"),
        pytest.param([DIE], reads, id="the server dies before the beginning"),
        pytest.param([delta(content="so "), b"data: {broken\n\n"], reads, id="a chunk that is no JSON"),
        pytest.param([delta(content="so "), b'data: {"choices": [3]}\n\n'], reads, id="a chunk of other types"),
        pytest.param([b"data: {broken\n\n"], reads, id="a first chunk that is no JSON"),
        pytest.param([delta(content="so "), b"<html>"], reads, id="a page in a stream"),
        pytest.param([delta(content="so ")], reads, id="a stream without its end"),
        pytest.param([delta(content="so "), delta("stop"), usage(-1, 10**12)], reads, id="a usage that cannot be"),
        pytest.param([Raw(b"no HTTP\r\n\r\n")], reads, id="no HTTP"),
        pytest.param([Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nda")], reads, id="a body that is cut off"),
        pytest.param([(500, {})], reads, id="a refusal"),
    ],
)
def test_what_goes_wrong_leaves_nothing(
    counted: Counted, script: list[list[Any]], steps: list[Any], client: Callable[[Counted], None]
) -> None:
    for _ in range(ROUNDS):
        script.append(steps)
        client(counted)
    assert counted.settled(), (counted.before, counted.now())
    script.clear()
    assert httpx.post(counted.url, json=ASK, timeout=30).text.endswith("data: [DONE]\n\n")
    assert counted.settled(), (counted.before, counted.now())
