"""A data directory opened again by an app that is no longer the same: what is gone on with, and what made anew."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.testing import VirtualClock

START = 1_700_000_000_000_000


class Sale(hr.Event):
    shop: str
    amount: float
    at: datetime = hr.event_time(unit="us")


class SaleWithCity(hr.Event):
    shop: str
    amount: float
    city: str = "unknown"
    at: datetime = hr.event_time(unit="us")


COUNTS = {"events": hr.count(over="1h", every="1m")}
SUMS = {"events": hr.count(over="1h", every="1m"), "total": hr.sum("amount", over="1h", every="1m")}


def make(model: type[hr.Event] = Sale, clock: Any = "event", url: str | None = None, **views: dict[str, Any]) -> hr.App:
    app = hr.App("reopen", clock=clock)
    stream = app.stream(model, url, name="sale")
    for name, features in views.items():
        app.features(stream, key="shop", name=name)(type(name, (), features))
    return app


def sales(*amounts: float) -> list[dict[str, Any]]:
    return [{"shop": "s", "amount": amount, "at": START + number} for number, amount in enumerate(amounts)]


def read(live: hr.Live, view: str, key: str = "s") -> dict[str, Any]:
    row = live.read(view, key).to_dict()
    return {name: value for name, value in row.items() if name in live.app.views[view].features}


def test_a_changed_view_is_made_anew_from_the_log(tmp_path: Path) -> None:
    """Of all that was ever pushed, whatever the checkpoint held; and it stays so."""
    with make(shop=COUNTS).open(tmp_path) as live:
        live.push("sale", sales(1, 2))
    for _ in range(2):
        with make(shop=SUMS).open(tmp_path) as live:
            assert read(live, "shop") == {"events": 2, "total": 3.0}
    with make(shop=SUMS).open(tmp_path) as live:
        token = live.push("sale", sales(4))
        live.read("shop", "s", after=token)
        assert read(live, "shop") == {"events": 3, "total": 7.0}
    with make(shop=COUNTS).open(tmp_path) as live:
        assert read(live, "shop") == {"events": 3}


def test_a_view_that_is_new_begins_with_what_the_log_holds(tmp_path: Path) -> None:
    """The others go on as they were."""
    with make(shop=COUNTS).open(tmp_path) as live:
        live.push("sale", sales(1, 2))
    with make(shop=COUNTS, other=SUMS).open(tmp_path) as live:
        assert [read(live, "shop"), read(live, "other")] == [{"events": 2}, {"events": 2, "total": 3.0}]


def test_a_view_that_was_gone_for_a_while_misses_nothing(tmp_path: Path) -> None:
    """What it held before it was removed is not taken for what it would hold now."""
    with make(shop=COUNTS, other=SUMS).open(tmp_path) as live:
        live.push("sale", sales(1, 2))
    with make(shop=COUNTS).open(tmp_path) as live:
        live.push("sale", sales(4))
    with make(shop=COUNTS, other=SUMS).open(tmp_path) as live:
        assert [read(live, "shop"), read(live, "other")] == [{"events": 3}, {"events": 3, "total": 7.0}]


def test_all_views_removed_and_declared_again(tmp_path: Path) -> None:
    """An app without views takes pushes too."""
    with make(shop=COUNTS).open(tmp_path) as live:
        live.push("sale", sales(1))
    with make().open(tmp_path) as live:
        live.push("sale", sales(2))
    with make(shop=SUMS).open(tmp_path) as live:
        assert read(live, "shop") == {"events": 2, "total": 3.0}


def test_arrival_decides_ties_across_restarts_and_changes(tmp_path: Path) -> None:
    """The last of two events at one time is the one that was pushed later, whenever the view came to see them."""
    last = {"last": hr.last("amount", over="1h", every="1m"), "first": hr.first("amount", over="1h", every="1m")}
    with make(shop=COUNTS).open(tmp_path) as live:
        live.push("sale", [{"shop": "s", "amount": amount, "at": START} for amount in (1.0, 2.0)])
    with make(shop=last).open(tmp_path) as live:
        assert read(live, "shop") == {"last": 2.0, "first": 1.0}
        live.push("sale", [{"shop": "s", "amount": 3.0, "at": START}])
        live.drain()
        assert read(live, "shop") == {"last": 3.0, "first": 1.0}
    with make(shop=last).open(tmp_path) as live:
        live.push("sale", [{"shop": "s", "amount": 4.0, "at": START}])
        live.drain()
        assert read(live, "shop") == {"last": 4.0, "first": 1.0}


def test_a_model_with_a_new_column(tmp_path: Path) -> None:
    """Events pushed before have its default; views that do not name it go on."""
    with make(shop=COUNTS).open(tmp_path) as live:
        live.push("sale", sales(1, 2))
    cities = {"cities": hr.top(3, "city", over="1h", every="1m")}
    with make(SaleWithCity, shop=COUNTS, city=cities).open(tmp_path) as live:
        live.push("sale", [{**row, "city": "Ghent"} for row in sales(3)])
        live.drain()
        assert read(live, "shop") == {"events": 3}
        assert read(live, "city") == {"cities": [{"value": "unknown", "count": 2}, {"value": "Ghent", "count": 1}]}


def test_events_older_than_now_are_not_brought_back(tmp_path: Path) -> None:
    """By a virtual clock, an hour passes while the app is closed."""
    clock = VirtualClock(START)
    with make(clock=clock, shop=COUNTS).open(tmp_path) as live:
        live.push("sale", sales(1, 2))
        live.drain()
        assert read(live, "shop") == {"events": 2}
    clock.advance("2h")
    with make(clock=clock, shop=SUMS).open(tmp_path) as live:
        assert read(live, "shop") == {"events": 0, "total": 0.0}
        live.push("sale", [{"shop": "s", "amount": 5.0, "at": clock.now()}])
        live.drain()
        assert read(live, "shop") == {"events": 1, "total": 5.0}


def test_a_directory_is_open_once(tmp_path: Path) -> None:
    """Also in one process; and free again after close, twice."""
    app = make(shop=COUNTS)
    with app.open(tmp_path) as live:
        with pytest.raises(hr.LockedError, match="open already"):
            app.open(tmp_path)
        live.close()
    app.open(tmp_path).close()


def test_a_file_is_read_on_where_it_was_left(tmp_path: Path) -> None:
    """Each line once, over restarts, beside what is pushed."""
    file = tmp_path / "sales.ndjson"
    data = tmp_path / "data"
    app = make(url=f"file://{file}", shop=SUMS)
    for number in range(1, 4):
        with file.open("a") as out:
            out.write(f'{{"shop": "s", "amount": 1, "at": {START + number}}}\n')
        with app.open(data) as live:
            live.push("sale", sales(10))
            live.drain()
            assert read(live, "shop") == {"events": 2 * number, "total": 11.0 * number}


def test_a_file_all_of_whose_views_have_changed_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From its start, with what was pushed from the log, each once; and nothing of it is called late."""
    file = tmp_path / "sales.ndjson"
    lines = [f'{{"shop": "s", "amount": 1, "at": {START + minute * 60_000_000}}}\n' for minute in range(0, 300, 10)]
    file.write_text("".join(lines))
    data = tmp_path / "data"
    with make(url=f"file://{file}", shop=COUNTS).open(data) as live:
        live.drain()
        live.push("sale", [{"shop": "s", "amount": 10, "at": START + 290 * 60_000_000}])
        live.drain()
        assert read(live, "shop") == {"events": 7}
        assert live.dead_letters.count() == {}
    with caplog.at_level(logging.WARNING), make(url=f"file://{file}", shop=SUMS).open(data) as live:
        live.drain()
        assert read(live, "shop") == {"events": 7, "total": 16.0}
        assert live.dead_letters.count() == {}
    assert "is read again" in caplog.text


def test_a_directory_of_the_other_runner_is_refused(tmp_path: Path, runner: str) -> None:
    """Neither can go on from what the other has saved, and neither may begin anew beside it."""
    pytest.importorskip("bytewax", reason="Bytewax has no wheels for Python 3.13 and later")
    other = {"local": "bytewax", "bytewax": "local"}[runner]
    app = make(shop=COUNTS)
    app.runner = other
    with app.open(tmp_path) as live:
        live.push("sale", [{"shop": "s", "amount": 1.0, "at": START}])
    app.runner = runner
    with pytest.raises(hr.ConfigError, match=f"runner='{other}'"):
        app.open(tmp_path)
