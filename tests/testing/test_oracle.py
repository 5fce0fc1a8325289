"""The oracle, on logs so small that every answer can be worked out by hand."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

import headrace as hr
from headrace.features.view import View
from headrace.testing import oracle
from headrace.testing.oracle import Expected
from headrace.units import MINUTE, SECOND, from_micros

COLUMNS = {"key": pl.String(), "x": pl.Float64(), "n": pl.Int64(), "at": pl.Datetime("us", "UTC")}
SPAN: dict[str, Any] = {"over": "4m", "every": "1m"}
# x, n, seconds
LOG = [(9.0, 9, 10), (1.0, 1, 60), (None, 2, 61), (3.0, 2, 60), (-4.0, None, 200), (2.0, 5, 300)]
NOW = 4 * MINUTE + 59 * SECOND


def view(**features: Any) -> View:
    return View.declare("v", "", "s", ["key"], features, COLUMNS, "at")


def events(rows: Any = LOG, key: str = "a") -> pl.DataFrame:
    made = [(key, x, n, from_micros(seconds * SECOND)) for x, n, seconds in rows]
    return pl.DataFrame(made, schema=COLUMNS, orient="row")


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        (hr.sum("x", **SPAN), 0.0),
        (hr.sum("n", **SPAN), 5),
        (hr.count(**SPAN), 4),
        (hr.count("x", **SPAN), 3),
        (hr.count(**SPAN, where=pl.col("x") > 0), 2),
        (hr.mean("n", **SPAN), 5 / 3),
        (hr.min("x", **SPAN), -4.0),
        (hr.max("n", **SPAN), 2),
        (hr.max("at", **SPAN), datetime(1970, 1, 1, 0, 3, 20, tzinfo=UTC)),
        (hr.std("n", **SPAN), pytest.approx((1 / 3) ** 0.5)),
        (hr.std("x", over="1m", every="1m"), None),
        (hr.first("n", **SPAN), 1),
        (hr.last("n", over="4m", every="2m"), 5),  # later than now, in the tile that began at 4:00
        (hr.last("n"), 5),
        (hr.rate(**SPAN), 4 / 240),
        (hr.rate("n", **SPAN, per="1m"), 5 / 4),
        (hr.distinct("n", **SPAN), 2),
        (hr.quantile("x", 0.5, **SPAN), 1.0),
        (hr.quantile("x", 0.25, **SPAN, interpolation="linear"), -1.5),
        (hr.top(2, "n", **SPAN), [{"value": 2, "count": 2}, {"value": 1, "count": 1}]),
        (hr.histogram("x", [0, 1], **SPAN), [1, 0, 2]),
        (hr.latest(2, "n", "x", **SPAN), [{"n": None, "x": -4.0}, {"n": 2, "x": None}]),
        (hr.sum("n", **SPAN) / hr.count(**SPAN), 1.25),
        (hr.count(**SPAN) / (hr.sum("n", **SPAN) - 5), None),
        (1 - hr.max("x", over="1m", every="1m"), None),
    ],
)
def test_an_answer_worked_out_by_hand(feature: Any, value: Any) -> None:
    """The window at 4:59 begins with the tile of 1:00, and the event at 5:00 is in one that has not begun."""
    found = oracle.answer(view(feature=feature), events(), NOW, "a")
    assert found["feature"] == value


def test_as_of_is_the_newest_event_of_any_window() -> None:
    assert oracle.answer(view(n=hr.count(**SPAN)), events(), NOW, "a")["as_of"] == 200 * SECOND
    assert oracle.answer(view(n=hr.last("n"), m=hr.count(**SPAN)), events(), NOW, "a")["as_of"] == 300 * SECOND
    assert oracle.answer(view(n=hr.count(**SPAN)), events(), NOW, "b")["as_of"] is None


def test_several_keys() -> None:
    both = pl.concat([events(), events(LOG[:2], "b")])
    assert [one["n"] for one in oracle.answers(view(n=hr.count(**SPAN)), both, NOW, ["b", "a", "c"])] == [1, 4, 0]


def test_disagreements_say_what_is_wrong() -> None:
    watched = view(total=hr.sum("n", **SPAN), events=hr.count(**SPAN))
    assert oracle.disagreements(watched, events(), NOW, "a", {"total": 5, "events": 4, "as_of": 200 * SECOND}) == []
    wrong = oracle.disagreements(watched, events(), NOW, "a", {"total": 6, "events": 4})
    assert wrong == [f"total of 'a' at {NOW}: expected 5, found 6"]


@pytest.mark.parametrize(
    ("expected", "actual", "agrees"),
    [
        (Expected(1.0), 1.0 + 1e-10, True),
        (Expected(1.0), 1.0 + 1e-8, False),
        (Expected(0.0, scale=1e16), 1.0, True),  # 1e16 + 1 - 1e16, in another order
        (Expected(0.0), 1e-300, False),
        (Expected(1.0), 1, False),
        (Expected(1), 1.0, False),
        (Expected(2**70), 2**70 + 1, False),
        (Expected(None), None, True),
        (Expected(None), 0.0, False),
        (Expected([1, 2]), [1, 2], True),
        (Expected([{"a": None}]), [{"a": None}], True),
        (Expected(float("inf")), float("inf"), True),
        (Expected(1.0), None, False),
        (Expected(1.0, scale=1.0), float("nan"), False),
        (Expected(None, scale=float("inf")), 17.0, True),  # divided by rounding alone
    ],
)
def test_what_agrees(expected: Expected, actual: Any, agrees: bool) -> None:
    """Floats by the scale of what was added; all else exactly."""
    assert expected.agrees(actual) is agrees
