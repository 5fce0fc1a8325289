"""An open app, and the three ways to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from awaited import Awaited
from client_desk import desk

import headrace as hr
from headrace.serving.server import BackgroundServer


@pytest.fixture
def live() -> Iterator[hr.Live]:
    with desk().open() as opened:
        yield opened


@pytest.fixture
def url(live: hr.Live) -> Iterator[str]:
    with BackgroundServer(live) as server:
        yield server.url


@pytest.fixture
def remote(url: str) -> Iterator[hr.Remote]:
    with hr.connect(url) as connected:
        yield connected


@pytest.fixture
def awaited(url: str) -> Iterator[Awaited]:
    connected = Awaited(url)
    yield connected
    connected.close()


@pytest.fixture(params=["live", "remote", "awaited"])
def each(request: pytest.FixtureRequest) -> Any:
    """In process, over HTTP, and over HTTP from an event loop."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["remote", "awaited"])
def far(request: pytest.FixtureRequest) -> Any:
    """Over HTTP, and over HTTP from an event loop."""
    return request.getfixturevalue(request.param)
