"""A fraud desk: what is to be known of a card's holder and of a shop at the moment that a payment is looked at.

This file is all that a user of Headrace writes. The same one runs on a laptop and in production; only where payments
come from (HEADRACE_PAYMENTS), the online store (HEADRACE_ONLINE or --online) and the runner change. The docstrings of
the views are what a model reads when it chooses a tool.
"""

from __future__ import annotations

import os
from datetime import datetime

import polars as pl

import headrace as hr

# A topic, files (file:payments.ndjson?follow=true), or nothing at all: then payments come by push only.
SOURCE = os.environ.get("HEADRACE_PAYMENTS", "kafka://localhost:9092/payments") or None


class Payment(hr.Event):
    """A payment with a card, taken or declined."""

    user_id: str
    amount: float
    merchant: str = ""
    country: str = ""  # where the shop is
    declined: bool = False
    at: datetime = hr.event_time()


app = hr.App("fraud-desk")
payments = app.stream(Payment, SOURCE, lateness="10s")

taken = ~pl.col("declined")


@app.features(payments, key="user_id")
class Spending:
    """What the holder of a card has spent lately, by their user_id (u17): use it to judge whether a payment is theirs.
    Many small or declined payments within minutes at many shops are a stolen card being tested; payments in a second
    country and far above the mean are a stolen card being used."""

    total_10m = hr.sum("amount", over="10m", every="1m", where=taken)
    count_10m = hr.count(over="10m", every="1m")
    declined_10m = hr.count(over="10m", every="1m", where=pl.col("declined"))
    shops_10m = hr.distinct("merchant", over="10m", every="1m")
    total_1h = hr.sum("amount", over="1h", where=taken)
    large_1h = hr.count(over="1h", where=taken & (pl.col("amount") > 1000))
    countries_1h = hr.distinct("country", over="1h")
    mean_1d = hr.mean("amount", over="1d", where=taken)
    most_1d = hr.max("amount", over="1d", where=taken)
    shops_1d = hr.distinct("merchant", over="1d")
    recent = hr.latest(5, "amount", "merchant", "country", "declined", "at")


@app.features(payments, key="merchant")
class Shop:
    """How a shop's payments go right now, by its name (Harbour Bikes): takings, how many cards, how many declined.
    Most payments declined within minutes means that somebody tests stolen cards there."""

    takings_1h = hr.sum("amount", over="1h", where=taken)
    payments_10m = hr.count(over="10m", every="1m")
    cards_10m = hr.distinct("user_id", over="10m", every="1m")
    declined_share_10m = hr.count(over="10m", every="1m", where=pl.col("declined")) / payments_10m
    median_1h = hr.quantile("amount", 0.5, over="1h", where=taken)
