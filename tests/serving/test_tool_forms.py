"""Tools in each form, their limits of time and of size."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.errors import InputError, StaleError
from headrace.serving.openapi_parts import FORMS
from headrace.serving.problems import ProblemError
from headrace.serving.server import BackgroundServer
from headrace.serving.tool_calls import MOST_BYTES, NOTE, Calls, _size, shortened


class Rule(hr.Document):
    """A rule."""

    id: str
    body: str


class Gate:
    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Semaphore(0)

    def __call__(self, query: str, texts: list[str]) -> list[float]:
        self.waiting.release()
        assert self.open.wait(30)
        return [1.0] * len(texts)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def rules(gate: Gate) -> Iterator[hr.Live]:
    app = hr.App("rules")
    table = app.table(Rule)
    app.collection("library", table, text="body", embed="hash", index="memory:", rerank=gate)
    with app.open() as opened:
        opened.push(table, {"id": "a", "body": "Open the lower gate first."})
        opened.drain()
        yield opened
        gate.open.set()


def strict(schema: dict[str, Any]) -> bool:
    return schema["additionalProperties"] is False and set(schema["required"]) == set(schema["properties"])


def test_every_form_offers_the_same_tools_with_strict_schemas(live: hr.Live, remote: hr.Remote) -> None:
    chat = {tool["function"]["name"]: tool["function"] for tool in live.tools()}
    for form in FORMS:
        tools = live.tools(form)  # type: ignore[arg-type]  # each of them
        assert remote.tools(form) == tools  # type: ignore[arg-type]
        functions = [tool.get("function", tool) for tool in tools]
        assert [one["name"] for one in functions] == list(chat)
        for one in functions:
            schema = one.get("parameters") or one.get("input_schema") or one["inputSchema"]
            jsonschema.Draft202012Validator.check_schema(schema)
            assert strict(schema)
            assert one["description"] == chat[one["name"]]["description"]
            assert form == "mcp" or one["strict"] is True
    assert {tool["type"] for tool in live.tools("responses")} == {"function"}


def test_a_form_that_there_is_not_is_said(live: hr.Live, http: httpx.Client) -> None:
    with pytest.raises(InputError, match="did you mean 'responses'"):
        live.tools("response")  # type: ignore[arg-type]
    answer = http.get("/v1/tools", params={"form": "openai"})
    assert answer.status_code == 400
    assert "chat, responses, anthropic, mcp" in answer.json()["detail"]
    assert http.get("/v1/tools", params={"from": "mcp"}).status_code == 400


def test_what_a_tool_answers_is_what_its_mcp_definition_says(live: hr.Live, paid: hr.Token, rules: hr.Live) -> None:
    for opened, name, arguments in (
        (live, "spending", {"user_id": "u1"}),
        (live, "spending", {"user_id": "nobody"}),
        (live, "route", {"origin": "JFK", "flight": 1}),
        (rules, "library", {"query": "gate", "k": None}),
    ):
        schema = next(tool for tool in opened.tools("mcp") if tool["name"] == name)["outputSchema"]
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(opened.call(name, arguments), schema)


def test_a_call_past_its_time_is_told_to_the_model_and_nothing_is_left(rules: hr.Live, gate: Gate) -> None:
    gate.open.clear()
    with pytest.raises(StaleError, match=r"library: expected an answer within 0\.05 s.*say that it could not"):
        rules.call("library", {"query": "gate", "k": None}, timeout=0.05)
    assert rules.calls.inside == 1
    gate.open.set()
    assert rules.call("library", {"query": "gate", "k": None})["hits"]
    with pytest.raises(InputError, match="timeout"):
        rules.call("library", {"query": "gate", "k": None}, timeout=-1)


def test_over_http_a_call_past_its_time_is_a_504(rules: hr.Live, gate: Gate) -> None:
    with BackgroundServer(rules) as server, hr.connect(server.url) as remote:
        gate.open.clear()
        answer = httpx.post(server.url + "/v1/tools/library?timeout=50ms", json={"query": "gate", "k": None})
        assert answer.status_code == 504
        assert "expected an answer within 0.05 s" in answer.json()["detail"]
        with pytest.raises(StaleError):
            remote.call("library", {"query": "gate", "k": None}, timeout=0.05)
        gate.open.set()
        assert remote.call("library", {"query": "gate", "k": None})["hits"]


def test_calls_are_bounded_and_one_given_up_in_the_queue_leaves_it() -> None:
    calls = Calls(threads=1, queued=1)
    shut = threading.Event()
    first = calls.submit(lambda: {"done": shut.wait(30)})
    second = calls.submit(dict)
    with pytest.raises(ProblemError, match="fewer than 2"):
        calls.submit(dict)
    assert second.cancel()
    third = calls.submit(dict)
    shut.set()
    assert first.result(30) == {"done": True}
    assert third.result(30) == {}
    calls.close()
    with pytest.raises(hr.ClosedError):
        calls.submit(dict)
    assert calls.inside == 0


def test_the_end_of_an_app_ends_the_threads_of_its_tools(rules: hr.Live) -> None:
    before = set(threading.enumerate())  # other tests share apps of their own
    rules.call("library", {"query": "gate", "k": None})
    threads = [one for one in set(threading.enumerate()) - before if one.name.startswith("headrace-tool")]
    assert threads
    rules.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_an_answer_that_is_too_long_is_shortened_and_says_so() -> None:
    hits = [{"text": "a" * 10_000, "title": str(number)} for number in range(20)]
    made = shortened({"hits": hits, "now": None})
    assert _size(made) <= MOST_BYTES
    assert made["hits"] == hits[: len(made["hits"])]
    assert f"{20 - len(made['hits'])} of hits" in made[NOTE]
    one = shortened({"hits": [{"text": "b" * 100_000}], "now": None})
    assert _size(one) <= MOST_BYTES
    assert one["hits"][0]["text"].startswith("bbb")
    assert "the end of hits.text" in one[NOTE]


values = st.recursive(
    st.text(max_size=300) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=60,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), values))
def test_whatever_is_shortened_keeps_its_form(answer: dict[str, Any]) -> None:
    made = shortened(answer, 2_000)
    assert set(answer) <= set(made)
    if _size(answer) <= 2_000:
        assert made == answer
    else:
        assert NOTE in made
        assert {name: type(value) for name, value in made.items() if name != NOTE} == {
            name: type(value) for name, value in answer.items()
        }
