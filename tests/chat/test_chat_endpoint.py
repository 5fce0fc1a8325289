"""The chat endpoint over real sockets, with OpenAI's own client and scripted model servers."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from chatting import HELLO, client, served, until
from scripted_upstream import DIE, STALL, ScriptedUpstream, calls, delta, text, usage

import headrace as hr

OWN = {"type": "function", "function": {"name": "book", "parameters": {"type": "object", "properties": {}}}}


def two_rounds(asked: dict[str, Any]) -> list[Any]:
    """Calls a tool, then answers with what it was told."""
    told = [one for one in asked["messages"] if one["role"] == "tool"]
    return text("There were ", "2.") if told else calls(("traffic", {"page": "home"}), ("traffic", {"page": "x"}))


def test_a_streamed_conversation_runs_the_apps_tools() -> None:
    with ScriptedUpstream(two_rounds) as upstream, served(upstream) as url, client(url) as one:
        stream = one.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    said = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    last = chunks[-1]
    assert said == "There were 2."
    assert last.usage is not None
    assert last.usage.total_tokens == 30
    assert [one["ok"] for one in last.headrace["tools"]] == [True, True]
    assert len({one.id for one in chunks}) == 1
    results = [one for one in upstream.requests[1]["messages"] if one["role"] == "tool"]
    assert ['"clicks_1h":2' in one["content"] and "<data-" in one["content"] for one in results] == [True, False]


def test_a_whole_conversation_runs_the_apps_tools_on_the_context() -> None:
    with ScriptedUpstream(two_rounds) as upstream, served(upstream, context="about") as url, client(url) as one:
        answer = one.chat.completions.create(
            model="m", messages=HELLO, extra_body={"headrace": {"arguments": {"page": "home"}}, "odd": 1}
        )
    assert answer.choices[0].message.content == "There were 2."
    assert answer.usage is not None
    assert answer.usage.total_tokens == 30
    told = answer.headrace  # type: ignore[attr-defined]
    assert told["pack"]
    assert [one["n"] for one in told["citations"]] == list(range(1, len(told["citations"]) + 1))
    asked = upstream.requests[0]
    assert asked["odd"] == 1
    assert "headrace" not in asked
    assert [one["role"] for one in asked["messages"]] == ["system", "user", "user"]
    assert "Answer in one sentence." in asked["messages"][0]["content"]


@pytest.mark.parametrize("stream", [True, False])
def test_what_the_answer_cites_is_said_and_comes_first(stream: bool) -> None:
    said = text("As the clicks say [", "2, 77], there were [x].")
    with ScriptedUpstream(said) as upstream, served(upstream, context="about") as url:
        body = {"messages": HELLO, "stream": stream, "headrace": {"arguments": {"page": "home"}}}
        answer = httpx.post(url + "/chat/completions", json=body)
    data = answer.text.split("data: ")[-2] if stream else answer.text
    found = json.loads(data)["headrace"]["citations"]
    assert [(one["n"], one["cited"]) for one in found] == [(2, True), (1, False)]


@pytest.mark.parametrize("stream", [True, False])
def test_the_clients_own_calls_are_handed_back(stream: bool) -> None:
    script = calls(("traffic", {"page": "home"}), ("book", {"n": 1}))
    with ScriptedUpstream(script) as upstream, served(upstream) as url, client(url) as one:
        if stream:
            chunks = list(one.chat.completions.create(model="m", messages=HELLO, tools=[OWN], stream=True))
            found = [call.function for part in chunks for call in part.choices[0].delta.tool_calls or []]
            reason = chunks[-1].choices[0].finish_reason
        else:
            choice = one.chat.completions.create(model="m", messages=HELLO, tools=[OWN]).choices[0]
            found, reason = [call.function for call in choice.message.tool_calls or []], choice.finish_reason
    assert [(one.name, one.arguments) for one in found] == [("book", '{"n": 1}')]
    assert (reason, len(upstream.requests)) == ("tool_calls", 1)


def test_rounds_are_bounded_and_wrong_arguments_go_back_to_the_model() -> None:
    def script(asked: dict[str, Any]) -> list[Any]:
        return text("enough") if asked.get("tool_choice") == "none" else calls(("traffic", {"pag": 1}))

    with ScriptedUpstream(script) as upstream, served(upstream, rounds=2) as url, client(url) as one:
        answer = one.chat.completions.create(model="m", messages=HELLO)
    assert (answer.choices[0].message.content, len(upstream.requests)) == ("enough", 3)
    assert [one["ok"] for one in answer.headrace["tools"]] == [False, False]  # type: ignore[attr-defined]


def test_parts_that_are_no_text_pass_through_untouched() -> None:
    parts = [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    with ScriptedUpstream(text("a cat")) as upstream, served(upstream) as url:
        httpx.post(url + "/chat/completions", json={"messages": [{"role": "user", "content": parts}]})
    assert upstream.requests[0]["messages"][-1]["content"] == parts


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ([(400, {})], 400, "upstream_refused"),
        ([(401, {})], 502, "upstream_refused"),
        ([b"data: {broken\n\n"], 502, "upstream_malformed"),
        ([DIE], 502, "upstream_connection"),
        ([STALL], 504, "upstream_timeout"),
    ],
)
def test_what_an_upstream_does_wrong_is_a_clear_error(script: list[Any], status: int, code: str) -> None:
    with ScriptedUpstream(script) as upstream, served(hr.Upstream(upstream.url, first_byte="100ms")) as url:
        found = httpx.post(url + "/chat/completions", json={"messages": HELLO, "stream": True}, timeout=30)
    assert (found.status_code, found.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("end", [b"data: {broken\n\n", DIE, STALL])
def test_a_stream_that_breaks_in_the_middle_says_so(end: Any) -> None:
    with ScriptedUpstream([delta(content="so "), end]) as upstream:
        spec = hr.Upstream(upstream.url, between="100ms")
        with served(spec) as url, client(url) as one, pytest.raises(openai.APIError, match="expected"):
            list(one.chat.completions.create(model="m", messages=HELLO, stream=True))
        assert until(lambda: upstream.open == 0)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("lie", [-1, 10**12, "many", True])
def test_usage_that_cannot_be_is_counted_here(lie: Any) -> None:
    with (
        ScriptedUpstream([delta(content="12345678"), delta("stop"), usage(lie, lie)]) as upstream,
        served(upstream) as url,
        client(url) as one,
    ):
        options = {"include_usage": True}
        stream = one.chat.completions.create(model="m", messages=HELLO, stream=True, stream_options=options)
        last = list(stream)[-1]
    assert last.usage is not None
    assert (last.usage.completion_tokens, last.headrace["usage_doubted"]) == (2, True)


def test_a_client_that_goes_away_ends_the_request_to_the_upstream() -> None:
    with ScriptedUpstream([delta(content="so "), STALL]) as upstream, served(upstream) as url:
        with httpx.stream("POST", url + "/chat/completions", json={"messages": HELLO, "stream": True}) as answer:
            next(answer.iter_raw())
        assert upstream.gone.wait(10)
        # What is left is the connection of the health checks.
        assert until(lambda: upstream.open <= 1)


def test_a_full_queue_says_when_to_come_again() -> None:
    with (
        ScriptedUpstream([delta(content="so "), STALL]) as upstream,
        served(hr.Upstream(upstream.url, concurrent=1), queue=0) as url,
        httpx.stream("POST", url + "/chat/completions", json={"messages": HELLO, "stream": True}) as first,
    ):
        begun = first.iter_raw()  # kept: an iterator that goes closes its answer
        next(begun)
        found = httpx.post(url + "/chat/completions", json={"messages": HELLO})
    assert (found.status_code, found.json()["error"]["code"]) == (429, "queue_full")
    assert int(found.headers["retry-after"]) >= 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_before_the_stream_is_tried_elsewhere(status: int) -> None:
    with (
        ScriptedUpstream([(status, {"retry-after": "30"})]) as bad,
        ScriptedUpstream(text("yes")) as good,
        served(bad, good) as url,
        client(url) as one,
    ):
        for _ in range(10):
            answer = one.chat.completions.create(model="m", messages=HELLO)
            assert answer.choices[0].message.content == "yes"


def test_killing_one_of_two_fails_nothing_that_had_not_begun() -> None:
    slow = [delta(role="assistant"), 0.05, delta(content="yes"), delta("stop"), usage()]
    with (
        ScriptedUpstream([threading.Event(), *slow]) as doomed,  # it never begins
        ScriptedUpstream(slow) as good,
        served(doomed, hr.Upstream(good.url, concurrent=64)) as url,
        httpx.Client(timeout=30) as http,
    ):

        def ask(number: int) -> str:
            body = {"messages": [{"role": "user", "content": f"{number}"}], "stream": True}
            return http.post(url + "/chat/completions", json=body).text

        with ThreadPoolExecutor(50) as threads:
            asked = [threads.submit(ask, number) for number in range(50)]
            assert until(lambda: len(doomed.requests) >= 5)
            doomed.kill()
            answers = [one.result() for one in asked]
    assert [one for one in answers if '"yes"' not in one or not one.endswith("[DONE]\n\n")] == []


def test_without_upstreams_the_route_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_UPSTREAMS", raising=False)
    with served() as url:
        found = httpx.post(url + "/chat/completions", json={"messages": HELLO})
    assert found.status_code == 503
    assert "HEADRACE_UPSTREAMS" in found.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"messages": "x"}',
        b'{"messages": [{}], "n": true}',
        b'{"messages": [{}], "n": 2}',
        b'{"messages": [{}], "headrace": 1}',
    ],
)
def test_what_is_no_request_is_refused_in_openais_form(body: bytes) -> None:
    with ScriptedUpstream(text("x")) as upstream, served(upstream) as url:
        found = httpx.post(url + "/chat/completions", content=body)
    assert (found.status_code, found.json()["error"]["type"]) == (400, "invalid_request_error")


def test_the_router_chooses_the_model_and_the_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_KEY", "secret")
    with ScriptedUpstream(text("small")) as small, ScriptedUpstream(text("large")) as large:
        servers = [hr.Upstream(small.url, "small", key_env="SMALL_KEY"), hr.Upstream(large.url, "large")]
        rule = lambda asked: "large" if len(asked["messages"]) > 1 else "small"  # noqa: E731
        with served(*servers, router=rule) as url, client(url) as one:
            found = [one.chat.completions.create(model="m", messages=HELLO * n) for n in (1, 2)]
    assert [one.choices[0].message.content for one in found] == ["small", "large"]
    assert (small.requests[0]["model"], small.requests[0]["_authorization"]) == ("small", "bearer secret")
