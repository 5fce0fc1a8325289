"""The replay's schedule, and a replayed day's answers against a recomputation by Polars."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest

import headrace as hr
from headrace.demo import flights
from headrace.demo.app import Carrier, Flight, Origin, Route, app
from headrace.demo.replay import FULL_SPEED_BATCH, Replay, Schedule, between, newest
from headrace.units import DAY, HOUR, MINUTE, SECOND, from_micros, round_tile, to_micros

# The day on which the airports reopened after the blizzard: departures, delays and cancellations all at once.
START = flights.from_new_york("2013-02-08T10:00")
END = flights.from_new_york("2013-02-09T17:00")


def schedule(times: list[int], speed: float | None) -> Schedule:
    return Schedule(np.array(times, dtype=np.int64) * SECOND, 0, speed)


def test_an_event_is_due_when_its_time_has_come() -> None:
    plan = schedule([10, 20, 20, 30], speed=10)
    assert [plan.due(0, elapsed) for elapsed in (0.9, 1.0, 2.0, 2.9, 3.0, 99.0)] == [0, 1, 3, 3, 4, 4]


def test_what_was_pushed_is_not_due_again() -> None:
    assert schedule([10, 20], speed=10).due(2, 0.0) == 2


def test_the_next_event_says_how_long_to_wait() -> None:
    assert schedule([10, 25], speed=10).seconds(1) == 2.5


def test_at_full_speed_a_batch_is_due_at_once() -> None:
    plan = schedule(list(range(3 * FULL_SPEED_BATCH)), speed=None)
    assert plan.due(0, 0.0) == FULL_SPEED_BATCH


def test_at_full_speed_a_batch_does_not_part_a_moment() -> None:
    assert schedule([7] * (FULL_SPEED_BATCH + 5) + [8], speed=None).due(0, 0.0) == FULL_SPEED_BATCH + 5


def test_the_end_is_due_once() -> None:
    assert schedule([1, 2], speed=None).due(2, 0.0) == 2


def test_the_simulated_time_goes_with_the_clock_and_not_past_the_end() -> None:
    plan = schedule([10, 30], speed=10)
    assert [plan.now(0, elapsed) // SECOND for elapsed in (0.0, 0.5, 2.0, 9.0)] == [0, 5, 20, 30]


def test_at_full_speed_the_simulated_time_is_the_newest_event() -> None:
    plan = schedule([10, 30], speed=None)
    assert [plan.now(done, 9.0) // SECOND for done in (0, 1, 2)] == [0, 10, 30]


@pytest.fixture(scope="module")
def day(events: pl.DataFrame) -> pl.DataFrame:
    return between(events, START, END)


@pytest.fixture(scope="module")
def live(day: pl.DataFrame) -> Iterator[hr.Live]:
    with app.open() as live:
        Replay(live, day, START, speed=None).run()
        yield live


def window(events: pl.DataFrame, now: int, over: int) -> pl.DataFrame:
    """The events of the tiles that start after `now - over`: the contract's definition."""
    every = round_tile(over)
    tile = pl.col("at").dt.epoch("us") // every * every
    return events.filter((tile > now - over) & (tile <= now))


def expected(events: pl.DataFrame, now: int, by: list[str]) -> dict[Any, dict[str, Any]]:
    """Every feature of every key that the day saw, by group-by."""
    departed = pl.col("kind") == "departed"
    hour, one_day = window(events, now, HOUR), window(events, now, DAY)
    delays = (
        hour.filter(departed)
        .group_by(by)
        .agg(
            departures_1h=pl.len().cast(pl.Int64),
            mean_delay_1h=pl.col("dep_delay").mean(),
            share_delayed_1h=(pl.col("dep_delay") > 15).mean(),
        )
    )
    cancelled = one_day.filter(pl.col("kind") == "cancelled").group_by(by).agg(cancelled_1d=pl.len().cast(pl.Int64))
    named = pl.struct("carrier", "flight", "origin", "dest", "dep_delay", "at")
    # Newest first, and of one time the one that came last.
    latest = events.filter(departed).reverse().sort("at", descending=True, maintain_order=True)
    latest = latest.with_columns(one=named).group_by(by).agg(latest_departures=pl.col("one").head(5))
    whole = events.select(by).unique().join(delays, on=by, how="left").join(cancelled, on=by, how="left")
    whole = whole.join(latest, on=by, how="left")
    rows = whole.with_columns(pl.col("departures_1h", "cancelled_1d").fill_null(0)).to_dicts()
    return {tuple(row[c] for c in by): row for row in rows}


