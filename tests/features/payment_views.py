"""The stream and the views that the tests of features share."""

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

import headrace as hr
from headrace.features.machine import Batch, ViewMachine, build
from headrace.features.spec import Feature
from headrace.features.view import View
from headrace.schema import Schema
from headrace.testing import oracle
from headrace.units import from_micros


class Payment(hr.Event):
    user_id: str | None
    shop: int
    amount: float | None = None
    n: int | None = None
    merchant: str | None = None
    paid: bool = False
    due: datetime | None = None
    at: datetime = hr.event_time()


SCHEMA = Schema.of(Payment)
USERS = ("u1", "u2", "ü")
LARGE = pl.col("amount") > 0


def declare(key: str | list[str] = "user_id", **features: Feature) -> View:
    """A view of payments."""
    keys = [key] if isinstance(key, str) else key
    return View.declare("spending", "", "payment", keys, features, SCHEMA.columns, SCHEMA.time)


def payments(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Events with `at` in microseconds, and defaults for what is not named."""
    blank = {"user_id": "u1", "shop": 1, "paid": False}
    return pl.DataFrame([{**blank, **row, "at": from_micros(row["at"])} for row in rows], schema=SCHEMA.columns)


def fed(view: hr.View, *batches: pl.DataFrame, slack: int = 0) -> ViewMachine:
    """A machine that has seen these, on event time."""
    machine = build(view)
    first = 0
    for frame in batches:
        at = oracle.event_times(frame, view.time).to_numpy()
        now = np.maximum.accumulate(at if machine.newest is None else np.maximum(at, machine.newest))
        machine.process(Batch(frame, first, now, slack))
        first += frame.height
    return machine


def one_of_each(over: str, every: str | None, where: pl.Expr | None = None) -> dict[str, Feature]:
    """Every kind of aggregate, several of most, over one window."""
    how: dict[str, Any] = {"over": over, "every": every, "where": where}
    named: dict[str, Feature] = {}
    for kind, many in KINDS.items():
        named |= {f"{kind}_{label}": make(**how) for label, make in many.items()}
    return named


def _of(make: Any, *arguments: Any, **more: Any) -> Any:
    return lambda **how: make(*arguments, **more, **how)


# By kind, by a label: the window's arguments -> the aggregate.
KINDS: dict[str, dict[str, Any]] = {
    "sum": {
        "float": _of(hr.sum, "amount"),
        "int": _of(hr.sum, "n"),
        "bool": _of(hr.sum, "paid"),
        "expr": _of(hr.sum, pl.col("amount") * 2),
        "nan": _of(hr.sum, pl.col("amount").sqrt()),
    },
    "count": {"events": _of(hr.count), "values": _of(hr.count, "amount"), "texts": _of(hr.count, "merchant")},
    "mean": {"float": _of(hr.mean, "amount"), "int": _of(hr.mean, "n")},
    "std": {"float": _of(hr.std, "amount"), "int": _of(hr.std, "n")},
    "min": {"float": _of(hr.min, "amount"), "int": _of(hr.min, "n"), "time": _of(hr.min, "due")},
    "max": {"float": _of(hr.max, "amount"), "int": _of(hr.max, "n"), "time": _of(hr.max, "due")},
    "rate": {"events": _of(hr.rate), "float": _of(hr.rate, "amount", per="1m"), "int": _of(hr.rate, "n")},
    "first": {
        "text": _of(hr.first, "merchant"),
        "float": _of(hr.first, "amount"),
        "int": _of(hr.first, "n"),
        "time": _of(hr.first, "due"),
        "bool": _of(hr.first, "paid"),
    },
    "last": {
        "text": _of(hr.last, "merchant"),
        "float": _of(hr.last, "amount"),
        "int": _of(hr.last, "n"),
        "time": _of(hr.last, "due"),
        "bool": _of(hr.last, "paid"),
    },
    "latest": {"some": _of(hr.latest, 3, "amount", "merchant", "at"), "all": _of(hr.latest, 2)},
    "distinct": {
        "text": _of(hr.distinct, "merchant"),
        "float": _of(hr.distinct, "amount"),
        "int": _of(hr.distinct, "n"),
        "time": _of(hr.distinct, "due"),
        "bool": _of(hr.distinct, "paid"),
    },
    "quantile": {
        "nearest": _of(hr.quantile, "amount", 0.9),
        "linear": _of(hr.quantile, "amount", 0.3, interpolation="linear"),
        "lower": _of(hr.quantile, "amount", 0.25, interpolation="lower"),
        "higher": _of(hr.quantile, "amount", 0.25, interpolation="higher"),
        "midpoint": _of(hr.quantile, "amount", 0.5, interpolation="midpoint"),
        "int": _of(hr.quantile, "n", 0.5),
        "least": _of(hr.quantile, "amount", 0.0),
        "greatest": _of(hr.quantile, "amount", 1.0),
    },
    "top": {
        "text": _of(hr.top, 2, "merchant"),
        "float": _of(hr.top, 3, "amount"),
        "int": _of(hr.top, 3, "n"),
        "bool": _of(hr.top, 3, "paid"),
        "time": _of(hr.top, 1, "due"),
    },
    "histogram": {"float": _of(hr.histogram, "amount", [-10, 0, 0.5, 100]), "int": _of(hr.histogram, "n", [0])},
}
