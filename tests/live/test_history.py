"""A source that is read from long ago: old events in order are history, old events out of order are late."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import headrace as hr
from headrace.testing import VirtualClock

NOW = datetime(2026, 1, 8, tzinfo=UTC)


class Sale(hr.Event):
    shop: str
    at: datetime = hr.event_time()


def opened(tmp_path: Path, times: list[datetime]) -> hr.Live:
    file = tmp_path / "sales.ndjson"
    file.write_text("".join(json.dumps({"shop": "s", "at": time.isoformat()}) + "\n" for time in times))
    app = hr.App("till", clock=VirtualClock(NOW))
    sales = app.stream(Sale, f"file://{file}", lateness="10s")

    @app.features(sales, key="shop")
    class Shop:
        """Sales of a shop."""

        count = hr.count(over="1h", every="1m")

    return app.open()


def test_history_is_counted_and_not_kept(tmp_path: Path) -> None:
    """Two events a minute for a week, the second of them seven seconds older; the last hour counts."""
    minutes = 7 * 24 * 60
    week = [NOW + timedelta(minutes=-minute, seconds=by) for minute in range(minutes, 0, -1) for by in (7, 0)]
    with opened(tmp_path, week) as live:
        live.drain()
        figures = live.stats().streams["sale"]
        assert live.read("shop", "s").count == 2 * 59
        assert (figures.accepted, figures.late, live.dead_letters.list()) == (len(week), 0, [])
        # The tile just before the hour is still kept, for reads with now=.
        assert figures.expired == 2 * (minutes - 60)


def test_an_old_event_among_new_ones_is_late(tmp_path: Path) -> None:
    """It is a dead letter, also where what stands before it is history itself."""
    old = [NOW - timedelta(days=2), NOW - timedelta(days=5), NOW - timedelta(days=2)]
    with opened(tmp_path, [*old, NOW - timedelta(minutes=1), NOW - timedelta(days=1)]) as live:
        live.drain()
        figures = live.stats().streams["sale"]
        assert (figures.late, figures.expired) == (2, 2)
        kept = [json.loads(letter.raw)["at"][:10] for letter in live.dead_letters.list()]
        assert kept == ["2026-01-03", "2026-01-07"]


def test_an_old_event_that_is_pushed_is_late(tmp_path: Path) -> None:
    with opened(tmp_path, []) as live:
        live.push("sale", [{"shop": "s", "at": NOW - timedelta(days=1)}])
        live.drain()
        assert (live.stats().streams["sale"].late, len(live.dead_letters.list())) == (1, 1)
