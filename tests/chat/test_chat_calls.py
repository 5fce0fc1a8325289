"""Calls of tools as models write them: cut off, broken, without an index, of kinds that are not ours."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from chatting import HELLO, served
from scripted_upstream import ScriptedUpstream, delta, text, usage

import headrace as hr
from headrace.serving.chat_merge import MOST_CALLS, ToolCalls, arguments_of, repeated
from headrace.serving.server import BackgroundServer

OWN = {"type": "function", "function": {"name": "book", "parameters": {"type": "object", "properties": {}}}}
BROKEN = ['{"page": "ho', "{'page': 'home'}", "[1]", "null", "7", "[" * 100_000, '{"page": 1e999}']


def calling(arguments: str, finish: str = "tool_calls", name: str = "traffic") -> list[Any]:
    piece = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return [delta(role="assistant", content=None), delta(tool_calls=[piece]), delta(finish), usage()]


def asked(url: str, *, stream: bool, **more: Any) -> tuple[int, dict[str, Any], str]:
    """The status, the last chunk or the whole body, and what was said."""
    found = httpx.post(url + "/chat/completions", json={"messages": HELLO, "stream": stream, **more}, timeout=30)
    if not stream:
        body = found.json()
        return found.status_code, body, body["choices"][0]["message"]["content"] or ""
    chunks = [json.loads(one) for one in found.text.split("data: ")[1:-1]]
    return found.status_code, chunks[-1], "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("arguments", BROKEN)
def test_arguments_that_are_no_object_are_told_and_not_sent_again(arguments: str, stream: bool) -> None:
    """llama.cpp fails the whole request with 500 if a message before holds arguments that are not JSON."""

    def script(request: dict[str, Any]) -> list[Any]:
        return text("sorry") if request["messages"][-1]["role"] == "tool" else calling(arguments)

    with ScriptedUpstream(script) as upstream, served(upstream) as url:
        status, last, said = asked(url, stream=stream)
    assert (status, said, len(upstream.requests)) == (200, "sorry", 2)
    call, result = upstream.requests[1]["messages"][-2:]
    assert call["tool_calls"][0]["function"] == {"name": "traffic", "arguments": "{}"}
    assert "expected the arguments as a JSON object, found" in result["content"]
    assert "call it again" in result["content"]
    assert [one["ok"] for one in last["headrace"]["tools"]] == [False]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reason", ["length", "content_filter"])
@pytest.mark.parametrize("arguments", ['{"page": "ho', '{"page": "home"}'])
def test_a_round_that_was_cut_off_runs_nothing_and_says_so(arguments: str, reason: str, stream: bool) -> None:
    with ScriptedUpstream(calling(arguments, reason)) as upstream, served(upstream) as url:
        status, last, said = asked(url, stream=stream)
    assert (status, said, len(upstream.requests)) == (200, "", 1)
    assert last["choices"][0]["finish_reason"] == reason
    [told] = last["headrace"]["tools"]
    assert (told["name"], told["ok"]) == ("traffic", False)
    assert f"cut off ({reason}); it was not run" in told["error"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_clients_call_that_was_cut_off_is_handed_back_as_it_came(stream: bool) -> None:
    with ScriptedUpstream(calling('{"n": ', "length", "book")) as upstream, served(upstream) as url:
        found = httpx.post(
            url + "/chat/completions", json={"messages": HELLO, "tools": [OWN], "stream": stream}, timeout=30
        )
    assert r'"arguments":"{\"n\": "' in found.text
    assert '"finish_reason":"length"' in found.text
    assert '"tools":[]' in found.text


@pytest.mark.parametrize("stream", [True, False])
def test_a_tool_of_the_clients_hides_one_of_the_apps(stream: bool) -> None:
    own = {"type": "function", "function": {"name": "traffic", "parameters": {"type": "object"}}}
    with ScriptedUpstream(calling('{"page": "home"}')) as upstream, served(upstream) as url:
        found = httpx.post(
            url + "/chat/completions", json={"messages": HELLO, "tools": [own], "stream": stream}, timeout=30
        )
    assert '"name":"traffic"' in found.text
    assert '"tools":[]' in found.text
    assert [one["function"]["name"] for one in upstream.requests[0]["tools"]].count("traffic") == 1


def test_a_custom_tools_call_is_the_clients() -> None:
    pieces = [
        {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "shell", "input": "ls "}},
        {"index": 0, "custom": {"input": "-l"}},
    ]
    script = [*(delta(tool_calls=[one]) for one in pieces), delta("tool_calls"), usage()]
    own = {"type": "custom", "custom": {"name": "shell"}}
    with ScriptedUpstream(script) as upstream, served(upstream) as url:
        found = httpx.post(
            url + "/chat/completions", json={"messages": HELLO, "tools": [own], "stream": True}, timeout=30
        )
    assert (
        '"tool_calls":[{"index":0,"id":"c1","type":"custom","custom":{"name":"shell","input":"ls -l"}}]' in found.text
    )
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_tool_that_fails_is_told_and_does_not_fail_the_answer(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    app = hr.App("site")

    @app.context(budget=100)
    def broken(page: str) -> Any:
        """Looks it up."""
        raise ZeroDivisionError(f"of {page}, which is private")

    def script(request: dict[str, Any]) -> list[Any]:
        asking = request["messages"][-1]["role"] == "user"
        return calling('{"page": "home"}', name="broken") if asking else text("sorry")

    with ScriptedUpstream(script) as upstream:
        app.chat(upstreams=[upstream.url])
        with app.open() as live, BackgroundServer(live) as server:
            status, last, said = asked(server.url + "/v1", stream=stream)
    assert (status, said) == (200, "sorry")
    [told] = last["headrace"]["tools"]
    assert "the tool failed" in told["error"]
    assert told["error"] in upstream.requests[1]["messages"][-1]["content"]
    assert "private" not in json.dumps([last, upstream.requests])
    assert "of home, which is private" in caplog.text


def test_an_end_that_is_said_twice_loses_no_word() -> None:
    script = [delta(content="so "), delta("stop", content="long"), delta("stop"), usage()]
    with ScriptedUpstream(script) as upstream, served(upstream) as url:
        found = httpx.post(url + "/chat/completions", json={"messages": HELLO, "stream": True}, timeout=30)
    chunks = [json.loads(one)["choices"][0] for one in found.text.split("data: ")[1:-1]]
    assert "".join(one["delta"].get("content", "") for one in chunks) == "so long"
    assert [one["finish_reason"] for one in chunks] == [None, None, "stop"]


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    calls = ToolCalls()
    for name in ("a", "b"):
        calls.add([{"id": f"id-{name}", "function": {"name": name, "arguments": "{"}}])
        calls.add([{"id": f"id-{name}", "function": {"arguments": "}"}}])
    assert [(one["id"], one["function"]) for one in calls.whole()] == [
        (f"id-{name}", {"name": name, "arguments": "{}"}) for name in ("a", "b")
    ]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ({"name": ["x"], "arguments": {"a": 1}}, '{"a":1}'),
        ({"name": None, "arguments": None}, ""),
        ({"arguments": " "}, " "),
    ],
)
def test_what_a_server_sends_of_other_types_becomes_text(function: dict[str, Any], arguments: str) -> None:
    calls = ToolCalls()
    calls.add([{"function": function}])
    [call] = calls.whole()
    assert call["function"]["arguments"] == arguments
    assert isinstance(call["function"]["name"], str)
    assert json.loads(repeated(call)["function"]["arguments"]) == arguments_of(call)


def test_logprobs_of_a_token_without_text_are_passed_on() -> None:
    probable = {"content": [{"token": "\\xf0", "logprob": -0.1, "bytes": [240], "top_logprobs": []}]}
    first = delta(content="")
    first["choices"][0]["logprobs"] = probable
    with ScriptedUpstream([first, *text("x")]) as upstream, served(upstream) as url:
        body = {"messages": HELLO, "stream": True, "logprobs": True}
        found = httpx.post(url + "/chat/completions", json=body, timeout=30)
    assert '"logprob":-0.1' in found.text.replace(" ", "")


@pytest.mark.parametrize("stream", [True, False])
def test_calls_past_the_bound_are_told(stream: bool) -> None:
    def script(request: dict[str, Any]) -> list[Any]:
        if request["messages"][-1]["role"] == "tool":
            return text("done")
        function = {"name": "traffic", "arguments": '{"page": "home"}'}
        pieces = [{"index": n, "id": f"c{n}", "type": "function", "function": function} for n in range(MOST_CALLS + 2)]
        return [delta(role="assistant", content=None), delta(tool_calls=pieces), delta("tool_calls"), usage()]

    with ScriptedUpstream(script) as upstream, served(upstream) as url:
        status, last, said = asked(url, stream=stream)
    assert (status, said) == (200, "done")
    assert sum(one["role"] == "tool" for one in upstream.requests[1]["messages"]) == MOST_CALLS
    told = [one["error"] for one in last["headrace"]["tools"] if not one["name"]]
    assert told == [f"expected at most {MOST_CALLS} tool calls in a round, found 2 more; left out"]
