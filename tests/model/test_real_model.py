"""The chat endpoint before a small real model, asked by OpenAI's own client. What the model says is not looked at."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema
import openai
import pytest

from headrace.demo.model import NAME, SmallModel

pytestmark = pytest.mark.services

ASKED: Any = [{"role": "user", "content": "How many clicks has the page home?"}]
# The same words each time.
SAME: Any = {"model": NAME, "temperature": 0, "seed": 1}
# An answer goes on, whatever it says.
LONG: Any = SAME | {"stop": ["<end>"], "extra_body": {"ignore_eos": True}}
ABOUT: Any = {"headrace": {"context": "about", "arguments": {"page": "home"}}}
# Where it would call again, this ends it.
ONE_CALL = "\n<tool_call>"
PATIENCE = 300.0


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=PATIENCE)


def until(found: Callable[[], bool]) -> bool:
    ends, pause = time.monotonic() + PATIENCE, threading.Event()
    while not (true := found()) and time.monotonic() < ends:
        pause.wait(0.02)
    return true


def busy(model: SmallModel) -> int:
    """How many places of a server are taken."""
    slots = httpx.get(model.url.removesuffix("/v1") + "/slots", timeout=PATIENCE).json()
    return sum(one["is_processing"] for one in slots)


def test_an_answer_in_one_piece(model: SmallModel, serve: Callable[..., str]) -> None:
    with client(serve(model, tools=False)) as one:
        answer = one.chat.completions.create(messages=ASKED, max_tokens=24, extra_body=ABOUT, **SAME)
    choice, told = answer.choices[0], answer.headrace
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 50  # the context is in it
    assert 0 < answer.usage.completion_tokens <= 24
    assert told["pack"]
    assert "usage_doubted" not in told
    assert [found["document"] for found in told["citations"]][1:] == ["traffic/home"]


def test_an_answer_as_a_stream(model: SmallModel, serve: Callable[..., str]) -> None:
    with client(serve(model, tools=False)) as one:
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(one.chat.completions.create(messages=ASKED, max_tokens=24, extra_body=ABOUT, **options, **SAME))
        whole = one.chat.completions.create(messages=ASKED, max_tokens=24, extra_body=ABOUT, **SAME)
    said = [part.choices[0].delta.content for part in chunks if part.choices and part.choices[0].delta.content]
    ends = [part.choices[0].finish_reason for part in chunks if part.choices and part.choices[0].finish_reason]
    last = chunks[-1]
    assert len(said) > 1
    assert ends == [whole.choices[0].finish_reason]
    assert last.usage is not None
    assert last.usage.prompt_tokens > 50
    assert last.headrace["pack"]
    assert [found["n"] for found in last.headrace["citations"]] == [1, 2]
    assert len({part.id for part in chunks}) == 1


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "page": {"type": "string", "enum": ["home", "away"]},
        "clicks": {"type": "integer", "minimum": 0, "maximum": 999},
        "odd": {"type": "boolean"},
    },
    "required": ["page", "clicks", "odd"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(4))
def test_a_schema_holds(model: SmallModel, serve: Callable[..., str], seed: int) -> None:
    """Hot, so that only the schema keeps it to JSON."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "page", "strict": True, "schema": SCHEMA}}
    with client(serve(model, tools=False)) as one:
        answer = one.chat.completions.create(
            model=NAME, messages=ASKED, response_format=form, temperature=2, seed=seed, max_tokens=600
        )
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), SCHEMA)


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_runs_the_apps_tools(model: SmallModel, serve: Callable[..., str], stream: bool) -> None:
    """It must call, in the form of a tool's schema, and is then told what the tool answered."""
    with client(serve(model, rounds=1)) as one:
        asked: Any = {
            "messages": ASKED,
            "tool_choice": "required",
            "max_tokens": 100,
            "stop": ONE_CALL,
            "stream": stream,
        }
        found: Any = one.chat.completions.create(**asked, **SAME)
        if stream:
            chunks = list(found)
            said = "".join(part.choices[0].delta.content or "" for part in chunks if part.choices)
            told, end = chunks[-1].headrace, chunks[-1].choices[0].finish_reason
        else:
            said, told = found.choices[0].message.content, found.headrace
            end = found.choices[0].finish_reason
    # It may call again and again until its tokens are used up, which cuts the last call off.
    ran = told["tools"]
    assert ran
    assert {one["name"] for one in ran} <= {"traffic", "about"}
    assert [one for one in ran[:1] + ran[1:-1] if not one["ok"]] == []
    assert said
    assert end in ("stop", "length")


