"""Chat from the client: whole and streamed, with what an answer stands on, and with all that can go wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awaited import Awaited
from client_desk import served
from scripted_server import EVENTS, HOLD, ScriptedServer
from scripted_upstream import DIE, STALL, ScriptedUpstream, calls, text

import headrace as hr

MINUTE = 60.0
Connect = Callable[[str], Any]


@pytest.fixture(params=["threads", "loop"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    with contextlib.ExitStack() as made:

        def connect(url: str) -> Any:
            one = hr.connect(url) if request.param == "threads" else Awaited(url)
            made.callback(one.close)
            return one

        yield connect


def two_rounds(asked: dict[str, Any]) -> list[Any]:
    """Calls a tool of the app's, then answers."""
    told = any(one["role"] == "tool" for one in asked["messages"])
    return text("It is ", "5 [1].") if told else calls(("spending", {"user_id": "u1"}))


def first(stream: Any) -> str:
    """The first text of a stream."""
    return next(one.text for one in stream if one.text)


CASE = {"context": "case", "arguments": {"user_id": "u1"}, "budget": 300}


def stands_on_the_case(answer: hr.ChatAnswer, remote: Any) -> None:
    assert type(answer) is hr.ChatAnswer
    assert (answer.text, answer.finish_reason, answer.model) == ("It is 5 [1].", "stop", "scripted")
    assert [(one.name, one.ok, one.error) for one in answer.tools] == [("spending", True, "")]
    assert all(type(one) is hr.Citation for one in answer.citations)
    assert "n1" in [one.document for one in answer.citations]
    assert [one.n for one in answer.citations] == list(range(1, len(answer.citations) + 1))
    assert answer.usage["completion_tokens"] == 10
    assert answer.pack is not None
    assert remote.pack(answer.pack).id == answer.pack


def test_an_answer_in_one_piece(connect: Connect) -> None:
    with ScriptedUpstream(two_rounds) as upstream, served(upstream) as url:
        remote = connect(url)
        answer = remote.chat("Is it large?", model="scripted", temperature=0, **CASE)
        stands_on_the_case(answer, remote)
        assert (upstream.requests[0]["temperature"], upstream.requests[0]["model"]) == (0, "scripted")
        assert upstream.requests[0]["messages"][-1] == {"role": "user", "content": "Is it large?"}


def test_an_answer_as_it_is_written(connect: Connect) -> None:
    with ScriptedUpstream(two_rounds) as upstream, served(upstream) as url:
        remote = connect(url)
        with remote.chat([{"role": "user", "content": "Is it large?"}], stream=True, **CASE) as stream:
            chunks = list(stream)
            assert all(type(one) is hr.ChatChunk for one in chunks)
            assert [one.text for one in chunks if one.text] == ["It is ", "5 [1]."]
            assert chunks[-1].raw["headrace"]["pack"] == stream.answer.pack
            stands_on_the_case(stream.answer, remote)


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_the_clients_own_tools_come_back(connect: Connect, stream: bool) -> None:
    book = {"type": "function", "function": {"name": "book", "parameters": {"type": "object", "properties": {}}}}
    with ScriptedUpstream(calls(("book", {"day": "Monday"}))) as upstream, served(upstream) as url:
        found = connect(url).chat("Book it", tools=[book], stream=stream)
        if stream:
            list(found)
        answer = found.answer if stream else found
        assert [one["function"] for one in answer.tool_calls] == [{"name": "book", "arguments": '{"day": "Monday"}'}]
        assert (answer.finish_reason, answer.pack, answer.citations) == ("tool_calls", None, [])


def test_a_stream_that_is_closed_early_ends_the_models_work(connect: Connect) -> None:
    with ScriptedUpstream([*text("It is ")[:2], STALL]) as upstream, served(upstream) as url:
        remote = connect(url)
        with remote.chat("Is it large?", stream=True) as stream:
            assert first(stream) == "It is "
            assert upstream.stalled.wait(MINUTE)
        assert upstream.gone.wait(MINUTE)
        assert list(stream) == []
        assert stream.answer.text == "It is "


def test_the_end_of_the_client_ends_its_streams() -> None:
    with ScriptedUpstream([*text("It is ")[:2], STALL]) as upstream, served(upstream) as url:
        with hr.connect(url) as remote:
            stream = remote.chat("Is it large?", stream=True)
            assert first(stream) == "It is "
        assert upstream.gone.wait(MINUTE)
        assert list(stream) == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "words", "asked"),
    [
        (hr.UnknownNameError, "did you mean 'case'", {"context": "cases"}),
        (hr.InputError, "user_id", {"context": "case"}),
        (hr.InputError, "expected 1, found 2", {"n": 2}),
        (hr.InputError, "which are made here", {"headrace": {}}),
        (hr.InputError, "JSON", {"arguments": {"user_id": {1, 2}.union}, "context": "case"}),
    ],
)
def test_what_cannot_be_asked_is_raised_as_in_the_server(
    connect: Connect, stream: bool, error: type[Exception], words: str, asked: dict[str, Any]
) -> None:
    with ScriptedUpstream(text("hello")) as upstream, served(upstream) as url:
        with pytest.raises(error, match=words) as raised:
            connect(url).chat("Is it large?", stream=stream, **asked)
        assert type(raised.value) is error
        assert upstream.requests == []


def test_an_app_without_chat_says_so(connect: Connect, url: str) -> None:
    with pytest.raises(hr.UnknownNameError, match=r"declare app\.chat"):
        connect(url).chat("hello")


def test_a_model_server_that_refuses_is_a_remote_error_with_its_status(connect: Connect) -> None:
    with ScriptedUpstream([(400, {})]) as upstream, served(upstream) as url:
        with pytest.raises(hr.RemoteError) as raised:
            connect(url).chat("hello")
        assert raised.value.status == 400


def test_a_model_server_that_dies_in_the_middle_is_raised_there(connect: Connect) -> None:
    with ScriptedUpstream([*text("It is ")[:2], DIE]) as upstream, served(upstream) as url:
        stream = connect(url).chat("Is it large?", stream=True)
        assert first(stream) == "It is "
        with pytest.raises(hr.RemoteError):
            next(stream)
        assert stream.answer.text == "It is "


CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"It is "}}]}\n\n'


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], "found its end"),
        ([b'data: {"choices":'], "found its end"),
        ([b"data: nonsense\n\n"], "expected a chat completion as JSON"),
        ([b'data: {"choices":[],"headrace":{"citations":7}}\n\n', b"data: [DONE]\n\n"], "its member headrace"),
    ],
)
def test_a_server_that_ends_or_errs_in_the_middle_is_a_remote_error(
    connect: Connect, steps: list[bytes], words: str
) -> None:
    with ScriptedServer([EVENTS + CHUNK, *steps]) as server:
        stream = connect(server.url).chat("hello", stream=True)
        with pytest.raises(hr.RemoteError, match=words):
            assert [one.text for one in stream] == ["It is ", ""] and stream.answer  # noqa: PT018


def test_a_server_that_says_nothing_more_is_a_remote_error() -> None:
    with ScriptedServer([EVENTS + CHUNK, HOLD]) as server, hr.connect(server.url, timeout=0.05) as remote:
        with pytest.raises(hr.RemoteError, match="found none"):
            list(remote.chat("hello", stream=True, timeout=0.0))
        assert server.gone.wait(MINUTE)
