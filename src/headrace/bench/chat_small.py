"""The real small model of the `chat` benchmark: alone, and through the chat endpoint.

Its own time for a token is a hundred times what an endpoint adds, and moves more than that from run to run: these
figures show that nothing is lost between a model and its client, and say nothing of what is added (`chat` does).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import httpx

from headrace.bench.child import Child
from headrace.bench.harness import BenchError, Report, interleave
from headrace.demo import model

ALONE, THROUGH = "small model, directly", "small model, through headrace"
STREAMS = (1, 4)
TOKENS = 40
_QUESTION = "What do you know of mills and weirs?"
_TIMEOUT = 300.0


@dataclass(frozen=True)
class Round:
    """Streams at a time: the milliseconds to each first token, in the median, and tokens a second, together."""

    first: float
    rate: float


def add(report: Report, runs: int) -> None:
    """Measure it into a report; where it is not installed, the report says that it is left out.

    Raises:
        BenchError: A stream was not whole.
    """
    if why := model.missing():
        report.left_out["a real small model"] = why
        return
    with ExitStack() as stack:
        small = stack.enter_context(model.SmallModel(places=max(STREAMS)))
        child = stack.enter_context(Child("headrace.bench.chat_live", "plain", small.url))
        urls = {ALONE: small.url, THROUGH: f"http://127.0.0.1:{child.ready['port']}/v1"}
        client = stack.enter_context(httpx.Client(timeout=_TIMEOUT))
        threads = stack.enter_context(ThreadPoolExecutor(max(STREAMS)))
        for count in STREAMS:
            systems: dict[str, Callable[[], Round]] = {
                system: partial(_round, client, threads, url, count) for system, url in urls.items()
            }
            for once in systems.values():
                once()  # thrown away: the prompt is read for the first time
            for system, rounds in interleave(systems, runs).items():
                report.add(system, f"{count} streams: first token", "ms", [one.first for one in rounds])
                report.add(system, f"{count} streams: tokens a second", "1/s", [one.rate for one in rounds])
    report.notes.append(f"the real small model: {model.ABOUT}; {TOKENS} tokens an answer, its prompt read before")


def _round(client: httpx.Client, threads: ThreadPoolExecutor, url: str, count: int) -> Round:
    began = time.perf_counter()
    firsts = list(threads.map(partial(_stream, client), [url] * count))
    return Round(1e3 * statistics.median(firsts), count * TOKENS / (time.perf_counter() - began))


def _stream(client: httpx.Client, url: str) -> float:
    """Seconds to the first token of an answer that is read to its end."""
    body = {
        "model": model.NAME,
        "messages": [{"role": "user", "content": _QUESTION}],
        "stream": True,
        "temperature": 0,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stop": ["<end>"],
    }
    began = time.perf_counter()
    first, last = 0.0, ""
    with client.stream("POST", f"{url}/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if not first and '"content":"' in line:
                first = time.perf_counter() - began
            last = line or last
    if not first or last != "data: [DONE]":
        raise BenchError(f"{url}: expected a stream that ends with [DONE], found {last[:200]!r}")
    return first
