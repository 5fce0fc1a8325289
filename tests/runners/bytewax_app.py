"""The app that the processes of the cluster tests run: sales from a topic or files, with an answer for every mistake.

Every number is sold once, so that of the numbers counted, and the different ones among them, neither a loss nor a
repetition can hide.
"""

from __future__ import annotations

import os
from datetime import datetime

import headrace as hr

START = 1_700_000_000_000_000


class Sale(hr.Event):
    shop: str
    city: str
    number: int
    at: datetime = hr.event_time(unit="us")


def make(url: str | None, online: str, checkpoint: str = "100ms") -> hr.App:
    """Two views of one stream, by different keys."""
    app = hr.App("cluster", clock="event", online=online, checkpoint=checkpoint)
    sales = app.stream(Sale, url)

    @app.features(sales, key="shop")
    class Shop:
        """By shop."""

        count = hr.count(over="1d", every="1h")
        total = hr.sum("number", over="1d", every="1h")
        numbers = hr.distinct("number", over="1d", every="1h")
        first = hr.first("number", over="1d", every="1h")
        last = hr.last("number", over="1d", every="1h")

    @app.features(sales, key=["city", "shop"])
    class Place:
        """By city and shop."""

        count = hr.count(over="1d", every="1h")
        total = hr.sum("number", over="1d", every="1h")

    return app


def rows(first: int, count: int) -> list[dict[str, object]]:
    """Sales of numbers, one a microsecond."""
    return [
        {"shop": f"s{n % 53}", "city": f"c{n % 3}", "number": n, "at": START + n} for n in range(first, first + count)
    ]


if "HEADRACE_TEST_URL" in os.environ:
    app = make(os.environ["HEADRACE_TEST_URL"], os.environ["HEADRACE_ONLINE"])
