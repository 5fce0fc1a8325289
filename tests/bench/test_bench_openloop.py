"""The open-loop schedule: nothing left out, whatever it takes."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from headrace.bench.asgi import served
from headrace.bench.httpload import Load, requests
from headrace.bench.openloop import Feed, Pusher, call_on_schedule
from headrace.bench.peers.bare_asgi import application


def feed(count: int) -> Feed:
    numbers = np.arange(count, dtype=np.int64)
    return Feed.of(numbers, 1_767_225_600_000_000 + numbers, numbers % 9_000)


def test_a_run_of_a_feed_is_its_events() -> None:
    lines = [json.loads(line) for line in feed(10_000).body(105, 107).splitlines()]
    assert lines == [
        {"user_id": "u0000105", "amount": 11.05, "timestamp": 1_767_225_600_000_105},
        {"user_id": "u0000106", "amount": 11.06, "timestamp": 1_767_225_600_000_106},
    ]


def test_a_pusher_sends_everything_once_and_in_order() -> None:
    runs: list[tuple[int, int]] = []
    pusher = Pusher(lambda start, stop: runs.append((start, stop)), 5_000, 1e6, time.perf_counter_ns())
    pusher.start()
    pusher.finish()
    assert [n for start, stop in runs for n in range(start, stop)] == list(range(5_000))


def test_what_goes_wrong_in_a_pusher_is_raised_where_it_is_joined() -> None:
    def broken(start: int, stop: int) -> None:
        raise ValueError(f"cannot send {start} to {stop}")

    pusher = Pusher(broken, 10, 1e6, time.perf_counter_ns())
    pusher.start()
    with pytest.raises(ValueError, match="cannot send"):
        pusher.finish()


def test_every_call_of_a_schedule_is_made_in_order() -> None:
    calls: list[int] = []
    latencies = call_on_schedule(calls.append, 100_000, 500)
    assert calls == list(range(500))
    assert len(latencies.scheduled) == len(latencies.service) == 500


def test_a_latency_counts_from_the_schedule_and_not_from_the_call() -> None:
    # Each call takes longer than the schedule allows, so what waits behind it must show the wait.
    def slow(_: int) -> None:
        until = time.perf_counter_ns() + 200_000
        while time.perf_counter_ns() < until:
            pass

    latencies = call_on_schedule(slow, 100_000, 20)
    assert latencies.scheduled[-1] > 5 * latencies.service.min()


@pytest.mark.parametrize("batch", [1, 10])
def test_http_load_gets_every_answer(batch: int) -> None:
    made = requests("/v1/features/spending", [f"u{n}" for n in range(200)], batch, "127.0.0.1")
    with served(application) as port:
        load = Load("127.0.0.1", port, 4)
        latencies, failed = load.run(made, 20_000)
        load.close()
    assert (len(latencies.scheduled), failed) == (200 // batch, 0)
    assert (latencies.service > 0).all()
