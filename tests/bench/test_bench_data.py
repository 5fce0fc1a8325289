"""The generated events and the oracle that answers are compared with."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from headrace.bench.data import (
    START,
    Workload,
    bodies,
    difference,
    events,
    ndjson,
    sliding_sums,
    trailing_sums,
    zipf,
)
from headrace.units import MINUTE, SECOND

SMALL = Workload(events=5_000, keys=100, seed=7)


def payments(*rows: tuple[str, float, int]) -> pl.DataFrame:
    """Events of (user, amount, seconds after the start)."""
    return pl.DataFrame(
        {
            "user_id": [user for user, _, _ in rows],
            "amount": [amount for _, amount, _ in rows],
            "timestamp": [(START + seconds * SECOND) // 1_000 for _, _, seconds in rows],
        }
    )


def totals(*rows: tuple[str, float]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema={"user_id": pl.String, "total": pl.Float64}, orient="row")


def test_same_seed_makes_the_same_bytes() -> None:
    assert ndjson(events(SMALL)) == ndjson(events(SMALL))


def test_another_seed_makes_other_bytes() -> None:
    assert ndjson(events(SMALL)) != ndjson(events(Workload(events=5_000, keys=100, seed=8)))


def test_events_are_out_of_order_by_less_than_the_disorder() -> None:
    times = events(SMALL)["timestamp"].to_numpy()
    late = (np.maximum.accumulate(times) - times).max() * 1_000
    assert 0 < late < SMALL.disorder


def test_the_hot_keys_are_the_same_in_every_draw() -> None:
    hottest = [np.bincount(zipf(20_000, 1_000, 1.2, np.random.default_rng(seed))).argmax() for seed in range(3)]
    assert len(set(hottest)) == 1


def test_the_hottest_key_has_its_share() -> None:
    drawn = zipf(100_000, 10, 1.0, np.random.default_rng(1))
    share = np.bincount(drawn, minlength=10).max() / 100_000
    assert share == pytest.approx(1 / sum(1 / rank for rank in range(1, 11)), rel=0.02)


@pytest.mark.parametrize("size", [1, 64, 1_000, 1_000_000])
def test_bodies_are_whole_lines_and_all_of_the_data(size: int) -> None:
    data = ndjson(events(Workload(events=50, keys=5)))
    parts = bodies(data, size)
    assert b"".join(parts) == data
    assert all(json.loads(line) for part in parts for line in part.splitlines())


def test_trailing_sum_holds_the_tiles_that_start_after_now_less_the_window() -> None:
    # now is 00:10:30, so the window's first tile is the one that starts at 00:01.
    frame = payments(("a", 1.0, 59), ("a", 2.0, 60), ("a", 4.0, 630), ("b", 8.0, 0))
    assert trailing_sums(frame, over=10 * MINUTE, every=MINUTE).equals(totals(("a", 6.0), ("b", 0.0)))


def test_sliding_sums_hold_each_event_once_a_window() -> None:
    frame = payments(("a", 1.0, 30), ("a", 2.0, 90))
    found = sliding_sums(frame, over=2 * MINUTE, every=MINUTE)
    starts = [(start - START) // MINUTE for start in found["start"]]
    assert list(zip(starts, found["total"], strict=True)) == [(-1, 1.0), (0, 3.0), (1, 2.0)]


def test_equal_totals_do_not_differ() -> None:
    assert difference(totals(("b", 2.0), ("a", 1.0)), totals(("a", 1.0), ("b", 2.0 + 1e-12)), ["user_id"]) is None


@pytest.mark.parametrize(
    "found",
    [
        totals(("a", 1.0)),
        totals(("a", 1.0), ("b", 2.0001)),
        totals(("a", 1.0), ("c", 2.0)),
        totals(("a", 1.0), ("b", 2.0), ("b", 2.0)),
        totals(("a", 1.0), ("b", float("nan"))),
    ],
    ids=["missing", "wrong", "other key", "twice", "nan"],
)
def test_a_wrong_answer_is_told(found: pl.DataFrame) -> None:
    assert difference(found, totals(("a", 1.0), ("b", 2.0)), ["user_id"]) is not None
