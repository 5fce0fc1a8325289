"""The events of the benchmarks: seeded, skewed and out of order, as the real ones are.

Keys follow a bounded Zipf law (a few are hot, most are rare); amounts are cents, so that their sums do not
depend on the order of the additions by more than rounding; arrival order is creation order delayed by up to
`disorder`, so an event may come up to that much after one that is newer than it, and never later.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.units import MILLISECOND, MINUTE, SECOND

# A fixed moment, at a multiple of the tile: 2026-01-01T00:00:00Z.
START = 1_767_225_600 * SECOND


@dataclass(frozen=True)
class Workload:
    """What to generate; the same workload makes the same bytes.

    Attributes:
        events: How many.
        keys: How many different users there can be.
        exponent: Of the Zipf law: the k-th most frequent key has a share proportional to k ** -exponent.
        rate: Events a second of event time.
        disorder: Microseconds by which an event can be late, exclusive.
        seed: Of the random generator.
    """

    events: int = 1_000_000
    keys: int = 10_000
    exponent: float = 1.2
    rate: int = 1_000
    disorder: int = 5 * SECOND
    seed: int = 1


def zipf(count: int, keys: int, exponent: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` key numbers in 0 … keys − 1 by a bounded Zipf law.

    Which numbers are hot is scrambled, by a permutation that depends on `keys` alone: every draw has the
    same hot keys.
    """
    share = np.arange(1, keys + 1, dtype=np.float64) ** -exponent
    upto = np.cumsum(share)
    ranks = np.searchsorted(upto, rng.random(count) * upto[-1], side="right")
    scrambled = np.random.default_rng(keys).permutation(keys)
    drawn: NDArray[np.int64] = scrambled[np.minimum(ranks, keys - 1)]
    return drawn


def user_ids(numbers: NDArray[np.int64]) -> pl.Series:
    """The key of each number, as text: 17 is "u0000017"."""
    return pl.Series("number", numbers).to_frame().select(user_id=user_id(pl.col("number")))["user_id"]


def user_id(number: pl.Expr) -> pl.Expr:
    """The key of a number, as an expression."""
    return pl.lit("u") + number.cast(pl.String).str.zfill(7)


def events(work: Workload) -> pl.DataFrame:
    """The events in the order in which they arrive; `timestamp` is in milliseconds since the epoch."""
    rng = np.random.default_rng(work.seed)
    created = START + (np.arange(work.events, dtype=np.int64) * SECOND) // work.rate
    arrived = created + rng.integers(0, max(work.disorder, 1), work.events)
    order = np.argsort(arrived, kind="stable")
    return pl.DataFrame(
        {
            "user_id": user_ids(zipf(work.events, work.keys, work.exponent, rng)),
            "amount": np.round(rng.lognormal(3.0, 1.0, work.events), 2),
            "timestamp": created[order] // MILLISECOND,
        }
    )


def ndjson(frame: pl.DataFrame) -> bytes:
    """The frame as newline-delimited JSON, as a client would send it."""
    out = io.BytesIO()
    frame.write_ndjson(out)
    return out.getvalue()


def bodies(data: bytes, size: int) -> list[bytes]:
    """The data cut at line ends into bodies of about `size` bytes: what a client would send at a time."""
    cut, parts = 0, []
    while cut < len(data):
        end = data.rfind(b"\n", cut, cut + size) + 1 or data.find(b"\n", cut) + 1 or len(data)
        parts.append(data[cut:end])
        cut = end
    return parts


def trailing_sums(frame: pl.DataFrame, *, over: int = 10 * MINUTE, every: int = MINUTE) -> pl.DataFrame:
    """The oracle: each key's trailing sum when all events are in, by the definition of the contract.

    Now is the newest event time; the window holds the tiles that start after `now − over` and not after
    now. A key whose events are all older reads as 0.

    Returns:
        `user_id`, `total`; every key of the frame once, in the order of the ids.
    """
    time = pl.col("timestamp") * MILLISECOND
    tile = time // every * every
    inside = (tile > time.max() - over) & (tile <= time.max())
    return (
        frame.with_columns(inside=inside)
        .group_by("user_id")
        .agg(total=pl.col("amount").filter(pl.col("inside")).sum())
        .sort("user_id")
    )


def sliding_sums(frame: pl.DataFrame, *, over: int = 10 * MINUTE, every: int = MINUTE) -> pl.DataFrame:
    """The oracle of the peers: each key's sum in every window that holds one of its events.

    Windows start at multiples of `every` since the Unix epoch and are `over` long, start included and end
    excluded.

    Returns:
        `user_id`, `start` (microseconds), `total`; in the order of key and start.
    """
    tiles = frame.group_by("user_id", tile=pl.col("timestamp") * MILLISECOND // every * every).agg(
        total=pl.col("amount").sum()
    )
    shifts = pl.DataFrame({"shift": np.arange(over // every, dtype=np.int64) * every})
    return (
        tiles.join(shifts, how="cross")
        .group_by("user_id", start=pl.col("tile") - pl.col("shift"))
        .agg(total=pl.col("total").sum())
        .sort("user_id", "start")
    )


def difference(found: pl.DataFrame, expected: pl.DataFrame, on: list[str]) -> str | None:
    """The first way in which the found totals are not the expected ones, or None if all are right to 1e-9."""
    both = expected.join(found, on=on, how="full", coalesce=True, suffix="_found")
    if found.height != expected.height:
        return f"expected {expected.height:,} rows, found {found.height:,}"
    a, b = pl.col("total"), pl.col("total_found")
    close = (a - b).abs() <= 1e-9 * pl.max_horizontal(a.abs(), b.abs(), 1e-9)
    wrong = both.filter(~close.fill_null(False))
    if wrong.is_empty():
        return None
    return f"{wrong.height:,} of {both.height:,} totals are wrong, the first: {wrong.row(0, named=True)}"
