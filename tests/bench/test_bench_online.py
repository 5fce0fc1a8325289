"""`headrace bench online` on small sizes: what it reports, and that it compares; never a time."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from headrace.bench import online
from headrace.bench.harness import BenchError


def test_it_reports_reads_and_writes() -> None:
    report = online.run(keys=300, runs=1, seed=1, seconds=0.3, event_rate=2_000, read_rate=100)
    assert report.left_out == {}
    for system in ("headrace", "redis-py"):
        for metric in ("1 key p99", "100 keys p99"):
            assert (report.value(system, metric) or 0) > 0
    assert (report.value("headrace", "(key, tile) rows held") or 0) >= 300 * 6
    assert report.ratios["written, of 2,000 events/s"] > 0


class Says:
    """A process that answers with totals."""

    def __init__(self, total: float) -> None:
        self.total = total

    def ask(self, *, file: str, **_: Any) -> dict[str, Any]:
        pl.DataFrame({"user_id": ["u1", "u2"], "total": [1.0, self.total]}).write_ndjson(file)
        return {}


def test_a_wrong_total_is_an_error() -> None:
    online.check(Says(2.0), Says(2.0))  # type: ignore[arg-type]  # what is asked of a child
    with pytest.raises(BenchError, match="not the oracle's: 1 of 2 totals are wrong"):
        online.check(Says(2.0), Says(2.5))  # type: ignore[arg-type]
