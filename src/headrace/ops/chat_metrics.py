"""What chat is measured by: requests, the time to the first chunk, tokens, the queue, and the model servers.

As for the other metrics, what is counted anyway is read at the scrape. Series are named by what the app declares (a
model server's URL and model) and by statuses, never by what a client sends.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

# Seconds: from what a small model on this machine takes to what a large one under load may.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_KINDS = {"prompt_tokens": "prompt", "completion_tokens": "completion"}


class ChatTally:
    """Chat requests by how they ended, their first chunks, and their tokens; one thread writes."""

    def __init__(self) -> None:
        self.requests: dict[int, int] = {}
        self.tokens = dict.fromkeys(_KINDS.values(), 0)
        self.first = [0] * (len(BUCKETS) + 1)
        self.first_seconds = 0.0

    def began(self, seconds: float) -> None:
        """The first of an answer is sent, so long after its request came."""
        self.first[bisect_left(BUCKETS, seconds)] += 1
        self.first_seconds += seconds

    def ended(self, status: int) -> None:
        """A request is over: answered, or with this error; 499 if the client went away."""
        self.requests[status] = self.requests.get(status, 0) + 1

    def used(self, usage: Mapping[str, Any]) -> None:
        """The usage of a request's rounds."""
        for name, kind in _KINDS.items():
            self.tokens[kind] += usage.get(name, 0)


@dataclass(frozen=True)
class ChatFigures:
    """A moment's figures of the chat endpoint.

    Attributes:
        queue: Requests that wait for a place.
        inside: Requests that are being answered.
        retries: Attempts made again.
        hedges: Second attempts beside slow ones.
        upstreams: Of each model server, what the pool knows of it.
    """

    requests: Mapping[int, int] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    queue: int = 0
    inside: int = 0
    retries: int = 0
    hedges: int = 0
    upstreams: Sequence[Mapping[str, Any]] = ()
    first: Sequence[int] = field(default=(0,) * (len(BUCKETS) + 1), repr=False)
    first_seconds: float = 0.0


def metrics(chat: ChatFigures | None) -> Iterator[Metric]:
    """The metrics of a chat endpoint; without samples if there is none."""
    found = chat or ChatFigures()
    requests = CounterMetricFamily(
        "headrace_chat_requests", "Chat requests ended (499: the client left first).", labels=["status"]
    )
    for status, count in list(found.requests.items()):
        requests.add_metric([str(status)], count)
    yield requests
    tokens = CounterMetricFamily("headrace_chat_tokens", "Tokens of chat, as told or counted.", labels=["kind"])
    for kind, count in found.tokens.items():
        tokens.add_metric([kind], count)
    yield tokens
    first = HistogramMetricFamily(
        "headrace_chat_first_chunk_seconds",
        "From a chat request to the first of its answer.",
        labels=["endpoint"] if chat is None else [],
    )
    queue = GaugeMetricFamily(
        "headrace_chat_queue", "Chat requests that wait for a place.", labels=["endpoint"] if chat is None else []
    )
    inside = GaugeMetricFamily(
        "headrace_chat_inside", "Chat requests that are being answered.", labels=["endpoint"] if chat is None else []
    )
    if chat is not None:
        bounds = [*map(str, BUCKETS), "+Inf"]
        first.add_metric([], list(zip(bounds, accumulate(found.first), strict=True)), found.first_seconds)
        queue.add_metric([], found.queue)
        inside.add_metric([], found.inside)
    yield from (first, queue, inside)
    yield CounterMetricFamily("headrace_upstream_retries", "Attempts made again, elsewhere or later.", found.retries)
    yield CounterMetricFamily("headrace_upstream_hedges", "Second attempts beside slow ones.", found.hedges)
    yield from _upstreams(found.upstreams)


def _upstreams(servers: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ["url", "model"]
    up = GaugeMetricFamily("headrace_upstream_up", "0 while a model server is not asked.", labels=labels)
    outstanding = GaugeMetricFamily("headrace_upstream_outstanding", "Requests that it has now.", labels=labels)
    requests = CounterMetricFamily("headrace_upstream_requests", "Requests sent to it.", labels=labels)
    failures = CounterMetricFamily("headrace_upstream_failures", "Requests that it failed.", labels=labels)
    families: list[GaugeMetricFamily | CounterMetricFamily] = [up, outstanding, requests, failures]
    # One that is declared twice is one series: its worst state, and both counts.
    merged: dict[tuple[str, str], list[float]] = {}
    for one in servers:
        sums = merged.setdefault((str(one["url"]), str(one["model"] or "")), [1.0, 0.0, 0.0, 0.0])
        sums[0] = min(sums[0], float(one["up"]))
        for place, name in enumerate(("outstanding", "requests", "failures"), 1):
            sums[place] += one[name]
    for names, values in merged.items():
        for family, value in zip(families, values, strict=True):
            family.add_metric(list(names), value)
    yield from families
