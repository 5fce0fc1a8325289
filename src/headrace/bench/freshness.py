"""`headrace bench freshness`: from the scheduled time of an event to the moment that a read shows it.

Open loop: at 100,000 events/s, and at 20, 50 and 80 % of the highest rate that is sustained, in memory and
durable.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable
from typing import Any

from headrace.bench.child import Child
from headrace.bench.harness import Report, interleave

FIXED_RATE = 100_000
SHARES = (0.2, 0.5, 0.8)
SECONDS = 3.0
GOAL = 20.0
SUSTAIN_EVENTS = 1_000_000

Run = Callable[[], dict[str, Any]]


def run(
    *,
    keys: int = 10_000,
    runs: int,
    seed: int,
    seconds: float = SECONDS,
    fixed_rate: int = FIXED_RATE,
    sustain_events: int = SUSTAIN_EVENTS,
) -> Report:
    """Measure Headrace in memory and with a data directory."""
    report = Report("freshness", seed, "an event's scheduled time to its being visible to a read, open loop")
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-"))
        place = {"headrace": [], "headrace, durable": [f"--data={data}"]}
        children = {
            name: stack.enter_context(
                Child("headrace.bench.freshness_live", f"--keys={keys}", f"--seed={seed}", *arguments)
            )
            for name, arguments in place.items()
        }
        closed: dict[str, Run] = {
            name: functools.partial(child.ask, what="sustainable", count=sustain_events)
            for name, child in children.items()
        }
        highest = {}
        for name, rounds in interleave(closed, runs).items():
            figure = report.add(name, "highest sustainable rate", "events/s", [r["rate"] for r in rounds])
            highest[name] = figure.value
        for label, rates in schedules(highest, fixed_rate).items():
            systems = {
                name: functools.partial(child.ask, what="measure", rate=rates[name], seconds=seconds)
                for name, child in children.items()
            }
            for name, rounds in interleave(systems, runs).items():
                add(report, name, label, rounds)
    describe(report, seconds, fixed_rate)
    return report


def schedules(highest: dict[str, float], fixed_rate: int) -> dict[str, dict[str, float]]:
    """The rates to measure at: one for all, then shares of what each can sustain."""
    fixed = {f"at {fixed_rate:,}/s": dict.fromkeys(highest, float(fixed_rate))}
    return fixed | {f"at {share:.0%}": {name: share * rate for name, rate in highest.items()} for share in SHARES}


def add(report: Report, system: str, label: str, rounds: list[dict[str, Any]]) -> None:
    for point in rounds[0]["latency"]:
        report.add(system, f"{label} {point}", "ms", [r["latency"][point] for r in rounds])
    report.add(system, f"{label}, pushed", "events/s", [r["rate"] for r in rounds])
    report.add(system, f"{label}, largest body", "events", [r["largest"] for r in rounds])


def describe(report: Report, seconds: float, fixed_rate: int) -> None:
    value = report.value("headrace", f"at {fixed_rate:,}/s p99")
    if value is not None:
        report.ratios[f"headrace, p99 at {fixed_rate:,}/s, of its goal of {GOAL:g} ms"] = value / GOAL
    why = "it emits windows or changes and has no read for an event to become visible to"
    report.left_out |= {"bytewax": why, "pathway": why}
    report.notes += [
        "ten features a key (those of `reads`), 10,000 keys, Zipf 1.2",
        "events are pushed as NDJSON from one thread, all that is due every 2 ms",
        f"{seconds:g} s a round after a warm-up of half a second; 1,000 probe events a second, each counted",
        "a reader in the same process asks for the probe key every 0.2 ms: its pauses are in the figure",
        "the highest sustainable rate: megabyte bodies back to back, until the last is visible",
    ]