@pytest.mark.parametrize("view", [Origin, Carrier, Route], ids=lambda view: view.name)
def test_a_replayed_day_reads_as_polars_recomputes_it(live: hr.Live, day: pl.DataFrame, view: Any) -> None:
    want = expected(day, to_micros(day["at"][-1]), list(view.keys))
    got = {key: live.read(view, key if len(key) > 1 else key[0]).to_dict() for key in want}
    for key, row in want.items():
        for feature in view.features:
            value = got[key][feature]
            if isinstance(row[feature], float):
                assert value == pytest.approx(row[feature], rel=1e-9), (key, feature)
            else:
                assert (value or None) == (row[feature] or None), (key, feature)


def test_the_day_that_is_compared_has_something_of_everything(day: pl.DataFrame) -> None:
    rows = expected(day, to_micros(day["at"][-1]), ["origin"]).values()
    assert all(row["departures_1h"] > 5 and row["mean_delay_1h"] and row["cancelled_1d"] > 100 for row in rows)


def test_now_is_the_newest_event(live: hr.Live, day: pl.DataFrame) -> None:
    assert newest(live) == to_micros(day["at"][-1])


def test_nothing_is_newest_before_the_first_event() -> None:
    with app.open() as live:
        assert newest(live) is None


def test_progress_ends_at_all_events(day: pl.DataFrame) -> None:
    with app.open() as live:
        replay = Replay(live, day, START, speed=None)
        before = replay.progress()
        replay.run()
        after = replay.progress()
    assert (before.pushed, before.now, before.fresh_p50) == (0, START, None)
    assert (after.pushed, after.now) == (day.height, to_micros(day["at"][-1]))


def test_a_replay_that_was_stopped_goes_on_where_it_was(day: pl.DataFrame, live: hr.Live, tmp_path: Any) -> None:
    class Half(threading.Event):
        """Set by the replay's own third look at it: no clock decides where it is cut."""

        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 2

    with app.open(tmp_path) as first:
        Replay(first, day, START, None, Half()).run()
    with app.open(tmp_path) as second:
        begin = newest(second)
        assert begin is not None
        rest = between(day, begin, END)
        assert 0 < rest.height < day.height
        Replay(second, rest, begin, None).run()
        keys = list(flights.AIRPORTS)
        assert second.read_many(Origin, keys).equals(live.read_many(Origin, keys))


def test_a_paced_replay_pushes_everything(day: pl.DataFrame) -> None:
    evening = between(day, END - 10 * MINUTE, END)
    with app.open() as live:
        replay = Replay(live, evening, END - 10 * MINUTE, speed=1e6)
        replay.run()
        pushed = live.read_many(Origin, list(flights.AIRPORTS))["as_of"].max()
    assert (replay.progress().pushed, pushed) == (evening.height, evening["at"][-1])


def test_the_model_takes_what_the_data_has(events: pl.DataFrame) -> None:
    sample = events.sample(50, seed=1).to_dicts()
    assert [Flight(**row).model_dump(exclude={"kind"}) for row in sample] == [
        {name: value for name, value in row.items() if name != "kind"} for row in sample
    ]


def test_between_takes_the_end_and_not_the_start(events: pl.DataFrame) -> None:
    moment = events["at"][1000]
    at = to_micros(moment)
    assert between(events, at - 1, at)["at"].unique().to_list() == [from_micros(at)]
    assert between(events, at, at).is_empty()
