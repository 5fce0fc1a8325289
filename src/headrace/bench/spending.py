"""The applications that the benchmarks measure: users' payments, as a program would declare them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import headrace as hr


class Payment(hr.Event):
    """A payment, its time in milliseconds since the epoch."""

    user_id: str
    amount: float
    timestamp: datetime = hr.event_time(unit="ms")


class LivePayment(hr.Event):
    """A payment, its time in microseconds since the epoch."""

    user_id: str
    amount: float
    timestamp: datetime = hr.event_time(unit="us")


@dataclass(frozen=True)
class Bench:
    """An application with its one stream and its one view."""

    app: hr.App
    stream: Any
    view: Any


def trailing_sum(url: str | None = None, *, runner: str = "local") -> Bench:
    """One ten-minute sum in one-minute tiles; now is the newest event time."""
    app = hr.App("bench-features", clock="event", runner=runner)
    payments = app.stream(Payment, url, lateness="10s")

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total = hr.sum("amount", over="10m", every="1m")

    return Bench(app, payments, Spending)


def ten_features() -> Bench:
    """Ten features over two windows, all in one-minute tiles; now is the wall clock."""
    app = hr.App("bench-reads", clock="wall")
    payments = app.stream(LivePayment, lateness="10s")

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total_10m = hr.sum("amount", over="10m", every="1m")
        count_10m = hr.count(over="10m", every="1m")
        mean_10m = hr.mean("amount", over="10m", every="1m")
        min_10m = hr.min("amount", over="10m", every="1m")
        max_10m = hr.max("amount", over="10m", every="1m")
        std_10m = hr.std("amount", over="10m", every="1m")
        rate_10m = hr.rate(over="10m", every="1m")
        total_1h = hr.sum("amount", over="1h", every="1m")
        count_1h = hr.count(over="1h", every="1m")
        max_1h = hr.max("amount", over="1h", every="1m")

    return Bench(app, payments, Spending)
