"""The app of the tests of contexts, open and served."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from context_desk import ARTICLES, NOON, PAID, desk

import headrace as hr
from headrace.serving.live import Live
from headrace.serving.server import BackgroundServer
from headrace.testing.clock import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOON)


@pytest.fixture
def live(clock: VirtualClock) -> Iterator[Live]:
    with desk(clock).open() as opened:
        opened.push("payment", PAID)
        opened.push("article", ARTICLES)
        opened.drain(30)
        yield opened


@pytest.fixture
def http(live: Live) -> Iterator[httpx.Client]:
    with BackgroundServer(live) as server, httpx.Client(base_url=server.url) as client:
        yield client


@pytest.fixture
def remote(live: Live) -> Iterator[hr.Remote]:
    with BackgroundServer(live) as server, hr.connect(server.url) as connected:
        yield connected
