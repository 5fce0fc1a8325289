"""LlamaIndex's own agent over the tools, with a scripted model: it calls wrongly, mends its call, and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM

from headrace.adapters.llamaindex import tools

# The agent's own: it looks at all of its attributes, Pydantic's old names among them.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")

CALLS: list[dict[str, Any]] = [{"user": "u1"}, {"user_id": "u1"}]


def test_an_agent_mends_its_call_and_answers(client: Any) -> None:
    shown: list[list[ChatMessage]] = []

    def script(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
        shown.append(list(messages))
        done = sum(one.role == MessageRole.TOOL for one in messages)
        if done == len(CALLS):
            return ChatMessage(role="assistant", content="u1 has spent 5.0.")
        call = ToolCallBlock(tool_call_id=f"c{done}", tool_name="spending", tool_kwargs=CALLS[done])
        return ChatMessage(role="assistant", blocks=[call])

    async def talk() -> Any:
        model = MockFunctionCallingLLM(response_generator=script, is_chat_model=True)
        agent = FunctionAgent(tools=tools(client), llm=model, streaming=False)
        return await agent.run(user_msg="What has u1 spent?")

    answer = asyncio.run(talk())
    assert str(answer) == "u1 has spent 5.0."
    assert [one.tool_output.is_error for one in answer.tool_calls] == [True, False]
    wrong, right = (str(one.content) for one in shown[-1] if one.role == MessageRole.TOOL)
    assert "Call it again without 'user'" in wrong
    assert '"total_1h":5.0' in right
