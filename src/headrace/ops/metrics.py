"""Metrics for Prometheus, read at the scrape from what is counted anyway.

Nothing is counted twice: a collector asks the live app for its statistics when Prometheus comes, so the hot path
pays nothing for them. Only the requests are counted here, in plain integers that one thread (the event loop's)
writes. There is no global registry: each app has its own, so two apps in a process do not mix.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from headrace.ops import chat_metrics

if TYPE_CHECKING:
    from headrace.runners.tally import Histogram
    from headrace.serving.stats import Stats

# Seconds: from the fraction of a millisecond that a read takes to the minute that a wait may.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_OPENMETRICS = "application/openmetrics-text"


class HttpTally:
    """Requests by route and status, and how long they took."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.seconds: dict[str, float] = {}
        self.buckets: dict[str, list[int]] = {}

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            route: The route's template, never the address asked for: what a client makes up must not name a series.
            status: What was answered; 499 if the client went away first.
            seconds: From the request's head to its answer.
        """
        key = (route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        buckets = self.buckets.get(route)
        if buckets is None:
            buckets = self.buckets[route] = [0] * (len(BUCKETS) + 1)
            self.seconds[route] = 0.0
        buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds[route] += seconds


class StatsCollector(Collector):
    """The metrics of one moment's statistics."""

    def __init__(self, stats: Stats, tally: HttpTally, chat: chat_metrics.ChatFigures | None = None) -> None:
        self._stats = stats
        self._tally = tally
        self._chat = chat

    def describe(self) -> list[Metric]:
        """Nothing: the names need not be known before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Each metric, as Prometheus names and units want it."""
        yield from self._streams()
        yield from self._views()
        yield from self._tables()
        yield from self._collections()
        yield from self._enrichments()
        yield from self._memories()
        yield from self._engine()
        yield from self._requests()
        yield from chat_metrics.metrics(self._chat)

    def _streams(self) -> Iterator[Metric]:
        streams = self._stats.streams
        counters = {
            "accepted": "Valid events taken in since the start.",
            "processed": "Events that reads can see, since the start.",
            "rejected": "Rows that could not be used and became dead letters, since the start.",
            "expired": "Events of a source that were past every window when they were read, since the start.",
            "late": "Events past the retained horizon, which became dead letters, since the start.",
        }
        yield from _each(_counter, "headrace_events", "stream", streams, counters)
        yield _counter("headrace_batches", "Batches processed.", "stream", {n: s.batches for n, s in streams.items()})
        newest = {name: one.newest / 1e6 for name, one in streams.items() if one.newest is not None}
        yield _gauge("headrace_newest_event_timestamp_seconds", "Event time of the newest event.", "stream", newest)
        lags = GaugeMetricFamily(
            "headrace_source_lag", "Messages that the source holds and were not read.", labels=["stream", "partition"]
        )
        for name, one in streams.items():
            for partition, messages in one.lag.items():
                lags.add_metric([name, partition], messages)
        yield lags
        up = {name: float(one.problem is None) for name, one in streams.items()}
        yield _gauge("headrace_source_up", "0 while the stream's source cannot be read.", "stream", up)
        yield _histogram(
            "headrace_freshness_seconds",
            "From an event's time until reads see it (a sample of each batch).",
            {name: one.freshness for name, one in streams.items()},
        )
        yield _histogram(
            "headrace_batch_rows", "Events in a batch.", {name: one.batch_rows for name, one in streams.items()}
        )
        delays = {name: one.delay for name, one in streams.items() if one.delay is not None}
        yield _gauge("headrace_event_delay_seconds", "Between the newest event's time and now.", "stream", delays)

    def _views(self) -> Iterator[Metric]:
        gauges = {
            "keys": "Live keys.",
            "tiles": "Live rows of a key and a tile.",
            "bytes": "Bytes of the view's state in memory.",
        }
        yield from _each(_gauge, "headrace_view", "view", self._stats.views, gauges)

    def _tables(self) -> Iterator[Metric]:
        tables = self._stats.tables
        counters = {
            "changed": "Rows written or deleted, since the start.",
            "same": "Rows told again that were the same, since the start.",
            "older": "Changes that came after a newer one of their row, since the start.",
            "rejected": "Inputs that became dead letters, since the start.",
        }
        yield from _each(_counter, "headrace_table", "table", tables, counters)
        yield from _each(_gauge, "headrace_table", "table", tables, {"rows": "Rows of the table."})
        lags = GaugeMetricFamily("headrace_table_lag", "What the source still holds.", labels=["table", "unit"])
        for table, one in tables.items():
            for unit, amount in one.lag.items():
                lags.add_metric([table, unit], amount)
        yield lags
        up = {name: float(one.problem is None) for name, one in tables.items()}
        yield _gauge("headrace_table_up", "0 while the table's source cannot be read.", "table", up)

    def _collections(self) -> Iterator[Metric]:
        found = self._stats.collections
        counters = {
            "embedded": "New chunks, embedded or from the cache, since the start.",
            "kept": "Chunks of changed documents that were there already, since the start.",
            "written": "Points written to the index, since the start.",
            "removed": "Points dropped from the index, since the start.",
        }
        yield from _each(_counter, "headrace_collection", "collection", found, counters)
        gauges = {
            "documents": "Documents.",
            "chunks": "Chunks that can be found.",
            "failed": "Documents that could not be made into chunks.",
            "waiting": "Changed rows of the table that were not followed yet.",
            "filling": "Indexes that are being filled anew.",
        }
        yield from _each(_gauge, "headrace_collection", "collection", found, gauges)
        behind = {name: one.behind for name, one in found.items()}
        yield _gauge("headrace_collection_behind_seconds", "How far searches are behind.", "collection", behind)
        up = {name: float(one.problem is None) for name, one in found.items()}
        yield _gauge("headrace_collection_up", "0 while something is in the collection's way.", "collection", up)

    def _memories(self) -> Iterator[Metric]:
        made = CounterMetricFamily(
            "headrace_memory_summaries", "Summaries made, by what made them.", labels=["memory", "by"]
        )
        for memory, one in self._stats.memories.items():
            for by, count in one.summaries.items():
                made.add_metric([memory, by], count)
        yield made
        failed = {name: one.failed for name, one in self._stats.memories.items()}
        help_ = "Summaries that the function or the model did not make, which were extracted."
        yield _counter("headrace_memory_summaries_failed", help_, "memory", failed)

    def _enrichments(self) -> Iterator[Metric]:
        found = self._stats.enrichments
        counters = {
            "events": "Events that came out of asking a model, since the start.",
            "calls": "Calls that models answered, since the start.",
            "cached": "Events that were answered without a call, since the start.",
            "wrong": "Answers that could not be used and were asked for again, since the start.",
            "failed": "Events that became dead letters, since the start.",
            "cost": "What calls cost, in the currency of the prices, since the start.",
        }
        yield from _each(_counter, "headrace_enrich", "stream", found, counters)
        tokens = CounterMetricFamily("headrace_enrich_tokens", "Tokens of calls.", labels=["stream", "direction"])
        for stream, one in found.items():
            tokens.add_metric([stream, "read"], one.read)
            tokens.add_metric([stream, "written"], one.written)
        yield tokens
        gauges = {"waiting": "Events that have not come out.", "running": "Calls under way."}
        yield from _each(_gauge, "headrace_enrich", "stream", found, gauges)
        lags = {stream: one.lag for stream, one in found.items()}
        yield _gauge("headrace_enrich_lag_seconds", "How long the oldest of them has waited.", "stream", lags)
        up = {stream: float(one.problem is None) for stream, one in found.items()}
        yield _gauge("headrace_enrich_up", "0 while something is in the way of asking.", "stream", up)
        paused = {stream: float(one.pause is not None) for stream, one in found.items()}
        yield _gauge("headrace_enrich_paused", "1 while the rate or a budget is waited for.", "stream", paused)

    def _engine(self) -> Iterator[Metric]:
        stats = self._stats
        yield GaugeMetricFamily("headrace_ready", "1 if the app can take and answer.", value=float(stats.ready))
        yield GaugeMetricFamily("headrace_uptime_seconds", "Since the app was opened.", value=stats.uptime)
        yield GaugeMetricFamily("headrace_behind_seconds", "How far reads are behind the input.", value=stats.behind)
        yield GaugeMetricFamily(
            "headrace_lagging", "1 while that is more than the app allows.", value=float(stats.lagging)
        )
        yield GaugeMetricFamily("headrace_queue_rows", "Rows that wait for the engine.", value=stats.queue_rows)
        yield CounterMetricFamily("headrace_cycles", "Batches of the engine made visible.", value=stats.cycles)
        yield _gauge("headrace_dead_letters", "Dead letters kept.", "stream", stats.dead_letters)
        yield CounterMetricFamily(
            "headrace_dead_letters_dropped",
            "Dead letters let go of for want of room.",
            value=stats.dead_letters_dropped,
        )
        yield CounterMetricFamily("headrace_checkpoints", "Checkpoints written.", value=stats.checkpoints)
        yield CounterMetricFamily("headrace_checkpoint_rows", "Rows journalled.", value=stats.checkpoint_rows)
        yield CounterMetricFamily(
            "headrace_dead_letters_lost", "Dead letters that could not be kept.", value=stats.dead_letters_lost
        )
        if stats.checkpoint_age is not None:
            age = stats.checkpoint_age
            yield GaugeMetricFamily("headrace_checkpoint_age_seconds", "Since the last checkpoint.", value=age)

    def _requests(self) -> Iterator[Metric]:
        counter = CounterMetricFamily(
            "headrace_http_requests", "Requests answered (499: the client left first).", labels=["route", "status"]
        )
        for (route, status), count in list(self._tally.requests.items()):
            counter.add_metric([route, str(status)], count)
        yield counter
        histogram = HistogramMetricFamily(
            "headrace_http_request_seconds", "From a request's head to its answer.", labels=["route"]
        )
        for route, counts in list(self._tally.buckets.items()):
            running = list(accumulate(counts))
            bounds = [*map(str, BUCKETS), "+Inf"]
            histogram.add_metric([route], list(zip(bounds, running, strict=True)), self._tally.seconds[route])
        yield histogram


