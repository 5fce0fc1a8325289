"""An open app, and the three ways to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from awaited import awaited as awaited
from awaited import remote as remote
from awaited import url as url
from client_desk import desk

import headrace as hr


@pytest.fixture
def live() -> Iterator[hr.Live]:
    with desk().open() as opened:
        yield opened


@pytest.fixture(params=["live", "remote", "awaited"])
def each(request: pytest.FixtureRequest) -> Any:
    """In process, over HTTP, and over HTTP from an event loop."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["remote", "awaited"])
def far(request: pytest.FixtureRequest) -> Any:
    """Over HTTP, and over HTTP from an event loop."""
    return request.getfixturevalue(request.param)
