"""The app of the tests of serving."""

from __future__ import annotations

from datetime import datetime

import polars as pl

import headrace as hr
from headrace.testing.clock import VirtualClock

NOON = "2026-01-31T12:00:00Z"
PAID = [
    {"user_id": "u1", "amount": 5.0, "merchant": "a", "at": "2026-01-31T11:59:00Z"},
    {"user_id": "u1", "amount": 2000.0, "merchant": "b", "at": "2026-01-31T11:59:58Z"},
]


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
