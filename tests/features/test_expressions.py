"""Users' expressions: told apart, of any type, and failing on some rows without taking the others with them."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from payment_views import declare, fed, payments

import headrace as hr
from headrace.features.machine import Batch, build
from headrace.testing.machines import stored

SPAN: dict[str, Any] = {"over": "1h", "every": "1m"}


def read(features: dict[str, Any], rows: list[dict[str, Any]]) -> list[Any]:
    """The features after these rows, which must be the same after a restart."""
    view = declare(**features)
    machine = fed(view, payments(rows))
    found = machine.read("u1", 0).features
    assert build(view, stored(machine.snapshot()), machine.newest).read("u1", 0).features == found
    return found


def test_expressions_that_print_alike_are_told_apart() -> None:
    """Polars prints neither what `round` rounds to, nor the pattern's kind, nor a Python function."""
    found = read(
        {
            "tens": hr.sum(pl.col("amount").round(1), **SPAN),
            "hundreds": hr.sum(pl.col("amount").round(2), **SPAN),
            "pattern": hr.count(**SPAN, where=pl.col("merchant").str.contains("a.")),
            "literal": hr.count(**SPAN, where=pl.col("merchant").str.contains("a.", literal=True)),
            "twice": hr.sum(pl.col("n").map_batches(lambda n: n + n, return_dtype=pl.Int64), **SPAN),
            "square": hr.sum(pl.col("n").map_batches(lambda n: n * n, return_dtype=pl.Int64), **SPAN),
        },
        [{"at": 0, "amount": 0.126, "merchant": "ab", "n": 5}],
    )
    assert found == [0.1, 0.13, 1, 0, 10, 25]


def test_a_computed_number_that_is_not_finite_is_null() -> None:
    """The square root of a negative number, and a division by 0."""
    found = read(
        {
            "roots": hr.sum(pl.col("amount").sqrt(), **SPAN),
            "counted": hr.count(pl.col("amount").sqrt(), **SPAN),
            "most": hr.max(1 / pl.col("amount"), **SPAN),
            "last": hr.last(1 / pl.col("amount"), **SPAN),
        },
        [{"at": 0, "amount": amount} for amount in (4.0, -4.0, 0.0)],
    )
    assert found == [2.0, 2, -0.25 * -1, None]


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (hr.last(pl.col("n").cast(pl.UInt64) + 2**63), 2**63 + 2),
        (hr.distinct(pl.col("n").cast(pl.UInt64) + 2**63, **SPAN), 2),
        (hr.top(1, pl.col("n").cast(pl.UInt64) + 2**63, **SPAN), [{"value": 2**63 + 1, "count": 2}]),
        (hr.last(pl.col("n").cast(pl.Int128) * 2**62 * 4), 2**65),
        (hr.distinct(pl.col("n").cast(pl.Int128) * 2**62 * 4, **SPAN), 2),
        (hr.sum(pl.col("n").cast(pl.Int8), **SPAN), 4),
        (hr.distinct(pl.col("amount").cast(pl.Decimal(10, 2)), **SPAN), 3),
        (hr.max(pl.col("at").dt.cast_time_unit("ms"), **SPAN), "at"),
        (hr.max(pl.col("at").dt.replace_time_zone(None), **SPAN), "at"),
        (hr.last(pl.col("at").dt.convert_time_zone("Asia/Tokyo"), **SPAN), "at"),
        (hr.last(pl.col("merchant").cast(pl.Categorical), **SPAN), "b"),
        (hr.distinct(pl.col("merchant").cast(pl.Categorical), **SPAN), 2),
        (hr.sum(pl.col("paid"), **SPAN), 2),
        (hr.last(pl.col("merchant").str.split("x"), **SPAN), ["b"]),
    ],
)
def test_any_type_that_polars_computes(feature: Any, expected: Any) -> None:
    """Also those wider than the engine's own arrays."""
    rows = [
        {"at": 0, "n": 1, "amount": 1.25, "merchant": "a", "paid": True},
        {"at": 0, "n": 1, "amount": 1.26, "merchant": "a", "paid": True},
        {"at": 0, "n": 2, "amount": 1.27, "merchant": "b"},
    ]
    wanted = payments(rows)["at"][0] if expected == "at" else expected
    assert read({"feature": feature}, rows) == [wanted]


def test_a_row_on_which_an_expression_fails_is_refused_alone() -> None:
    """The others of its batch are counted, whatever the batch."""
    view = declare(total=hr.sum(pl.col("merchant").cast(pl.Int64), **SPAN), events=hr.count(**SPAN))
    frame = payments([{"at": 0, "merchant": text} for text in ("1", "two", "3", None, "5", "", "7")])
    machine = build(view)
    refused = machine.process(Batch(frame, 0, np.zeros(7, np.int64))).refused
    assert [row for one in refused for row in one.rows.tolist()] == [1, 5]
    assert "two" in refused[0].reason
    assert machine.read("u1", 0).features == [16, 5]


def test_a_python_function_may_fail_too() -> None:
    """Whatever it raises is the reason."""

    def picky(values: pl.Series) -> pl.Series:
        if (values == 3).any():
            raise ValueError("three is not for me")
        return values

    view = declare(total=hr.sum(pl.col("n").map_batches(picky, return_dtype=pl.Int64), **SPAN))
    frame = payments([{"at": 0, "n": n} for n in range(6)])
    machine = build(view)
    (refused,) = machine.process(Batch(frame, 0, np.zeros(6, np.int64))).refused
    assert refused.rows.tolist() == [3]
    assert "three is not for me" in refused.reason
    assert machine.read("u1", 0).features == [12]


def test_rows_without_a_key_are_refused() -> None:
    """With any of the key columns null."""
    view = declare(["user_id", "shop"], events=hr.count(**SPAN))
    frame = payments([{"at": 0}, {"at": 0, "user_id": None}])
    machine = build(view)
    (refused,) = machine.process(Batch(frame, 0, np.zeros(2, np.int64))).refused
    assert (refused.rows.tolist(), refused.late) == ([1], False)
    assert machine.read(("u1", 1), 0).features == [1]


def test_a_batch_of_refused_rows_only() -> None:
    """Nothing is left of it, and that is no error."""
    view = declare(total=hr.sum(pl.col("merchant").cast(pl.Int64), where=pl.col("paid"), **SPAN))
    machine = build(view)
    frame = payments([{"at": 0, "user_id": None}, {"at": 0, "user_id": None}])
    machine.process(Batch(frame, 0, np.zeros(2, np.int64)))
    machine.process(Batch(payments([{"at": 0, "merchant": "x", "paid": True}]), 2, np.zeros(1, np.int64)))
    assert machine.keys == 0