def test_the_clients_own_call_is_handed_back(model: SmallModel, serve: Callable[..., str]) -> None:
    book = {"type": "function", "function": {"name": "book", "parameters": SCHEMA}}
    with client(serve(model, tools=False)) as one:
        asked: Any = {
            "messages": ASKED,
            "tools": [book],
            "tool_choice": "required",
            "max_tokens": 200,
        }
        choice = one.chat.completions.create(**asked, **SAME).choices[0]
    found = [call.function for call in choice.message.tool_calls or [] if call.type == "function"]
    # It may call again and again until its tokens are used up, which cuts the last call off.
    assert {one.name for one in found} == {"book"}
    for one_call in found[:1] + found[1:-1]:
        jsonschema.validate(json.loads(one_call.arguments), SCHEMA)


class Streams:
    """Answers that are read in threads, and which of them have begun."""

    def __init__(self, url: str, threads: ThreadPoolExecutor) -> None:
        self._client, self._threads = client(url), threads
        self.begun: set[int] = set()
        self.read: dict[int, Future[str]] = {}

    def ask(self, number: int, tokens: int) -> None:
        self.read[number] = self._threads.submit(self._read, number, tokens)

    def _read(self, number: int, tokens: int) -> str:
        messages: Any = [{"role": "user", "content": f"Count from {number}."}]
        said = ""
        for part in self._client.chat.completions.create(messages=messages, max_tokens=tokens, stream=True, **LONG):
            said += part.choices[0].delta.content or ""
            if said:
                self.begun.add(number)
        return said


def test_killing_one_of_two_fails_nothing_that_had_not_begun(
    start: Callable[..., SmallModel], serve: Callable[..., str]
) -> None:
    doomed, other = start(), start()
    with ThreadPoolExecutor(8) as threads:
        url = serve(doomed, other, tools=False, wait="3m", time_limit="5m")
        streams = Streams(url, threads)
        for number in range(4):
            streams.ask(number, 200)
        # All places are taken, two of each server; the others wait.
        assert until(lambda: len(streams.begun) == 4)
        for number in range(4, 8):
            streams.ask(number, 8)
        begun = set(streams.begun)
        doomed.kill()
        wait(streams.read.values(), PATIENCE)
        errors = {number: one.exception(0) for number, one in streams.read.items() if one.exception(0) is not None}
    assert {number: str(one) for number, one in errors.items() if number not in begun} == {}
    assert errors
    assert all(isinstance(one, openai.APIError) and "expected" in str(one) for one in errors.values())
    assert all(one.result() for number, one in streams.read.items() if number not in errors)

    # It comes back at the same address, and is found to be well: then it answers alone.
    port = urlsplit(doomed.url).port
    start(port)
    other.kill()

    def answers() -> bool:
        body = SAME | {"messages": ASKED, "max_tokens": 4}
        return httpx.post(url + "/chat/completions", json=body, timeout=PATIENCE).status_code == 200

    assert until(answers)


def test_a_client_that_goes_away_frees_its_place(model: SmallModel, serve: Callable[..., str]) -> None:
    url = serve(model, tools=False, time_limit="5m")
    body = {"messages": ASKED, "stream": True, "max_tokens": 3_500, "ignore_eos": True, "stop": ["<end>"]}
    with httpx.stream("POST", url + "/chat/completions", json=SAME | body, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()  # kept: an iterator that goes closes its answer
        assert any("content" in line for line in lines)
        assert busy(model) == 1
    gone = time.monotonic()
    assert until(lambda: busy(model) == 0)
    # 3,500 tokens take longer than it takes to notice.
    with client(url) as one:
        assert one.chat.completions.create(messages=ASKED, max_tokens=4, **SAME).choices
    assert time.monotonic() - gone < PATIENCE
