"""The app of the production tests; its source, store and runner come from the environment."""

import os
from datetime import datetime

import polars as pl

import headrace as hr


class Sale(hr.Event):
    shop: str
    number: int
    at: datetime = hr.event_time(unit="us")


app = hr.App("till", clock="event", checkpoint="200ms")
sales = app.stream(Sale, os.environ.get("ENGINE_SOURCE"), lateness="1m")


@app.features(sales, key="shop")
class Shop:
    """Sales of a shop: every event counts in some feature, and the short windows move on."""

    count = hr.count(over="7d", every="1h")
    total = hr.sum("number", over="7d", every="1h")
    numbers = hr.distinct("number", over="1m", every="1s")
    odd = hr.count(over="7d", every="1h", where=pl.col("number") % 2 == 1)
    last_10s = hr.sum("number", over="10s", every="1s")
    greatest = hr.max("number", over="1m", every="1s")
    recent = hr.latest(3, "number", over="1m", every="1s")
