"""LangChain's chat history over a memory, in process and over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from headrace.adapters.langchain import HeadraceChatHistory
from headrace.errors import InputError


def test_what_is_added_is_there_at_once_in_its_order(client: Any) -> None:
    history = HeadraceChatHistory(client, "chat", "s1")
    history.add_messages([SystemMessage("Be short."), HumanMessage("What is rye?"), AIMessage("A grain.")])
    history.add_user_message("And barley?")
    assert [(one.type, one.content) for one in history.messages] == [
        ("system", "Be short."),
        ("human", "What is rye?"),
        ("ai", "A grain."),
        ("human", "And barley?"),
    ]
    assert HeadraceChatHistory(client, "chat", "s2").messages == []
    assert [one.content for one in HeadraceChatHistory(client, "chat", "s1", turns=1).messages] == ["And barley?"]


def test_a_message_with_an_id_is_stored_once(client: Any) -> None:
    history = HeadraceChatHistory(client, "chat", "s1")
    history.add_messages([HumanMessage("What is rye?", id="m1")])
    history.add_messages([HumanMessage("What is rye?", id="m1"), AIMessage("A grain.", id="m2")])
    assert [one.id for one in history.messages] == ["m1", "m2"]


def test_tools_are_remembered_but_are_no_messages(client: Any) -> None:
    history = HeadraceChatHistory(client, "chat", "s1")
    call = {"name": "spending", "args": {"user_id": "u1"}, "id": "c1"}
    history.add_messages(
        [
            HumanMessage([{"type": "text", "text": "What has u1 spent?"}]),
            AIMessage("", tool_calls=[call]),
            ToolMessage('{"total_1h": 5.0}', tool_call_id="c1"),
            AIMessage("5.0 in an hour."),
        ]
    )
    assert [one.content for one in history.messages] == ["What has u1 spent?", "5.0 in an hour."]
    turns = client.recall("chat", "s1").turns
    assert [turn.role for turn in turns] == ["user", "tool", "assistant"]


def test_what_is_cleared_is_forgotten(client: Any) -> None:
    history = HeadraceChatHistory(client, "chat", "s1", subject="ann")
    history.add_messages([HumanMessage("What is rye?")])
    history.clear()
    assert history.messages == []
    history.add_messages([HumanMessage("What is barley?")])
    assert client.forget("chat", subject="ann") == 1
    assert history.messages == []


def test_it_is_used_from_an_event_loop(client: Any) -> None:
    history = HeadraceChatHistory(client, "chat", "s1")

    async def talk() -> tuple[list[str], list[Any]]:
        await history.aadd_messages([HumanMessage("What is rye?"), AIMessage("A grain.")])
        said = [str(one.content) for one in await history.aget_messages()]
        await history.aclear()
        return said, await history.aget_messages()

    assert asyncio.run(talk()) == (["What is rye?", "A grain."], [])


def test_a_message_that_is_nobodys_is_refused(client: Any) -> None:
    history = HeadraceChatHistory(client, "chat", "s1")
    with pytest.raises(InputError, match="found 'chat'"):
        history.add_messages([HumanMessage("What is rye?"), ChatMessage("x", role="critic")])
    assert history.messages == []
    history.add_messages([])
    assert history.messages == []
