"""A small app on a clock of its own, open and served: what the tests of serving share."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fraud_desk import NOON, make_app

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
    token = live.push(
        "payment",
        [
            {"user_id": "u1", "amount": 5.0, "merchant": "a", "at": "2026-01-31T11:59:00Z"},
            {"user_id": "u1", "amount": 2000.0, "merchant": "b", "at": "2026-01-31T11:59:58Z"},
        ],
    )
    live.drain()
    return token


@pytest.fixture
def url(live: Live) -> Iterator[str]:
    with BackgroundServer(live) as server:
        yield server.url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def remote(url: str) -> Iterator[hr.Remote]:
    with hr.connect(url) as connected:
        yield connected
