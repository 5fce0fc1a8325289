"""The demo's app: what is to be known of New York's flights, by airport, by airline and by route.

This file is all that a user would write. `headrace run headrace.demo.app:app` serves it, and the docstrings
of the views are what a model reads when it chooses a tool.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import polars as pl

import headrace as hr


class Flight(hr.Event):
    """Something became known of a flight out of New York: it departed, it arrived, or it was cancelled."""

    kind: Literal["departed", "arrived", "cancelled"]
    origin: str
    dest: str
    carrier: str
    airline: str = ""
    flight: int
    tailnum: str | None = None
    dep_delay: int | None = None  # minutes, of a departure; negative if it left early
    arr_delay: int | None = None  # minutes, of an arrival; not known after a diversion
    scheduled: datetime  # when it was to leave
    at: datetime = hr.event_time()  # when the fact became known


app = hr.App("new-york-flights", clock="event")
flights = app.stream(Flight, lateness="10m")

departed = pl.col("kind") == "departed"


class Departures:
    """What is asked of an airport, an airline and a route is the same: the views below inherit it."""

    departures_1h = hr.count(over="1h", where=departed)
    mean_delay_1h = hr.mean("dep_delay", over="1h", where=departed)
    share_delayed_1h = hr.count(over="1h", where=departed & (pl.col("dep_delay") > 15)) / departures_1h
    cancelled_1d = hr.count(over="1d", where=pl.col("kind") == "cancelled")
    latest_departures = hr.latest(5, "carrier", "flight", "origin", "dest", "dep_delay", "at", where=departed)


@app.features(flights, key="origin")
class Origin(Departures):
    """How a New York airport is doing right now: EWR is Newark, JFK is Kennedy, LGA is LaGuardia.
    Delays are in minutes; delayed means over 15."""


@app.features(flights, key="carrier")
class Carrier(Departures):
    """How an airline is doing out of New York right now, by its code: UA is United, B6 is JetBlue.
    Delays are in minutes; delayed means over 15."""


@app.features(flights, key=["origin", "dest"])
class Route(Departures):
    """How a route out of New York is doing now, from `origin` (EWR, JFK or LGA) to `dest` (BOS, LAX, …).
    Delays are in minutes; delayed means over 15."""


class Weather(hr.Document):
    """The latest weather report of a New York airport."""

    id: str
    text: str


weather = app.table(Weather)
reports = app.collection(
    "reports", weather, text=["text"], about="Weather reports of the airports.", embed="hash", index="memory:"
)

# A view that is called is a question, which its class's type does not tell.
route: Any = Route
airport: Any = Origin


@app.context(budget=1200)
def trip(origin: str, dest: str, question: str) -> Any:
    """What is known right now of flying from a New York airport to another."""
    yield hr.text("Answer the question from what is given here, in one or two sentences.", trusted=True)
    yield hr.section(route(origin, dest), title=f"The route from {origin} to {dest}", priority=2)
    yield hr.section(airport(origin), title=f"The airport {origin}")
    yield hr.section(reports.search(f"{question} {origin}", k=1), floor=60)
