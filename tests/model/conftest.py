"""A small real model, and Headrace in front of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

import headrace as hr
from headrace.demo.model import SmallModel, missing, weights
from headrace.serving.server import BackgroundServer

PLACES = 2


class Click(hr.Event):
    page: str
    at: datetime = hr.event_time()


@pytest.fixture(scope="session")
def assembled() -> None:
    """The weights, put together once."""
    if why := missing():
        pytest.skip(why)
    weights()


@pytest.fixture
def start(assembled: None) -> Iterator[Callable[..., SmallModel]]:
    """Starts servers, and ends them."""
    with contextlib.ExitStack() as stack:
        yield lambda port=0: stack.enter_context(SmallModel(port, places=PLACES, threads=1))


@pytest.fixture(scope="module")
def model(assembled: None) -> Iterator[SmallModel]:
    """One server, for tests that leave it as it was."""
    with SmallModel(places=PLACES, threads=1) as one:
        yield one


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves an app with a view, a context and a chat endpoint before model servers."""
    with contextlib.ExitStack() as stack:

        def started(*models: SmallModel, **options: Any) -> str:
            app = hr.App("site", clock="event")
            clicks = app.stream(Click)

            @app.features(clicks, key="page")
            class Traffic:
                """Clicks of a page."""

                clicks_1h = hr.count(over="1h")

            traffic: Any = Traffic

            @app.context(budget=400)
            def about(page: str) -> Any:
                """What is known of a page."""
                yield hr.text("Answer in one sentence.", trusted=True)
                yield traffic(page)

            app.chat(upstreams=[hr.Upstream(one.url, concurrent=PLACES) for one in models], **options)
            live = stack.enter_context(app.open())
            live.push(clicks, [{"page": "home", "at": 1}, {"page": "home", "at": 2}])
            live.drain()
            return stack.enter_context(BackgroundServer(live)).url + "/v1"

        yield started
