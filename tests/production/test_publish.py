"""A view published to a topic: what a consumer of the topic sees is what a read says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import headrace as hr
from headrace.testing import VirtualClock
from services.kafka import Tansu

START = datetime(2026, 1, 1, tzinfo=UTC)


class Payment(hr.Event):
    user_id: str
    amount: float
    at: datetime = hr.event_time()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Tansu]:
    made = Tansu(tmp_path / "kafka")
    made.start()
    yield made
    made.close()


def test_a_topic_holds_the_rows_by_key(broker: Tansu) -> None:
    """One message a key and change, the key as text, and a tombstone when the window has ended."""
    clock = VirtualClock(START)
    app = hr.App("till", clock=clock)
    payments = app.stream(Payment, lateness="0s")

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total = hr.sum("amount", over="10m", every="1m")

    topic = broker.create(2)
    app.publish(Spending, broker.url(topic), every="1ms")
    with app.open() as live:
        live.push("payment", [{"user_id": user, "amount": 5.0, "at": START} for user in ("u1", "u2")])
        first = {message.key(): json.loads(message.value()) for message in broker.messages(topic, 2)}
        clock.advance(timedelta(hours=1))
        last = broker.messages(topic, 4)
    assert first == {
        user.encode(): {"user_id": user, "total": 5.0, "as_of": "2026-01-01T00:00:00Z"} for user in ("u1", "u2")
    }
    assert sorted(message.key() for message in last if message.value() is None) == [b"u1", b"u2"]
