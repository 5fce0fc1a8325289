"""Limits of chat over real sockets: time, health, pauses, the queue and its order, and what is counted of it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from chatting import served, until
from prometheus_client.parser import text_string_to_metric_families
from scripted_upstream import STALL, ScriptedUpstream, delta, text

import headrace as hr
from headrace.serving.chat import refused
from headrace.serving.problems import SLOW_BODY, ProblemError
from headrace.upstream.client import Answer, Server
from headrace.upstream.failures import UpstreamError
from headrace.upstream.pool import Pool

TIMEOUT = 30.0


def post(url: str, words: str = "hello", *, stream: bool = False, priority: int = 0) -> httpx.Response:
    message = {"role": "user", "content": words}
    body = {"messages": [message], "stream": stream, "headrace": {"priority": priority}}
    return httpx.post(url + "/chat/completions", json=body, timeout=TIMEOUT)


def status(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(url + "/status", timeout=TIMEOUT).json()["chat"]
    return found


def body(_: Server) -> bytes:
    return b'{"stream": true, "messages": []}'


async def ask(pool: Pool, seconds: float = 20.0) -> Answer:
    deadline = asyncio.get_running_loop().time() + seconds
    return await pool.open(body, None, stream=True, prefix=None, deadline=deadline)


@pytest.mark.parametrize("steps", [[STALL], [delta(content="so "), STALL]])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_has_its_time(steps: list[Any], stream: bool) -> None:
    if not stream:
        steps = [10.0, *text("too late")]
    with ScriptedUpstream(steps) as upstream, served(upstream, time_limit=0.3) as url:
        found = post(url, stream=stream)
        assert until(lambda: status(url)["inside"] == 0)
    # A stream that has begun says it in an event, what has not begun by its status.
    assert '"code":"time_limit"' in found.text or (found.status_code, '"upstream_timeout"' in found.text) == (504, True)


def test_a_server_that_is_not_well_is_not_asked_until_it_is() -> None:
    async def run(upstream: ScriptedUpstream) -> None:
        pool = Pool([hr.Upstream(upstream.url)], health=0.01)
        server, changed = pool.servers[0], asyncio.Event()
        pool.on_change = changed.set
        pool.start()

        async def becomes(well: bool) -> None:
            async with asyncio.timeout(10):
                while server.healthy is not well:
                    changed.clear()
                    await changed.wait()

        upstream.health = 500
        await becomes(False)
        with pytest.raises(UpstreamError, match="to be up and free") as error:
            await ask(pool)
        assert (error.value.status, error.value.code, upstream.requests) == (503, "no_upstream", [])
        assert error.value.retry_after
        upstream.health = 200
        await becomes(True)
        await pool.release(await ask(pool))
        await pool.close()

    with ScriptedUpstream(text("yes")) as upstream:
        asyncio.run(run(upstream))


def test_all_goes_to_the_server_that_is_well() -> None:
    async def run(ill: ScriptedUpstream, well: ScriptedUpstream) -> None:
        ill.health = 503
        pool = Pool([hr.Upstream(ill.url), hr.Upstream(well.url)], health=0.01)
        changed = asyncio.Event()
        pool.on_change = changed.set
        pool.start()
        async with asyncio.timeout(10):
            while pool.servers[0].healthy:
                changed.clear()
                await changed.wait()
        for _ in range(8):
            await pool.release(await ask(pool))
        assert (len(ill.requests), len(well.requests)) == (0, 8)
        await pool.close()

    with ScriptedUpstream(text("no")) as ill, ScriptedUpstream(text("yes")) as well:
        asyncio.run(run(ill, well))


@pytest.mark.parametrize("refusal", [429, 503])
def test_a_server_that_says_when_is_asked_then_and_not_before(refusal: int) -> None:
    answers = iter([[(refusal, {"retry-after": "0.3"})], text("yes")])
    with ScriptedUpstream(lambda _: next(answers)) as upstream, served(upstream) as url:
        found = post(url)
    assert found.json()["choices"][0]["message"]["content"] == "yes"
    assert upstream.times[1] - upstream.times[0] >= 0.3


def test_a_pause_that_would_end_after_the_deadline_is_not_begun() -> None:
    with ScriptedUpstream([(429, {"retry-after": "40"})]) as upstream, served(upstream, time_limit=20) as url:
        found = post(url)
    assert (found.status_code, found.headers["retry-after"], len(upstream.requests)) == (429, "40", 1)


def test_who_would_wait_for_longer_than_he_will_is_refused_at_once() -> None:
    gate = threading.Event()
    scripts = iter([[0.5, *text("slow")], [gate, *text("held")]])
    limits = {"queue": 10, "wait": 0.1}
    with (
        ScriptedUpstream(lambda _: next(scripts)) as upstream,
        served(hr.Upstream(upstream.url, concurrent=1), **limits) as url,
        ThreadPoolExecutor(1) as threads,
    ):
        assert post(url, stream=True).status_code == 200  # it took half a second, so the next is thought to
        held = threads.submit(post, url, stream=True)
        assert until(lambda: len(upstream.requests) == 2)
        refused = post(url)
        gate.set()
        assert held.result().status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert "0 requests ahead" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1


def test_the_queue_goes_by_the_apps_priority() -> None:
    gate = threading.Event()
    with (
        ScriptedUpstream([gate, *text("yes")]) as upstream,
        served(
            hr.Upstream(upstream.url, concurrent=1),
            wait="20s",
            priority=lambda asked: asked["headrace"]["priority"],
        ) as url,
        ThreadPoolExecutor(4) as threads,
    ):
        asked = [threads.submit(post, url, "first", stream=True)]
        assert until(lambda: len(upstream.requests) == 1)
        for waiting, (words, priority) in enumerate((("low", 1), ("high", 3), ("middle", 2)), 1):
            asked.append(threads.submit(post, url, words, stream=True, priority=priority))
            assert until(lambda: status(url)["queue"] == waiting)  # noqa: B023 - asked within the turn
        gate.set()
        assert [one.result().status_code for one in asked] == [200] * 4
    said = [one["messages"][-1]["content"] for one in upstream.requests]
    assert said == ["first", "high", "middle", "low"]


def test_bodies_are_held_in_a_budget_until_they_are_answered() -> None:
    """What waits in the queue is in memory; so many large requests are told to come again."""
    gate, words = threading.Event(), "x" * 900_000
    with (
        ScriptedUpstream([gate, *text("yes")]) as upstream,
        served(hr.Upstream(upstream.url, concurrent=1), max_body=1 << 20, wait="20s") as url,
        ThreadPoolExecutor(4) as threads,
    ):
        asked = [threads.submit(post, url, words, stream=True) for _ in range(4)]
        assert until(lambda: (status(url)["inside"], status(url)["queue"]) == (1, 3))
        found = post(url, words)
        assert (found.status_code, found.json()["error"]["type"]) == (503, "server_error")
        assert "room for this body" in found.json()["error"]["message"]
        assert found.headers["retry-after"] == "1"
        gate.set()
        assert [one.result().status_code for one in asked] == [200] * 4
        assert post(url, words).status_code == 200


def test_a_refusal_keeps_its_headers_and_its_whole_seconds() -> None:
    slow = refused(ProblemError(SLOW_BODY, "too slow", {"connection": "close"}))
    assert (slow.status_code, slow.headers["connection"]) == (408, "close")
    assert refused(UpstreamError("busy", 429, retry_after=1.2)).headers["retry-after"] == "2"


def test_each_server_gets_as_much_as_it_takes_and_no_more() -> None:
    gate = threading.Event()
    with (
        ScriptedUpstream([gate, *text("a")]) as two,
        ScriptedUpstream([gate, *text("b")]) as three,
        served(hr.Upstream(two.url, concurrent=2), hr.Upstream(three.url, concurrent=3), wait="20s") as url,
        ThreadPoolExecutor(9) as threads,
    ):
        asked = [threads.submit(post, url, f"{number}", stream=True) for number in range(9)]
        assert until(lambda: status(url)["queue"] == 4 and len(two.requests) + len(three.requests) == 5)
        assert (len(two.requests), len(three.requests)) == (2, 3)
        assert [one["outstanding"] for one in status(url)["upstreams"]] == [2, 3]
        gate.set()
        assert [one.result().status_code for one in asked] == [200] * 9


def test_the_endpoint_is_made_as_the_server_starts() -> None:
    """Its imports, connections' set-up and health checks are not the first request's."""
    with ScriptedUpstream(text("yes")) as upstream, served(upstream) as url:
        assert status(url)["upstreams"][0]["url"] == upstream.url
        assert until(lambda: upstream.checks >= 1)
        assert upstream.requests == []


def test_what_happens_is_counted() -> None:
    with ScriptedUpstream(text("yes")) as upstream, served(hr.Upstream(upstream.url, "small")) as url:
        assert post(url, stream=True).status_code == 200
        assert post(url).status_code == 200
        assert httpx.post(url + "/chat/completions", json={"messages": []}).status_code == 400
        assert until(lambda: status(url)["requests"] == {"200": 2, "400": 1})
        scraped = httpx.get(url.removesuffix("/v1") + "/metrics").text
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(scraped)
        for sample in family.samples
    }
    server = ("small", upstream.url)  # by the labels' names
    assert {
        ("headrace_chat_requests_total", "200"): 2.0,
        ("headrace_chat_requests_total", "400"): 1.0,
        ("headrace_chat_tokens_total", "prompt"): 20.0,
        ("headrace_chat_tokens_total", "completion"): 10.0,
        ("headrace_chat_first_chunk_seconds_count",): 2.0,
        ("headrace_chat_queue",): 0.0,
        ("headrace_chat_inside",): 0.0,
        ("headrace_upstream_up", *server): 1.0,
        ("headrace_upstream_outstanding", *server): 0.0,
        ("headrace_upstream_requests_total", *server): 2.0,
        ("headrace_upstream_failures_total", *server): 0.0,
        ("headrace_upstream_retries_total",): 0.0,
        ("headrace_upstream_hedges_total",): 0.0,
    }.items() <= found.items()
