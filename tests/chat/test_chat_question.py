"""A context's question is the user's newest message unless the client says another, so any OpenAI client will do."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from chatting import client
from scripted_upstream import ScriptedUpstream, text

import headrace as hr
from headrace.runners.library.search import MOST_QUESTION
from headrace.serving.server import BackgroundServer

PARTS = [
    {"type": "text", "text": "What is"},
    {"type": "image_url", "image_url": {"url": "x:"}},
    {"type": "text", "text": "rye?"},
]


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (" When is rye milled? ", {}, "When is rye milled?"),
        (PARTS, {}, "What is\nrye?"),
        ("When is rye milled?", {"question": "rye"}, "rye"),
        ("x" * MOST_QUESTION + "rye?", {}, "x" * (MOST_QUESTION - 4) + "rye?"),
    ],
)
def test_the_question_is_the_newest_message(content: Any, arguments: dict[str, Any], expected: str) -> None:
    asked: list[str] = []
    app = hr.App("mill")

    @app.context(budget=100_000)
    def briefing(question: str) -> Any:
        """What is known."""
        asked.append(question)
        yield hr.text("Answer in one sentence.", trusted=True)

    with ScriptedUpstream(text("On Tuesdays.")) as upstream:
        app.chat(upstreams=[upstream.url], context=briefing)
        with app.open() as live, BackgroundServer(live) as server, client(server.url + "/v1") as one:
            before = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]
            messages: Any = [*before, {"role": "user", "content": content}, {"role": "assistant", "content": "Well:"}]
            answer = one.chat.completions.create(
                model="m", messages=messages, extra_body={"headrace": {"arguments": arguments}}
            )
    assert answer.choices[0].message.content == "On Tuesdays."
    assert asked == [expected]


@pytest.mark.parametrize("content", ["", None, 5, [{"type": "text"}]])
def test_without_a_text_the_argument_is_asked_for(content: Any) -> None:
    app = hr.App("mill")

    @app.context(budget=500)
    def briefing(question: str) -> Any:
        """What is known."""
        yield hr.text(question)

    with ScriptedUpstream(text("x")) as upstream:
        app.chat(upstreams=[upstream.url], context=briefing)
        with app.open() as live, BackgroundServer(live) as server:
            found = httpx.post(
                server.url + "/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]}
            )
    assert found.status_code == 400
    assert "expected the argument 'question'" in found.json()["error"]["message"]


def test_a_question_that_is_no_text_is_left_alone() -> None:
    asked: list[int] = []
    app = hr.App("mill")

    @app.context(budget=500)
    def briefing(question: int = 3) -> Any:
        """What is known."""
        asked.append(question)
        yield hr.text("x")

    with ScriptedUpstream(text("x")) as upstream:
        app.chat(upstreams=[upstream.url], context=briefing)
        with app.open() as live, BackgroundServer(live) as server:
            body = {"messages": [{"role": "user", "content": "Hello."}]}
            assert httpx.post(server.url + "/v1/chat/completions", json=body).status_code == 200
    assert asked == [3]
