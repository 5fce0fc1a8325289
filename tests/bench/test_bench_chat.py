"""The `chat` benchmark: that it runs, and refuses a wrong answer; never a time."""

from __future__ import annotations

import pytest

from headrace.bench.asgi import served
from headrace.bench.chat import CONTEXT, DIRECT, PLAIN, _trial, run
from headrace.bench.chat_load import text
from headrace.bench.chat_upstream import Upstream, tokens
from headrace.bench.harness import BenchError


def test_every_system_answers_the_upstreams_text() -> None:
    """The comparison is in it: with a context the upstream has seen the context's words, without one it has not."""
    report = run(small=False, runs=1, seconds=0.2, streams=(2,), first=0.01, gap=0.005, count=4)
    for system in (DIRECT, PLAIN, CONTEXT):
        assert (report.value(system, "2 streams: first token p50") or 0) > 0
        assert (report.value(system, "2 streams: end p99") or 0) > 0
    assert len(report.to_dict()["ratios"]) == 8


def test_a_wrong_answer_stops_the_benchmark() -> None:
    with served(Upstream(0.0, 0.0, 3)) as port:
        assert len(_trial(DIRECT, port, 100.0, 5, 2, 3, seed=1).texts) == 5
        with pytest.raises(BenchError, match=r"expected the answer 'told 1-0\.1"):
            _trial(CONTEXT, port, 100.0, 5, 2, 3, seed=1)


def test_a_stream_without_its_end_is_no_answer() -> None:
    assert tokens("q", 3, told=True) == ["told ", "q.1 ", "q.2 "]
    with pytest.raises(BenchError, match=r"ends with \[DONE\]"):
        text(b'data: {"choices":[]}\n\n')
