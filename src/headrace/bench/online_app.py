"""The application of the `online` benchmark: ten features over ten minutes, in a store outside the process."""

from __future__ import annotations

import headrace as hr
from headrace.bench.spending import Bench, LivePayment


def ten_minutes(url: str, runner: str = "local") -> Bench:
    """Ten features over ten minutes in one-minute tiles, eleven of which a key can have; now is the wall clock."""
    app = hr.App("bench-online", clock="wall", online=url, runner=runner)
    payments = app.stream(LivePayment, lateness="10s")

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total = hr.sum("amount", over="10m", every="1m")
        count = hr.count(over="10m", every="1m")
        mean = hr.mean("amount", over="10m", every="1m")
        least = hr.min("amount", over="10m", every="1m")
        most = hr.max("amount", over="10m", every="1m")
        spread = hr.std("amount", over="10m", every="1m")
        rate = hr.rate(over="10m", every="1m")
        total_5m = hr.sum("amount", over="5m", every="1m")
        count_5m = hr.count(over="5m", every="1m")
        most_5m = hr.max("amount", over="5m", every="1m")

    return Bench(app, payments, Spending)
