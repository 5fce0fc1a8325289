"""Many keys and tiles at once: runs move, tables are copied, keys come and go, and a sample of keys is still right."""

import numpy as np
import polars as pl
import pytest
from payment_views import SCHEMA, declare

import headrace as hr
from headrace.features.machine import Batch, build
from headrace.testing import oracle
from headrace.testing.machines import overlay, stored
from headrace.units import HOUR, MINUTE, SECOND

KEYS, ROWS = 400, 30_000
VIEW = declare(
    total=hr.sum("amount", over="30m", every="1m"),
    units=hr.sum("n", over="30m", every="1m"),
    spread=hr.std("amount", over="30m", every="7m"),
    shops=hr.distinct("merchant", over="30m", every="1m"),
    favourites=hr.top(2, "merchant", over="10m", every="1m"),
    middle=hr.quantile("amount", 0.5, over="30m", every="7m"),
    recent=hr.latest(3, "n", "at", over="10m", every="1m"),
    first=hr.first("merchant", over="30m", every="1m"),
)


def crowd(seed: int) -> pl.DataFrame:
    """Three hours of events, up to 40 minutes out of order; each key is there for a while, and some come back."""
    random = np.random.default_rng(seed)
    at = np.sort(random.integers(0, 3 * HOUR, ROWS)) - random.integers(0, 40 * MINUTE, ROWS)
    key = (at // (20 * MINUTE) * 37 + random.integers(0, KEYS // 4, ROWS)) % KEYS
    return pl.DataFrame(
        {
            "user_id": "u" + pl.Series(key).cast(pl.String),
            "shop": pl.repeat(1, ROWS, eager=True),
            "amount": random.normal(0, 100, ROWS),
            "n": random.integers(-(2**61), 2**61, ROWS),
            "merchant": "m" + pl.Series(random.integers(0, 30, ROWS)).cast(pl.String),
            "paid": pl.repeat(True, ROWS, eager=True),
            "due": pl.repeat(None, ROWS, dtype=pl.Datetime("us", "UTC"), eager=True),
            "at": pl.Series(at).cast(pl.Datetime("us", "UTC")),
        },
        schema=SCHEMA.columns,
    )


@pytest.mark.parametrize("batch", [97, 1_000, 7_001])
def test_a_crowd(batch: int) -> None:
    """In batches of a size, letting go after each and journalling after some; then the journal is gone on from."""
    events = crowd(batch)
    at = oracle.event_times(events, VIEW.time).to_numpy()
    now = np.maximum.accumulate(at)
    slack = 10 * SECOND
    machine = build(VIEW)
    journal = stored(machine.snapshot())
    for number, low in enumerate(range(0, ROWS, batch)):
        part = slice(low, low + batch)
        machine.process(Batch(events[part], low, now[part], slack))
        machine.retire(machine.expire(int(now[part][-1]), slack, most=150))
        if number % 3 == 0:
            journal = overlay(journal, stored(machine.changed()), (*VIEW.keys, "__tile"))
    journal = overlay(journal, stored(machine.changed()), (*VIEW.keys, "__tile"))
    end = int(now[-1])
    restarted = build(VIEW, journal, machine.newest)
    wrong: list[str] = []
    for number in range(0, KEYS, 23):
        key = f"u{number}"
        for moment in (end - slack, end, end + 12 * MINUTE):
            for one in (machine, restarted):
                values = dict(zip(VIEW.features, one.read(key, moment).features, strict=True))
                wrong += oracle.disagreements(VIEW, events, moment, key, values)
    assert wrong == []
    # Those are forgotten that no window reaches any more; a sweep of all finds the last of them.
    machine.retire(machine.expire(end, slack))
    assert (
        machine.keys
        == events.filter(pl.Series(at // MINUTE * MINUTE > end - 30 * MINUTE - slack))["user_id"].n_unique()
    )
