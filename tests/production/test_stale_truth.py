"""The producer stops: a total read from Redis falls to zero as its window moves on, without any event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import headrace as hr
from headrace.testing import VirtualClock
from services.redis import RedisServer, Valkey

START = datetime(2026, 1, 1, tzinfo=UTC)


class Payment(hr.Event):
    user_id: str
    amount: float
    at: datetime = hr.event_time()


def desk(clock: VirtualClock, online: str, runner: str) -> hr.App:
    """The same declaration for the engine and for a replica."""
    app = hr.App("desk", clock=clock, online=online, runner=runner)
    payments = app.stream(Payment)

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total_10m = hr.sum("amount", over="10m", every="1m")
        count_10m = hr.count(over="10m", every="1m")

    return app


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with Valkey(tmp_path / "redis") as server:
        yield server


@pytest.mark.parametrize("engine_lives", [True, False], ids=["idle engine", "no engine"])
def test_a_total_falls_to_zero_in_ten_minutes(redis: RedisServer, engine_lives: bool) -> None:
    """One unit a minute for ten minutes, then nothing; read each minute, from a process that has no engine."""
    clock = VirtualClock(START)
    engine = desk(clock, redis.url, "local").open()
    try:
        for _ in range(10):
            engine.push("payment", [{"user_id": "u1", "amount": 1.0, "at": clock.now() / 1e6}])
            clock.advance(timedelta(minutes=1))
        engine.drain()
        if not engine_lives:
            engine.close()
        with desk(clock, redis.url, "replica").open() as replica:
            totals = []
            for _ in range(12):
                row = replica.read("spending", "u1")
                assert row.total_10m == row.count_10m
                totals.append(row.total_10m)
                clock.advance(timedelta(minutes=1))
    finally:
        engine.close()
    assert totals == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]
