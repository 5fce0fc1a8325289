"""`headrace bench chat`: what the chat endpoint adds to a model's first token, and to its last.

A scripted model server (`chat_upstream`) answers at fixed times; the same client asks it directly and through
Headrace, without a context and with a small one (`chat_live`), in turn in the same run. Streams begin on schedule
(`chat_load`), so many a second that on average a given number of them is open (Little's law). What is added is a
percentile through Headrace less the same one asked directly, of the same round. Beside it stands a real small model
where one is installed (`chat_small`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import msgspec
import numpy as np

from headrace.bench import chat_small
from headrace.bench.chat_live import USERS
from headrace.bench.chat_load import Streams, load
from headrace.bench.chat_upstream import tokens
from headrace.bench.child import Child
from headrace.bench.harness import BenchError, Report, interleave

DIRECT, PLAIN, CONTEXT = "upstream, directly", "headrace", "headrace, with a context"
STREAMS = (1, 50, 200)
FIRST, GAP, TOKENS = 0.2, 0.04, 20
SECONDS = 6.0
GOAL_P50_MS, GOAL_P99_MS = 3.0, 15.0
_LEAST = 10  # streams of a round


def run(
    *,
    runs: int = 5,
    seconds: float = SECONDS,
    streams: tuple[int, ...] = STREAMS,
    first: float = FIRST,
    gap: float = GAP,
    count: int = TOKENS,
    seed: int = 1,
    small: bool = True,
) -> Report:
    """Measure.

    Args:
        runs: Rounds, in each of which every system is asked in turn.
        seconds: The length of a round; longer where so few streams begin in it that they say nothing.
        streams: How many are open at a time.
        first: Seconds until the model server's first token.
        gap: Seconds from each token to the next.
        count: Tokens of an answer.
        seed: Of the questions' numbers.
        small: Whether the real small model is measured too, where it is installed.

    Raises:
        BenchError: An answer was not what the model server said, or was not whole.
    """
    report = Report("chat", seed, "a model server asked through the chat endpoint, beside the same one asked directly")
    lasts = first + (count - 1) * gap
    with ExitStack() as stack:
        upstream = stack.enter_context(Child("headrace.bench.chat_upstream", str(first), str(gap), str(count)))
        url = f"http://127.0.0.1:{upstream.ready['port']}/v1"
        plain = stack.enter_context(Child("headrace.bench.chat_live", "plain", url))
        context = stack.enter_context(Child("headrace.bench.chat_live", "context", url))
        ports = {
            DIRECT: int(upstream.ready["port"]),
            PLAIN: int(plain.ready["port"]),
            CONTEXT: int(context.ready["port"]),
        }
        for open_ in streams:
            rate = open_ / lasts
            number = max(int(rate * seconds), _LEAST)
            systems: dict[str, Callable[[], Streams]] = {
                system: partial(_trial, system, port, rate, number, open_, count, seed)
                for system, port in ports.items()
            }
            for system, port in ports.items():
                # Thrown away: code and caches are touched for the first time.
                _trial(system, port, rate, min(number, max(2, open_)), open_, count, seed)
            children = {PLAIN: plain, CONTEXT: context}
            before = {system: child.ask()["cpu"] for system, child in children.items()}
            _add(report, open_, interleave(systems, runs))
            for system, child in children.items():
                spent = 1e3 * (child.ask()["cpu"] - before[system]) / (number * runs)
                report.add(system, f"{open_} streams: processor time a stream", "ms", [spent])
    if small:
        chat_small.add(report, runs)
    report.notes += [
        f"the model server: the first token after {first * 1e3:g} ms, then one every {gap * 1e3:g} ms, {count} in all",
        "latencies are from a stream's scheduled time until its first token, or its end, is with the client; "
        "'added' is a percentile less that of the upstream asked directly in the same round",
        "client, Headrace and model server share the machine; every answer's text was compared",
    ]
    return report


def _trial(system: str, port: int, rate: float, number: int, open_: int, count: int, seed: int) -> Streams:
    """One round of one system, with its answers compared."""
    questions = [f"{seed}-{i}" for i in range(number)]
    requests = [_request(question, i, context=system == CONTEXT) for i, question in enumerate(questions)]
    found = load(port, requests, rate, open_ + open_ // 4 + 2)
    for question, text in zip(questions, found.texts, strict=True):
        expected = "".join(tokens(question, count, told=system == CONTEXT))
        if text != expected:
            raise BenchError(f"{system}: expected the answer {expected!r}, found {text!r}")
    return found


def _request(question: str, i: int, *, context: bool) -> bytes:
    body: dict[str, object] = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": question}]}
    if context:
        body["headrace"] = {"arguments": {"user_id": f"u{i % USERS}", "question": f"{question} mill and weir"}}
    encoded = msgspec.json.encode(body)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(encoded)}\r\n\r\n"
    )
    return head.encode() + encoded


def _add(report: Report, open_: int, rounds: dict[str, list[Streams]]) -> None:
    """The figures of one number of streams, and how they stand to their goals."""
    what = f"{open_} streams"
    for system, found in rounds.items():
        for part, name in (("first", "first token"), ("end", "end")):
            for label, q, goal in (("p50", 50.0, GOAL_P50_MS), ("p99", 99.0, GOAL_P99_MS)):
                ours = [float(np.percentile(getattr(one, part), q)) for one in found]
                report.add(system, f"{what}: {name} {label}", "ms", ours)
                if system == DIRECT:
                    continue
                theirs = [float(np.percentile(getattr(one, part), q)) for one in rounds[DIRECT]]
                metric = f"{what}: added to the {name} {label}"
                figure = report.add(system, metric, "ms", [a - b for a, b in zip(ours, theirs, strict=True)])
                report.ratios[f"{system}, {metric}, of its goal of {goal:g} ms"] = figure.value / goal
