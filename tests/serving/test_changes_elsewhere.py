"""Changes of views where the engine is not in this process's hands: refused in words, and nothing is left behind."""

from __future__ import annotations

import httpx
import pytest
from fraud_desk import make_app

import headrace as hr
from headrace.serving.server import BackgroundServer
from headrace.testing.clock import VirtualClock

pytest.importorskip("bytewax")


def test_a_subscription_to_a_view_is_an_error_that_says_where_to_ask() -> None:
    app = make_app(VirtualClock("2026-01-31T12:00:00Z"))
    app.runner = "bytewax"
    with app.open() as live:
        with pytest.raises(hr.InputError, match=r"told where its engine runs.*runs with 'bytewax'.*read again"):
            live.changes(view="spending")
        with BackgroundServer(live) as server:
            answer = httpx.get(f"{server.url}/v1/changes?view=spending")
        assert (answer.status_code, "its engine runs" in answer.json()["detail"]) == (400, True)
        assert (live.hub.subscribers, live.sources.listening) == (0, 0)
