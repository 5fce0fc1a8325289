"""Turns, medians, the report and child processes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headrace.bench.child import Child
from headrace.bench.harness import BenchError, Report, interleave, run_process


def test_systems_take_turns() -> None:
    order: list[str] = []
    interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b", "a", "b", "a", "b"]


def test_a_figure_is_the_median_beside_its_least_and_greatest() -> None:
    row = Report("x", 1, "about").add("headrace", "rate", "events/s", [5, 1, 2, 9, 3]).to_dict()
    assert row == {
        "system": "headrace",
        "metric": "rate",
        "value": 3.0,
        "unit": "events/s",
        "min": 1.0,
        "max": 9.0,
        "runs": 5,
    }


def test_a_ratio_is_of_medians() -> None:
    report = Report("x", 1, "about")
    report.add("headrace", "rate", "events/s", [10, 30, 20])
    report.add("peer", "rate", "events/s", [4, 5, 6])
    report.ratio("headrace/peer", "headrace", "peer", "rate")
    assert report.ratios == {"headrace/peer": 4.0}


def test_no_ratio_to_a_peer_that_was_left_out() -> None:
    report = Report("x", 1, "about")
    report.add("headrace", "rate", "events/s", [10])
    report.ratio("headrace/peer", "headrace", "peer", "rate")
    assert report.ratios == {}


def test_the_report_is_one_json_object_of_the_stated_shape() -> None:
    report = Report("x", 7, "about")
    report.add("headrace", "rate", "events/s", np.array([1.0]))
    found = json.loads(json.dumps(report.to_dict()))
    assert {"name", "rows", "ratios"} <= set(found)
    assert found["seed"] == 7
    assert found["machine"]["cores"] >= 1
    assert "polars" in found["versions"]


def test_the_table_names_what_was_left_out() -> None:
    report = Report("x", 7, "about", left_out={"bytewax": "not installed"})
    report.add("headrace", "rate", "events/s", [1_234_567])
    text = report.text()
    assert "left out: bytewax: not installed" in text
    assert "1,234,567" in text


def test_a_process_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(BenchError, match="No such file"):
        run_process("headrace.bench.headrace_sum", "/nowhere/events.ndjson", "/nowhere/out.ndjson")


def test_a_child_answers_until_it_is_closed() -> None:
    with Child("headrace.bench.peers.stores", "dict", "1000", "1") as child:
        answer = child.ask(rate=1_000, seconds=0.05, batch=1)
    assert set(answer["latency"]) == {"p50", "p99", "p99.9", "max"}


def test_a_child_that_ends_is_an_error() -> None:
    with pytest.raises(BenchError, match="ended with status"):
        Child("headrace.bench.peers.stores", "dict", "many", "1")