def exposition(
    stats: Stats, tally: HttpTally, accept: str = "", chat: chat_metrics.ChatFigures | None = None
) -> tuple[bytes, str]:
    """The metrics in the format that a scraper asks for.

    Args:
        stats: What `live.stats()` says.
        tally: The requests so far.
        accept: The scraper's `Accept` header.
        chat: Those of the chat endpoint, if there is one.

    Returns:
        The text and its Content-Type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatsCollector(stats, tally, chat))
    # Of the header only what is asked for is handed on: the library fails on a version that it cannot read.
    encode, media_type = choose_encoder(f"{_OPENMETRICS}; version=1.0.0" if _OPENMETRICS in accept else "")
    return encode(registry), media_type


def _each(
    made: Callable[[str, str, str, Mapping[str, float]], Metric],
    prefix: str,
    label: str,
    found: Mapping[str, object],
    helps: Mapping[str, str],
) -> Iterator[Metric]:
    """A metric for each of the attributes, which all that is found has."""
    for name, help_ in helps.items():
        yield made(f"{prefix}_{name}", help_, label, {of: getattr(one, name) for of, one in found.items()})


def _counter(name: str, help_: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
    metric = CounterMetricFamily(name, help_, labels=[label])
    for key, value in values.items():
        metric.add_metric([key], value)
    return metric


def _gauge(name: str, help_: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    metric = GaugeMetricFamily(name, help_, labels=[label])
    for key, value in values.items():
        metric.add_metric([key], value)
    return metric


def _histogram(name: str, help_: str, histograms: Mapping[str, Histogram | None]) -> HistogramMetricFamily:
    metric = HistogramMetricFamily(name, help_, labels=["stream"])
    for stream, one in histograms.items():
        if one is not None:
            bounds = [*map(str, one.bounds), "+Inf"]
            metric.add_metric([stream], list(zip(bounds, accumulate(one.counts), strict=True)), one.sum)
    return metric
