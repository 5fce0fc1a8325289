"""A view's rows to a sink: written when they change, when only time changes them, and taken back in the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import headrace as hr
from headrace.errors import ConfigError, StorageError
from headrace.features.view import View
from headrace.registry import DEFAULT
from headrace.testing import VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)
SHELVES: dict[str, Shelf] = {}


class Shelf:
    """A sink in memory: what a compacted topic would hold, and every item in order."""

    def __init__(self, url: str) -> None:
        self.name = url
        self.items: list[tuple[bytes, bytes | None]] = []
        self.away = False
        SHELVES[url] = self

    def put(self, items: Sequence[tuple[bytes, bytes | None]]) -> None:
        if self.away:
            raise StorageError("the shelf is away")
        self.items += items

    def close(self) -> None:
        """Nothing to let go of."""

    def table(self) -> dict[str, float]:
        """Each key's total, as whoever reads the sink sees it."""
        found: dict[str, float] = {}
        for key, value in self.items:
            if value is None:
                found.pop(key.decode(), None)
            else:
                found[key.decode()] = json.loads(value)["total"]
        return found


DEFAULT.register("sink", "shelf", f"{__name__}:Shelf")


class Payment(hr.Event):
    user_id: str
    amount: float
    at: datetime = hr.event_time()


def till(clock: VirtualClock) -> tuple[hr.App, View]:
    app = hr.App("till", clock=clock)
    payments = app.stream(Payment, lateness="0s")

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total = hr.sum("amount", over="10m", every="1m")

    # So seldom that only the tests flush.
    app.publish(Spending, "shelf:one", every="1d")
    return app, Spending


def flush(live: hr.Live) -> None:
    live.drain()
    (publisher,) = live._runner._publishers  # type: ignore[attr-defined]
    publisher.flush()


def pay(live: hr.Live, clock: VirtualClock, user: str, amount: float) -> None:
    live.push("payment", [{"user_id": user, "amount": amount, "at": clock.now() / 1e6}])


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


def test_a_row_is_written_when_it_changes_and_only_then(clock: VirtualClock) -> None:
    app, _ = till(clock)
    with app.open() as live:
        pay(live, clock, "u1", 5.0)
        pay(live, clock, "u2", 1.0)
        flush(live)
        pay(live, clock, "u1", 2.0)
        flush(live)
        flush(live)
        assert SHELVES["shelf:one"].table() == {"u1": 7.0, "u2": 1.0}
        assert sorted(key for key, _ in SHELVES["shelf:one"].items) == [b"u1", b"u1", b"u2"]


def test_time_alone_changes_a_row_and_takes_it_back(clock: VirtualClock) -> None:
    """No event comes: the total falls when its tile leaves the window, and the key ends with a tombstone."""
    app, _ = till(clock)
    with app.open() as live:
        pay(live, clock, "u1", 5.0)
        clock.advance(timedelta(minutes=4))
        pay(live, clock, "u1", 2.0)
        seen = []
        for _ in range(16):
            flush(live)
            seen.append(SHELVES["shelf:one"].table().get("u1"))
            clock.advance(timedelta(minutes=1))
        assert seen == [7.0] * 6 + [2.0] * 4 + [None] * 6
        assert [value is None for _, value in SHELVES["shelf:one"].items] == [False, False, True]


def test_a_sink_that_is_away_gets_it_later(clock: VirtualClock) -> None:
    app, _ = till(clock)
    with app.open() as live:
        SHELVES["shelf:one"].away = True
        pay(live, clock, "u1", 5.0)
        with pytest.raises(StorageError, match="away"):
            flush(live)
        SHELVES["shelf:one"].away = False
        flush(live)
        assert SHELVES["shelf:one"].table() == {"u1": 5.0}


def test_what_was_published_before_a_stop_is_taken_back_after_it(clock: VirtualClock, tmp_path: Path) -> None:
    """The engine was down while the window ended: the key is in no table any more, and still in the sink."""
    app, _ = till(clock)
    with app.open(tmp_path) as live:
        pay(live, clock, "u1", 5.0)
        flush(live)
        before = SHELVES["shelf:one"].items
    clock.advance(timedelta(hours=5))
    with app.open(tmp_path) as live:
        flush(live)
        assert [(key, value is None) for key, value in [*before, *SHELVES["shelf:one"].items]] == [
            (b"u1", False),
            (b"u1", True),
        ]
        flush(live)
        assert len(SHELVES["shelf:one"].items) == 1


def test_publishing_goes_on_by_itself(clock: VirtualClock) -> None:
    """With a short `every` nobody has to flush; closing publishes what is left."""
    app, spending = till(clock)
    app.publications.clear()
    app.publish(spending, "shelf:one", every="1ms")
    with app.open() as live:
        pay(live, clock, "u1", 5.0)
        live.drain()
    assert SHELVES["shelf:one"].table() == {"u1": 5.0}


def test_what_cannot_be_published_is_said_at_once(clock: VirtualClock) -> None:
    app, spending = till(clock)
    with pytest.raises(ConfigError, match="published there already"):
        app.publish(spending, "shelf:one")
    with pytest.raises(ConfigError, match="no sink connector serves 'shelff'"):
        app.publish(spending, "shelff:one")
    with pytest.raises(hr.UnknownNameError):
        app.publish("spendings", "shelf:one")
