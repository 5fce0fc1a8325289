"""The events of `headrace bench query`, the question asked of them, and its answer by the definition.

All events lie within the hour before one fixed `now`, so a size is a rate: ten million are 2,800 payments a second.
The question is what a user has spent in the last ten minutes: total, count and greatest. Two kinds of user ask: the
one with the most payments, and any other who has paid within the window, a different one each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from headrace.bench.data import START, user_ids, zipf
from headrace.units import HOUR, MINUTE, SECOND

OVER, EVERY = 10 * MINUTE, MINUTE
# Not a multiple of the tile: the newest tile is half full and the farthest one is left out, as at most moments.
NOW = START + HOUR + 37 * SECOND
EXPONENT = 0.99


@dataclass(frozen=True)
class Asked:
    """Whom the question is about, and what must be answered.

    Attributes:
        hot: The user with the most payments within the window.
        typical: The others who have paid within it, in a random order.
        rows: Payments within the window, of the hot one and of a typical one (the median).
    """

    hot: str
    typical: list[str]
    rows: tuple[int, int]


def payments(count: int, keys: int, seed: int) -> pl.DataFrame:
    """`user_id`, `amount` and `at` (microseconds), in the order of time."""
    rng = np.random.default_rng(seed)
    return _frame(count, keys, rng, NOW - HOUR, HOUR)


def arriving(count: int, keys: int, seed: int, slot: int) -> pl.DataFrame:
    """Payments of the last minute before now, that come while the question is asked; the same ones for a slot."""
    rng = np.random.default_rng([seed, slot])
    return _frame(count, keys, rng, NOW - MINUTE, MINUTE)


def _frame(count: int, keys: int, rng: np.random.Generator, start: int, span: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": user_ids(zipf(count, keys, EXPONENT, rng)),
            "amount": np.round(rng.lognormal(3.0, 1.0, count), 2),
            "at": start + (np.arange(count, dtype=np.int64) * span) // max(count, 1),
        }
    )


def answers(frame: pl.DataFrame) -> pl.DataFrame:
    """The oracle: `user_id`, `total`, `count`, `most` of every user with a payment within the window.

    The window holds the tiles that start after `now − over` and not after `now`.
    """
    tile = pl.col("at") // EVERY * EVERY
    inside = (tile > NOW - OVER) & (tile <= NOW)
    return (
        frame.filter(inside)
        .group_by("user_id")
        .agg(total=pl.col("amount").sum(), count=pl.len(), most=pl.col("amount").max())
        .sort("user_id")
    )


def asked(right: pl.DataFrame, seed: int) -> Asked:
    """Whom to ask about, given the answers."""
    ordered = right.sort("count", "user_id", descending=[True, False])
    others = ordered["user_id"].to_list()[1:] or ordered["user_id"].to_list()
    typical = [others[i] for i in np.random.default_rng(seed).permutation(len(others))]
    middle = ordered["count"].median()
    assert isinstance(middle, int | float)
    return Asked(ordered["user_id"][0], typical, (int(ordered["count"][0]), int(middle)))


def wrong(found: dict[str, tuple[float, int, float | None]], right: pl.DataFrame) -> str | None:
    """The first answer that is not the oracle's (sums to 1e-9), or None if all are."""
    expected = {user: tuple(rest) for user, *rest in right.iter_rows()}
    for user, (total, count, most) in found.items():
        due = expected.get(user, (0.0, 0, None))
        if count != due[1] or most != due[2] or abs(total - due[0]) > 1e-9 * max(abs(due[0]), 1.0):
            return f"{user}: expected total, count and greatest {due}, found {(total, count, most)}"
    return None
