"""Metrics: names, types and values, in both formats."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

import headrace as hr
from headrace.ops.metrics import BUCKETS, HttpTally, exposition
from headrace.serving.live import Live

OPENMETRICS = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"


def samples(live: Live, tally: HttpTally) -> dict[str, float]:
    text, _ = exposition(live.stats(), tally)
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in parse_plain(text.decode())
        for sample in family.samples
    }


def test_counts_are_those_of_the_engine(live: Live, paid: hr.Token) -> None:
    live.push("payment", [{"user_id": "u1"}])
    found = samples(live, HttpTally())
    assert {
        name: found[name]
        for name in found
        if name.endswith(("|payment", "|spending"))
        and "bytes" not in name
        and "_seconds_" not in name
        and "batch_rows" not in name
    } == {
        "headrace_events_accepted_total|payment": 2.0,
        "headrace_events_processed_total|payment": 2.0,
        "headrace_events_rejected_total|payment": 1.0,
        "headrace_events_expired_total|payment": 0.0,
        "headrace_events_late_total|payment": 0.0,
        "headrace_batches_total|payment": 1.0,
        "headrace_newest_event_timestamp_seconds|payment": 1769860798.0,
        "headrace_event_delay_seconds|payment": 2.0,
        "headrace_source_up|payment": 1.0,
        "headrace_view_keys|spending": 1.0,
        "headrace_view_tiles|spending": live.stats().views["spending"].tiles,
        "headrace_dead_letters|payment": 1.0,
    }
    assert (found["headrace_ready"], found["headrace_queue_rows"]) == (1.0, 0.0)


def test_freshness_and_batches_are_histograms(live: Live, paid: hr.Token) -> None:
    """The two events of `paid` are 2 and 60 seconds old when they come, in one batch."""
    found = samples(live, HttpTally())
    ages = [found[f"headrace_freshness_seconds_bucket|{bound}|payment"] for bound in ("0.001", "5.0", "60.0", "+Inf")]
    assert ages == [0, 1, 2, 2]
    assert found["headrace_freshness_seconds_sum|payment"] == 62.0
    rows = [found[f"headrace_batch_rows_bucket|{bound}|payment"] for bound in ("1.0", "10.0", "+Inf")]
    assert (rows, found["headrace_batch_rows_sum|payment"]) == ([0, 1, 1], 2)


def test_a_stream_without_events_has_no_newest_one(live: Live) -> None:
    assert not [name for name in samples(live, HttpTally()) if name.startswith("headrace_newest_event")]


def test_requests_are_counted_by_route_status_and_time(live: Live) -> None:
    tally = HttpTally()
    for seconds in (0.0001, 0.0009, 100.0):
        tally.observe("/v1/x", 200, seconds)
    tally.observe("/v1/x", 404, 0.003)
    found = samples(live, tally)
    assert (found["headrace_http_requests_total|/v1/x|200"], found["headrace_http_requests_total|/v1/x|404"]) == (3, 1)
    buckets = [found[f"headrace_http_request_seconds_bucket|{bound}|/v1/x"] for bound in (*BUCKETS, "+Inf")]
    assert buckets == [1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4]
    assert found["headrace_http_request_seconds_sum|/v1/x"] == pytest.approx(100.004)


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "text/plain;version=0.0.4", "nonsense; version=,,;"])
def test_the_plain_format_is_what_a_scraper_gets(live: Live, accept: str) -> None:
    assert exposition(live.stats(), HttpTally(), accept)[1].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    "accept", [OPENMETRICS, "application/openmetrics-text", "application/openmetrics-text; version=abc"]
)
def test_openmetrics_is_what_a_scraper_gets_that_asks_for_it(live: Live, paid: hr.Token, accept: str) -> None:
    tally = HttpTally()
    tally.observe("/v1/x", 200, 0.1)
    text, media_type = exposition(live.stats(), tally, accept)
    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    assert "headrace_events_processed" in {family.name for family in parse_openmetrics(text.decode())}


def test_each_metric_is_documented(live: Live) -> None:
    text, _ = exposition(live.stats(), HttpTally())
    assert all(family.documentation for family in parse_plain(text.decode()))
