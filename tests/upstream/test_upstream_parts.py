"""The parts of the pool that do no I/O: breaker, choice, events, retries, declaration; and the queue."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigError
from headrace.upstream.admission import Admission
from headrace.upstream.breaker import Breaker
from headrace.upstream.choose import choose
from headrace.upstream.failures import QueueFullError
from headrace.upstream.retrying import Budget, Waits, backoff, retry_after
from headrace.upstream.spec import Upstream, from_environment, read
from headrace.upstream.sse import SseError, SseReader


@dataclass
class Busy:
    name: str
    outstanding: int


def test_a_breaker_opens_tries_once_and_closes() -> None:
    breaker = Breaker(failures=2, rest=1.0)
    breaker.failure(0.0)
    assert breaker.state(0.0) == "closed"
    breaker.failure(0.0)
    assert (breaker.state(0.5), breaker.allows(0.5), breaker.opens_in(0.5)) == ("open", False, 0.5)
    assert breaker.allows(1.0)
    breaker.begin(1.0)
    assert not breaker.allows(1.0)
    breaker.failure(1.0)
    assert (breaker.state(2.9), breaker.state(3.0)) == ("open", "half open")
    breaker.begin(3.0)
    breaker.abandon()
    assert breaker.allows(3.0)
    breaker.success()
    assert breaker.state(3.0) == "closed"


def test_the_same_beginning_goes_to_the_same_server_unless_it_is_clearly_busier() -> None:
    servers = [Busy(f"s{i}", 0) for i in range(5)]
    preferred = choose(servers, b"hello")
    servers[preferred].outstanding = 4
    assert choose(servers, b"hello") == preferred
    servers[preferred].outstanding = 5
    assert choose(servers, b"hello") != preferred


def test_few_beginnings_move_when_a_server_goes() -> None:
    servers = [Busy(f"s{i}", 0) for i in range(5)]
    beginnings = [b"%d" % n for n in range(500)]
    before = [choose(servers, one) for one in beginnings]
    after = [choose(servers[:4], one) for one in beginnings]
    assert all(old == new for old, new in zip(before, after, strict=True) if old != 4)
    assert min(before.count(i) for i in range(5)) > 60


@given(st.lists(st.integers(1, 40)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_the_same_however_the_bytes_come(cuts: list[int], end: bytes) -> None:
    lines = [b": comment", b"data: one", b"data:two", b"", b"event: x", b"data: \xc3\xa4", b"", b"data: [DONE]", b""]
    data = b"\xef\xbb\xbf" + b"".join(line + end for line in lines)
    reader, found = SseReader(), []
    for cut in cuts:
        found += reader.feed(data[:cut])
        data = data[cut:]
    found += reader.feed(data)
    assert found == [b"one\ntwo", "ä".encode(), b"[DONE]"]
    assert reader.empty


@pytest.mark.parametrize("data", [b"data: " + b"x" * 100, b"data: xxxxxxxxxx\n" * 10, b"<html>\n"])
def test_what_is_no_stream_or_without_end_is_an_error(data: bytes) -> None:
    with pytest.raises(SseError):
        SseReader(most=50).feed(data)


def test_retries_are_bounded() -> None:
    budget = Budget(most=3.0, share=0.5, trickle=1.0)
    assert [budget.take(0.0) for _ in range(4)] == [True, True, True, False]
    budget.request(2.0)
    assert budget.take(2.0)
    assert (backoff(0, 1.0), backoff(1, 0.5), backoff(50, 1.0)) == (0.1, 0.1, 4.0)
    assert [retry_after(one) for one in (None, "2", "-1", "nan", "x", "1e9")] == [None, 2.0, 0.0, None, None, 60.0]


def test_a_hedge_waits_for_the_95th_percentile() -> None:
    waits = Waits()
    assert waits.hedge_after() is None
    for n in range(100):
        waits.add(n / 10)
    assert waits.hedge_after() == 9.4


@pytest.mark.parametrize(
    "url", ["x", "ftp://h/v1", "http://", "http://user:secret@h/v1", "http://h/v1?odd=1", "http://h/v1?concurrent=x"]
)
def test_an_upstream_that_cannot_be_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(url)
    assert "secret" not in str(raised.value)


def test_upstreams_come_from_the_environment() -> None:
    found = from_environment({"HEADRACE_UPSTREAMS": "http://a/v1?model=m&concurrent=2, http://b/v1"})
    assert found == (Upstream("http://a/v1", "m", concurrent=2), Upstream("http://b/v1"))
    assert [one.health_url for one in found] == ["http://a/v1/models", "http://b/v1/models"]
    with pytest.raises(ConfigError, match="KEY"):
        Upstream("http://a/v1", key_env="KEY").key({})


def test_the_queue_goes_by_priority_and_refuses_what_it_cannot_hold() -> None:
    async def run() -> list[str]:
        admission, order, entered = Admission(lambda: 1, 2), [], asyncio.Event()
        leave = asyncio.Event()

        async def one(name: str, priority: int) -> None:
            async with admission.enter(priority, 30.0):
                order.append(name)
                entered.set()
                await leave.wait()

        tasks = [asyncio.create_task(one("first", 0))]
        await entered.wait()
        for name, priority in (("low", 0), ("high", 1)):
            tasks.append(asyncio.create_task(one(name, priority)))
            await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as raised:
            await one("none", 0)
        assert raised.value.retry_after >= 1
        leave.set()
        await asyncio.gather(*tasks)
        assert (admission.inside, admission.waiting) == (0, 0)
        return order

    assert asyncio.run(run()) == ["first", "high", "low"]


def test_who_gives_up_leaves_no_place_taken() -> None:
    async def run() -> None:
        admission = Admission(lambda: 1, 5)
        async with admission.enter():
            with pytest.raises(QueueFullError):
                async with admission.enter(wait=0.0):
                    pass
            task = asyncio.create_task(admission.enter().__aenter__())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert (admission.inside, admission.waiting) == (0, 0)

    asyncio.run(run())
