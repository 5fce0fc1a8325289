"""What the tests of chat share: an app that is served, and its clients."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import openai

import headrace as hr
from headrace.serving.http import MAX_BODY
from headrace.serving.server import BackgroundServer

HELLO = [{"role": "user", "content": "hello"}]


class Click(hr.Event):
    page: str
    at: datetime = hr.event_time()


@contextlib.contextmanager
def served(*upstreams: Any, max_body: int = MAX_BODY, **options: Any) -> Iterator[str]:
    """An app with a view, a context and a chat endpoint, served."""
    app = hr.App("site", clock="event")
    clicks = app.stream(Click)

    @app.features(clicks, key="page")
    class Traffic:
        """Clicks of a page."""

        clicks_1h = hr.count(over="1h")

    @app.context(budget=500)
    def about(page: str) -> Any:
        """What is known of a page."""
        yield hr.text("Answer in one sentence.", trusted=True)
        yield Traffic(page)

    declared = [one if isinstance(one, hr.Upstream) else hr.Upstream(one.url) for one in upstreams]
    app.chat(upstreams=declared, **options)
    with app.open() as live:
        live.push(clicks, [{"page": "home", "at": 1}, {"page": "home", "at": 2}])
        live.drain()
        with BackgroundServer(live, max_body=max_body) as server:
            yield server.url + "/v1"


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="unused", max_retries=0)


def until(found: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 10
    pause = threading.Event()
    while not found() and time.monotonic() < ends:
        pause.wait(0.01)
    return found()
