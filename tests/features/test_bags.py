"""Distinct values and quantiles past the size to which they are exact: within the stated error, by events alone."""

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from payment_views import SCHEMA, declare

import headrace as hr
from headrace.features import bags
from headrace.features.machine import Batch, ViewMachine, build
from headrace.testing.machines import stored
from headrace.units import HOUR, MINUTE

ROWS = 120_000
SPAN: dict[str, Any] = {"over": "1h", "every": "10m"}
QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0)
VIEW = declare(
    shops=hr.distinct("merchant", **SPAN),
    amounts=hr.distinct("amount", **SPAN),
    **{f"q{round(q * 100)}": hr.quantile("amount", q, **SPAN) for q in QUANTILES},
)


def crowd(rows: int) -> pl.DataFrame:
    """Events of one key over an hour: values of both signs over many magnitudes, nearly all different."""
    random = np.random.default_rng(7)
    amounts = random.lognormal(3, 4, rows) * random.choice([-1, 1], rows)
    return pl.DataFrame(
        {
            "user_id": pl.repeat("u1", rows, eager=True),
            "shop": pl.repeat(1, rows, eager=True),
            "amount": amounts,
            "n": pl.repeat(None, rows, dtype=pl.Int64, eager=True),
            "merchant": pl.Series(random.integers(0, rows, rows)).cast(pl.String),
            "paid": pl.repeat(False, rows, eager=True),
            "due": pl.repeat(None, rows, dtype=pl.Datetime("us", "UTC"), eager=True),
            "at": pl.Series(random.integers(0, HOUR, rows)).cast(pl.Datetime("us", "UTC")),
        },
        schema=SCHEMA.columns,
    )


EVENTS = crowd(ROWS)
NOW = HOUR - 1


def fed(frame: pl.DataFrame, places: list[int]) -> ViewMachine:
    machine = build(VIEW)
    bounds = [0, *places, frame.height]
    for low, high in pairwise(bounds):
        machine.process(Batch(frame[low:high], low, np.full(high - low, NOW)))
    return machine


@pytest.fixture(scope="module")
def whole() -> ViewMachine:
    return fed(EVENTS, [])


def test_distinct_is_within_five_percent(whole: ViewMachine) -> None:
    """Some three standard errors of 1.6 %."""
    found = whole.read("u1", NOW).features[:2]
    expected = [EVENTS["merchant"].n_unique(), EVENTS["amount"].n_unique()]
    assert found == [pytest.approx(value, rel=0.05) for value in expected]


def test_a_quantile_is_within_half_a_percent(whole: ViewMachine) -> None:
    """Of the value itself, whatever its magnitude and sign."""
    found = whole.read("u1", NOW).features[2:]
    expected = [EVENTS["amount"].quantile(q, "nearest") for q in QUANTILES]
    assert found == [pytest.approx(value, rel=0.005 + 1e-9) for value in expected]


@pytest.mark.parametrize("places", [[1], [4096], [30_000, 30_000, 60_001], list(range(5000, ROWS, 5000))])
def test_cutting_does_not_show(whole: ViewMachine, places: list[int]) -> None:
    """Nor does where the limit was passed."""
    assert fed(EVENTS, places).read("u1", NOW).features == whole.read("u1", NOW).features


def test_order_does_not_show(whole: ViewMachine) -> None:
    """Sorted, reversed and shuffled input end as the same."""
    for order in (EVENTS.sort("amount"), EVENTS.sort("at", descending=True), EVENTS.sample(fraction=1, shuffle=True)):
        assert fed(order, [50_000]).read("u1", NOW).features == whole.read("u1", NOW).features


def test_going_on_from_a_snapshot_does_not_show(whole: ViewMachine) -> None:
    """Whether a bag is rough is part of it."""
    half = fed(EVENTS[: ROWS // 2], [])
    machine = build(VIEW, stored(half.snapshot()), half.newest)
    machine.process(Batch(EVENTS[ROWS // 2 :], ROWS // 2, np.full(ROWS - ROWS // 2, NOW)))
    assert machine.read("u1", NOW).features == whole.read("u1", NOW).features


def test_up_to_the_limit_it_is_exact() -> None:
    """So many distinct values in one tile, each twice."""
    frame = crowd(bags.LIMIT).with_columns(
        at=pl.lit(0).cast(pl.Datetime("us", "UTC")),
        merchant=pl.int_range(bags.LIMIT).cast(pl.String),
        amount=pl.int_range(bags.LIMIT).cast(pl.Float64),
    )
    found = fed(pl.concat([frame, frame]), [100]).read("u1", NOW).features
    assert found[:2] == [bags.LIMIT, bags.LIMIT]
    expected = [pl.concat([frame, frame])["amount"].quantile(q, "nearest") for q in QUANTILES]
    assert found[2:] == expected


def test_memory_is_bounded_by_the_limit(whole: ViewMachine) -> None:
    """A tile's bag of hashes holds at most the limit, and one of buckets a few thousand."""
    (table,) = whole.tables
    lengths = [table.segments.blocks[f"b{number}"][:, 1].max() for number in range(3)]
    assert max(lengths[:2]) <= bags.LIMIT
    assert lengths[2] <= 2 * bags.LIMIT
    assert table.segments.tile.max() < HOUR + MINUTE
