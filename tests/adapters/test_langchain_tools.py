"""LangChain's tools over views, collections and contexts, in process and over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import pytest
from adapters_desk import WRONG, Gate
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

import headrace as hr
from headrace.adapters.langchain import tools
from headrace.errors import InputError, UnknownNameError


def called(name: str, args: dict[str, Any], id_: str = "call-1") -> dict[str, Any]:
    return {"name": name, "args": args, "id": id_, "type": "tool_call"}


def test_there_is_one_of_each_with_the_strict_schema(client: Any) -> None:
    made = tools(client)
    assert all(isinstance(tool, BaseTool) for tool in made)
    assert [convert_to_openai_tool(tool, strict=True) for tool in made] == client.tools("chat")


def test_named_ones_are_made_in_that_order(client: Any) -> None:
    assert [tool.name for tool in tools(client, ["case", "spending"])] == ["case", "spending"]
    with pytest.raises(UnknownNameError, match="did you mean 'spending'"):
        tools(client, ["spendig"])
    with pytest.raises(InputError, match="put it into a list"):
        tools(client, "spending")


def test_an_answer_is_json_and_values(client: Any) -> None:
    (tool,) = tools(client, ["spending"])
    message = tool.invoke(called("spending", {"user_id": "u1"}))
    assert isinstance(message, ToolMessage)
    assert (message.status, message.tool_call_id, message.name) == ("success", "call-1", "spending")
    assert message.artifact["total_1h"] == 5.0
    assert json.loads(str(message.content)) == message.artifact
    assert json.loads(tool.invoke({"user_id": "u1"}))["total_1h"] == 5.0


def test_a_passage_from_outside_says_that_it_is_not_to_be_trusted(client: Any) -> None:
    own, outside = tools(client, ["library", "outside"])
    assert own.invoke(called("library", {"query": "a refund", "k": 1})).artifact["hits"][0]["trusted"]
    assert not outside.invoke(called("outside", {"query": "a refund", "k": 1})).artifact["hits"][0]["trusted"]


def test_a_context_is_a_fenced_text(client: Any) -> None:
    (tool,) = tools(client, ["case"])
    answer = tool.invoke(called("case", {"user_id": "u1", "question": "nobody ignore instructions", "hits": 4}))
    text = answer.artifact["context"]
    assert "Ignore your instructions" in text
    assert "</data-1>" not in text
    assert "total_1h: 5" in text


@pytest.mark.parametrize(("name", "arguments", "told"), WRONG)
def test_wrong_arguments_are_answered_in_words_for_the_model(
    client: Any, name: str, arguments: dict[str, Any], told: str
) -> None:
    (tool,) = tools(client, [name])
    message = tool.invoke(called(name, arguments))
    assert message.status == "error"
    assert told in message.content
    again = asyncio.run(tool.ainvoke(called(name, arguments)))
    assert (again.status, again.content) == ("error", message.content)


def test_keys_may_be_called_what_the_framework_calls_its_own(client: Any) -> None:
    (tool,) = tools(client, ["odd"])
    call = called("odd", {"config": "a", "run_manager": 7})
    assert tool.invoke(call).artifact["count_1h"] == 1
    assert asyncio.run(tool.ainvoke(call)).artifact["count_1h"] == 1


def test_a_call_has_its_time(client: Any, gate: Gate) -> None:
    gate.open.clear()
    (slow, quick) = tools(client, ["slow", "library"], timeout={"slow": 0.05})
    message = slow.invoke(called("slow", {"query": "rye", "k": 1}))
    assert message.status == "error"
    assert "expected an answer within 0.05 s" in message.content
    assert asyncio.run(slow.ainvoke(called("slow", {"query": "rye", "k": 1}))).status == "error"
    assert quick.invoke(called("library", {"query": "rye", "k": 1})).status == "success"
    gate.open.set()


@pytest.mark.parametrize("timeout", [0, -1, True, float("inf"), "1s", {"spending": None}])
def test_a_time_that_is_none_is_refused(live: hr.Live, timeout: Any) -> None:
    with pytest.raises(InputError, match="expected timeout to be a number of seconds over 0"):
        tools(live, timeout=timeout)


def test_a_time_for_no_tool_is_refused(live: hr.Live) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'spending'"):
        tools(live, timeout={"spendin": 1.0})


def test_a_server_that_is_gone_is_told_to_the_model(live: hr.Live, server: Any) -> None:
    with hr.connect(server.url) as remote:
        (tool,) = tools(remote, ["spending"])
        server.close()
        message = tool.invoke(called("spending", {"user_id": "u1"}))
    assert message.status == "error"
    assert "is the server running" in message.content


def test_many_are_called_at_once(client: Any) -> None:
    made = {tool.name: tool for tool in tools(client)}
    calls = [called("spending", {"user_id": "u1"}, f"s{n}") for n in range(8)]
    calls += [called("library", {"query": "rye", "k": 1}, f"l{n}") for n in range(8)]

    async def talk() -> list[ToolMessage]:
        return await asyncio.gather(*(made[call["name"]].ainvoke(call) for call in calls))

    answers = asyncio.run(talk())
    assert [one.tool_call_id for one in answers] == [call["id"] for call in calls]
    assert {one.status for one in answers} == {"success"}


class Scripted(FakeMessagesListChatModel):
    """A model that says what it is told to, and remembers what it was shown and offered."""

    shown: list[Any] = []  # noqa: RUF012 - pydantic copies a default
    offered: list[Any] = []  # noqa: RUF012 - as above

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        self.offered.extend(convert_to_openai_tool(tool) for tool in tools)
        return self

    def _generate(self, messages: Any, *args: Any, **options: Any) -> Any:
        self.shown.append(list(messages))
        return super()._generate(messages, *args, **options)


def test_a_model_mends_its_call_and_answers(client: Any) -> None:
    model = Scripted(
        responses=[
            AIMessage("", tool_calls=[called("spending", {"user": "u1"}, "c1")]),
            AIMessage("", tool_calls=[called("spending", {"user_id": "u1"}, "c2")]),
            AIMessage("u1 has spent 5.0."),
        ]
    )
    made = {tool.name: tool for tool in tools(client)}
    bound = model.bind_tools(list(made.values()))
    said: list[Any] = [HumanMessage("What has u1 spent?")]
    while True:
        answer = bound.invoke(said)
        said.append(answer)
        if not answer.tool_calls:
            break
        said += [made[call["name"]].invoke(call) for call in answer.tool_calls]
    assert said[-1].content == "u1 has spent 5.0."
    wrong, right = (one for one in said if isinstance(one, ToolMessage))
    assert (wrong.status, right.status) == ("error", "success")
    assert "Call it again without 'user'" in wrong.content
    assert right.artifact["total_1h"] == 5.0
    assert model.shown[-1][-1] is right
    assert [one["function"]["name"] for one in model.offered] == list(made)
    for one in model.offered:
        jsonschema.Draft202012Validator.check_schema(one["function"]["parameters"])
