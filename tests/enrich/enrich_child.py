"""Pushes numbered events for ever into the directory it is given, and says on its output how many are acknowledged."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

import headrace as hr

SHOPS = 3


class Sale(hr.Event):
    shop: str
    number: int
    at: datetime = hr.event_time(unit="us")


class Grade(BaseModel):
    grade: Literal["odd", "even"]


def declared(url: str) -> tuple[hr.App, Any, Any, Any]:
    """The app: its stream, and views of what comes in and of what comes out."""
    app = hr.App("kill", clock="event", checkpoint="50ms")
    sales = app.stream(Sale)
    spec = hr.llm("Grade #{number} .", output=Grade, upstreams=[hr.Upstream(url, health=None)], batch=3, concurrent=4)
    graded = sales.enrich(spec, name="graded")

    @app.features(sales, key="shop")
    class In:
        """What came in."""

        count = hr.count(over="1h")

    @app.features(graded, key="shop")
    class Out:
        """What came out."""

        count = hr.count(over="1h")
        numbers = hr.distinct("number", over="1h")
        total = hr.sum("number", over="1h")
        recent = hr.latest(200, "number", "grade")

    return app, sales, In, Out


def sale(number: int) -> dict[str, Any]:
    """The event of a number."""
    return {"shop": f"s{number % SHOPS}", "number": number, "at": 1_700_000_000_000_000}


def main(path: str, first: int, url: str) -> None:
    number = first
    app, sales, _, _ = declared(url)
    with app.open(path) as live:
        while True:
            rows = [sale(one) for one in range(number, number + 1 + number % 5)]
            live.push(sales, rows)
            number += len(rows)
            print(number, flush=True)
            if live.stats().enrichments["graded"].waiting > 100:
                live.drain()  # so that kills meet all of it, and not only pushes


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
