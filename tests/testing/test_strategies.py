"""The strategies make what a stream may bring, all of it and nothing else."""

from collections.abc import Callable
from datetime import date, datetime, time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace.formats import decode_frame
from headrace.schema import Schema
from headrace.testing import oracle, strategies


class Everything(hr.Event):
    key: str
    amount: float
    number: int
    flag: bool
    tags: list[int]
    day: date
    hour: time
    raw: bytes
    moment: datetime | None = None
    note: str | None = None
    at: datetime = hr.event_time(unit="us")


SCHEMA = Schema.of(Everything)
EVENTS = strategies.events(SCHEMA, keys={"key": ["a", "b"]})


@given(EVENTS)
def test_events_are_valid_rows_of_the_stream(frame: pl.DataFrame) -> None:
    """A decoder takes them as they are."""
    decoded = decode_frame(SCHEMA, frame)
    assert decoded.rejects == []
    assert decoded.frame.equals(frame)


@pytest.fixture(scope="module")
def many() -> list[pl.DataFrame]:
    """A hundred examples."""
    frames: list[pl.DataFrame] = []

    @given(EVENTS)
    @settings(max_examples=100)
    def collect(frame: pl.DataFrame) -> None:
        frames.append(frame)

    collect()
    return frames


@pytest.mark.parametrize(
    "wanted",
    [
        lambda frame: frame.height == 0,
        lambda frame: not frame["at"].is_sorted(),
        lambda frame: frame.is_duplicated().any(),
        lambda frame: frame["note"].null_count() > 0,
        lambda frame: (frame["amount"].abs() >= 1e100).any(),
        lambda frame: (frame["amount"] < 0).any(),
        lambda frame: (frame["number"] < -(2**53)).any(),
        lambda frame: (oracle.event_times(frame, "at") % 60_000_000 == 0).any(),
        lambda frame: frame["key"].n_unique() == 2,
    ],
)
def test_what_a_stream_may_bring_is_made(many: list[pl.DataFrame], wanted: Callable[[pl.DataFrame], bool]) -> None:
    """Empty batches, disorder, repetitions, nulls, extremes, the edges of tiles."""
    assert any(map(wanted, many))


def test_columns_that_must_not_be_null_are_not(many: list[pl.DataFrame]) -> None:
    assert sum(frame["amount"].null_count() for frame in many) == 0


@given(EVENTS, st.data())
def test_cuts_lose_nothing(frame: pl.DataFrame, data: st.DataObject) -> None:
    places = data.draw(strategies.cuts(frame.height))
    batches = strategies.cut(frame, places)
    assert len(batches) == len(places) + 1
    assert pl.concat(batches).equals(frame)


@given(st.integers(0, 10), st.data())
def test_crashes_come_after_steps(steps: int, data: st.DataObject) -> None:
    assert set(data.draw(strategies.crashes(steps))) <= set(range(steps))


def test_the_time_before_1970() -> None:
    early: list[int] = []

    @given(strategies.times(-(10**15), spread=1000, far=10**6))
    def collect(at: int) -> None:
        early.append(at)

    collect()
    assert max(early) < 0


def test_what_it_cannot_make_is_said() -> None:
    with pytest.raises(hr.ConfigError, match="expected a column type that a stream can have, found Object"):
        strategies.values(pl.Object())
    with pytest.raises(hr.ConfigError, match="to name the event-time column"):
        strategies.events({"x": pl.Int64()}, time="at").validate()
