"""A small app on a clock of its own, open and served: what the tests of serving share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import httpx
import polars as pl
import pytest

import headrace as hr
from headrace.serving.live import Live
from headrace.serving.server import BackgroundServer
from headrace.testing.clock import VirtualClock

NOON = "2026-01-31T12:00:00Z"
KEY = "a key of the tests".replace(" ", "-")


class Payment(hr.Event):
    """One payment."""

    user_id: str
    amount: float
    merchant: str = ""
    at: datetime = hr.event_time()


class Departure(hr.Event):
    """One departure."""

    origin: str
    flight: int
    delay: float | None = None
    at: datetime = hr.event_time()


def make_app(clock: VirtualClock) -> hr.App:
    """Two streams and two views, one of them under a composite key."""
    app = hr.App("fraud-desk", clock=clock)
    payments = app.stream(Payment)
    departures = app.stream(Departure)

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total_10m = hr.sum("amount", over="10m", every="1m")
        large_1h = hr.count(over="1h", where=pl.col("amount") > 1000)
        mean_1h = hr.mean("amount", over="1h")
        last_at = hr.last("at", over="1d")
        recent = hr.latest(2, "amount", "at", over="1d")

    @app.features(departures, key=["origin", "flight"])
    class Route:
        """How one flight number does from one airport."""

        departures = hr.count(over="1h")
        mean_delay = hr.mean("delay", over="1h")

    assert (Spending.name, Route.name) == ("spending", "route")
    return app


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
