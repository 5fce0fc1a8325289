"""A small app on a clock of its own, open and served: what the tests of serving share."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from awaited import awaited as awaited
from awaited import remote as remote
from awaited import url as url
from fraud_desk import NOON, PAID, make_app

import headrace as hr
from headrace.serving.live import Live
from headrace.serving.server import BackgroundServer
from headrace.testing.clock import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOON)


@pytest.fixture
def live(clock: VirtualClock) -> Iterator[Live]:
    with make_app(clock).open() as opened:
        yield opened


@pytest.fixture
def paid(live: Live) -> hr.Token:
    """Two payments of u1, which reads see."""
    token = live.push("payment", PAID)
    live.drain()
    return token


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture(scope="session")
def steady_live() -> Iterator[Live]:
    """An app that holds two payments of u1, for tests that only look."""
    with make_app(VirtualClock(NOON)).open() as opened:
        opened.push("payment", PAID)
        opened.drain()
        yield opened


@pytest.fixture(scope="session")
def steady(steady_live: Live) -> Iterator[httpx.Client]:
    """A client of a server that all tests share: they must leave it as it is."""
    with BackgroundServer(steady_live) as server, httpx.Client(base_url=server.url) as client:
        yield client
