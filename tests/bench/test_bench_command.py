"""`headrace bench` on small sizes: the shape of what it prints and the oracle; never a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.bench import main
from headrace.bench.data import Workload, events, trailing_sums
from headrace.bench.features import check
from headrace.bench.freshness import run as run_freshness
from headrace.bench.harness import BenchError, Report, installed
from headrace.bench.reads import run as run_reads


def is_report(found: dict[str, Any], name: str) -> None:
    assert found["name"] == name
    assert found["rows"]
    assert all({"system", "metric", "value", "unit"} <= set(row) for row in found["rows"])
    assert all(isinstance(value, float) for value in found["ratios"].values())


def value(report: Report, system: str, metric: str) -> float:
    found = report.value(system, metric)
    assert found is not None
    return found


def test_features_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "--json", "--events", "3000", "--runs", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    is_report(found, "features")
    for peer in ("bytewax", "pathway"):
        assert (peer in found["left_out"]) == (installed(peer) is None)


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "freshness" in capsys.readouterr().err


def test_a_wrong_answer_stops_the_benchmark(tmp_path: Path) -> None:
    expected = trailing_sums(events(Workload(events=500, keys=20)))
    expected.with_columns(total=pl.col("total") + 0.01).write_ndjson(tmp_path / "found")
    with pytest.raises(BenchError, match="not the oracle's"):
        check("headrace", tmp_path / "found", expected, ["user_id"])


def test_reads_measures_every_tier() -> None:
    report = run_reads(keys=500, runs=1, seed=1, seconds=0.1, http_rate=200)
    is_report(json.loads(json.dumps(report.to_dict())), "reads")
    for system in ("headrace", "dict", "headrace over HTTP", "bare ASGI over HTTP"):
        assert value(report, system, "1 key p50") > 0
        assert value(report, system, "100 keys p50") > 0
    assert not any("not 200" in note for note in report.notes)


def test_freshness_sees_every_probe_event() -> None:
    report = run_freshness(keys=100, runs=1, seed=1, seconds=0.1, fixed_rate=2_000, sustain_events=5_000)
    is_report(json.loads(json.dumps(report.to_dict())), "freshness")
    for system in ("headrace", "headrace, durable"):
        assert value(report, system, "at 2,000/s p50") > 0
        assert value(report, system, "at 80% p50") > 0
