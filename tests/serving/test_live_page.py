"""The live page in a real browser: all that an app declares is shown, and nothing in its figures stops it."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import datetime
from typing import Any

import pytest

import headrace as hr
from headrace.serving.server import BackgroundServer

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Click(hr.Event):
    page: str
    at: datetime = hr.event_time()


class Note(hr.Document):
    id: str
    body: str


@pytest.mark.services
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_an_app_with_everything_is_shown() -> None:
    app = hr.App("everything")
    clicks, notes = app.stream(Click), app.table(Note)

    @app.features(clicks, key="page")
    class Traffic:
        """Clicks of a page."""

        clicks_1h = hr.count(over="1h")

    library = app.collection("library", notes, text="body", embed="hash", index="memory:")
    app.memory("talk", embed="hash", index="memory:")

    @app.context(budget=500)
    def briefing(page: str, question: str) -> Any:
        """What is known of a page."""
        yield Traffic(page)
        yield library.search(question)

    with app.open() as live, BackgroundServer(live) as server:
        live.push(notes, {"id": "a", "body": "A note."})
        live.remember("talk", "s1", [{"role": "user", "content": "Hello."}, {"role": "user", "content": "Anyone?"}])
        live.drain()
        shown = page(server.url)
    state = re.search(r'id="state"[^>]*>([^<]*)<', shown)
    assert state is not None
    assert state[1] == "ready"
    assert re.findall(r"<h3>([^<]*)</h3>", shown) == ["click", "library", "note", "talk", "traffic", "briefing"]
    assert '<b>1</b><span class="soft">documents</span>' in shown
    assert "page, question" in shown


def page(url: str) -> str:
    """The page as a browser has made it; its clock goes on only while nothing is awaited from the server."""
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    return subprocess.run([BROWSER, *options, url], capture_output=True, text=True, timeout=120, check=True).stdout
