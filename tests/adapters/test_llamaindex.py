"""LlamaIndex's retriever and tools, in process and over HTTP."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from adapters_desk import WRONG, Gate
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools.calling import acall_tool, call_tool_with_selection
from llama_index.core.tools.function_tool import FunctionTool

import headrace as hr
from headrace.adapters.llamaindex import HeadraceRetriever, tools
from headrace.errors import ConfigError, InputError, StaleError, UnknownNameError

ASKED = "who looks at a payment?"


def test_nodes_are_what_a_search_finds(client: Any) -> None:
    retriever = HeadraceRetriever(client, collection="library", k=3)
    found = retriever.retrieve(ASKED)
    hits = client.search("library", ASKED, k=3)
    assert isinstance(retriever, BaseRetriever)
    assert all(isinstance(one, NodeWithScore) and isinstance(one.node, TextNode) for one in found)
    assert [(one.node.node_id, one.node.get_content()) for one in found] == [(hit.chunk, hit.text) for hit in hits]
    assert [one.score for one in found] == pytest.approx([hit.score for hit in hits])


def test_a_node_knows_its_document_and_its_place_there(client: Any) -> None:
    (found,) = HeadraceRetriever(client, collection="library", k=1).retrieve(QueryBundle("when is rye milled?"))
    node = found.node
    assert node.ref_doc_id == "rye"
    assert (node.start_char_idx, node.end_char_idx) == (0, len(node.text))
    assert json.loads(json.dumps(node.metadata)) == node.metadata
    assert TextNode.from_json(node.to_json()).metadata == node.metadata


def test_a_model_is_shown_where_a_text_is_from_and_nothing_that_is_no_use_to_it(client: Any) -> None:
    (found,) = HeadraceRetriever(client, collection="outside", k=1).retrieve("refund")
    shown = found.node.get_content(MetadataMode.LLM)
    assert "trusted: False" in shown
    assert "age: " in shown
    assert "score" not in shown
    assert found.node.get_content(MetadataMode.EMBED) == found.node.text


def test_a_write_is_seen_with_its_token(client: Any) -> None:
    retriever = HeadraceRetriever(client, collection="library", k=10, where={"lang": "fr"})
    for round_ in range(5):
        token = client.push("note", {"id": "new", "lang": "fr", "body": f"Barley is milled in week {round_}."})
        (found,) = retriever.with_options(after=token).retrieve("barley")
        assert found.node.text == f"Barley is milled in week {round_}."
        gone = client.delete("note", ["new"])
        assert retriever.with_options(after=gone).retrieve("barley") == []


def test_a_context_gives_its_pack_item_by_item(client: Any) -> None:
    retriever = HeadraceRetriever(client, context="case", arguments={"user_id": "u1"}, budget=400)
    found = retriever.retrieve(ASKED)
    assert sorted(one.node.metadata["kind"] for one in found) == ["features", "passages", "passages", "text"]
    assert {one.node.ref_doc_id for one in found if one.node.metadata["kind"] == "passages"} == {
        hit.document for hit in client.search("library", ASKED, k=2)
    }
    assert [one.node.ref_doc_id for one in found if one.node.metadata["kind"] != "passages"] == [None, None]


def test_what_is_wrong_is_said(client: Any) -> None:
    with pytest.raises(ConfigError, match="found neither"):
        HeadraceRetriever(client)
    with pytest.raises(InputError, match="did you mean 'where'"):
        HeadraceRetriever(client, collection="library", wher={"lang": "de"})
    retriever = HeadraceRetriever(client, collection="library")
    with pytest.raises(ConfigError, match="max_age= does not go with a collection"):
        retriever.with_options(max_age="5s")
    with pytest.raises(UnknownNameError, match="did you mean 'library'"):
        retriever.with_options(collection="librery").retrieve(ASKED)
    with pytest.raises(InputError, match="user_id"):
        HeadraceRetriever(client, context="case").retrieve(ASKED)


def test_a_context_keeps_to_its_freshness(client: Any) -> None:
    strict = HeadraceRetriever(
        client, context="case", arguments={"user_id": "u1"}, max_age="1us", on_stale="refuse", timeout=5
    )
    client.push("payment", {"user_id": "u2", "amount": 1.0, "at": "2026-01-31T13:00:00Z"})
    client.drain(30)
    with pytest.raises(StaleError):
        strict.retrieve(ASKED)
    assert all(one.node.metadata["stale"] for one in strict.with_options(on_stale="flag").retrieve(ASKED))


def test_it_is_asked_from_an_event_loop_and_from_threads(client: Any) -> None:
    retriever = HeadraceRetriever(client, collection="library", k=2)
    in_a_context = HeadraceRetriever(client, context="case", arguments={"user_id": "u1"})

    async def talk() -> list[Any]:
        return await asyncio.gather(*(retriever.aretrieve(ASKED) for _ in range(12)), in_a_context.aretrieve(ASKED))

    *found, packed = asyncio.run(talk())
    assert [len(one) for one in found] == [2] * 12
    assert len(packed) == 4
    with ThreadPoolExecutor(8) as pool:
        assert [len(one) for one in pool.map(retriever.retrieve, [ASKED] * 12)] == [2] * 12


def test_there_is_a_tool_of_each_with_the_strict_schema(client: Any) -> None:
    made = tools(client)
    assert all(isinstance(tool, FunctionTool) for tool in made)
    for tool, definition in zip(made, client.tools("chat"), strict=True):
        offered = tool.metadata.to_openai_tool()["function"]
        assert offered == {name: definition["function"][name] for name in ("name", "description", "parameters")}
        assert json.loads(tool.metadata.fn_schema_str) == definition["function"]["parameters"]
        jsonschema.Draft202012Validator.check_schema(offered["parameters"])


def test_named_ones_are_made_in_that_order(client: Any) -> None:
    assert [tool.metadata.name for tool in tools(client, ["case", "spending"])] == ["case", "spending"]
    with pytest.raises(UnknownNameError, match="did you mean 'spending'"):
        tools(client, ["spendig"])


def test_an_answer_is_json_and_values(client: Any) -> None:
    (tool,) = tools(client, ["spending"])
    output = tool(user_id="u1")
    assert (output.is_error, output.tool_name) == (False, "spending")
    assert output.raw_output["total_1h"] == 5.0
    assert json.loads(output.content) == output.raw_output
    assert tool("u1").raw_output["total_1h"] == 5.0
    assert asyncio.run(tool.acall(user_id="u1")).raw_output["total_1h"] == 5.0


@pytest.mark.parametrize(("name", "arguments", "told"), WRONG)
def test_wrong_arguments_are_answered_in_words_for_the_model(
    client: Any, name: str, arguments: dict[str, Any], told: str
) -> None:
    (tool,) = tools(client, [name])
    output = tool.call(**arguments)
    assert output.is_error
    assert told in output.content
    again = asyncio.run(tool.acall(**arguments))
    assert (again.is_error, again.content) == (True, output.content)
    assert isinstance(again.exception, InputError)


def test_the_framework_calls_it_as_a_model_chose(client: Any) -> None:
    made = tools(client)
    for name, arguments in (
        ("spending", {"user_id": "u1"}),
        ("odd", {"config": "a", "run_manager": 7}),
        ("library", {"query": "rye", "k": None}),
        ("case", {"user_id": "u1", "question": "rye?", "hits": 1}),
    ):
        chosen = ToolSelection(tool_id="c1", tool_name=name, tool_kwargs=arguments)
        output = call_tool_with_selection(chosen, made)
        assert (output.is_error, output.tool_name) == (False, name), output.content


def test_the_framework_hands_on_what_is_wrong(client: Any) -> None:
    (tool,) = tools(client, ["library"])
    output = asyncio.run(acall_tool(tool, {"query": "rye", "k": "two"}))
    assert output.is_error
    assert output.content.startswith("library: expected 'k' to be an integer or null")


def test_a_call_has_its_time(client: Any, gate: Gate) -> None:
    gate.open.clear()
    (slow,) = tools(client, ["slow"], timeout=0.05)
    for output in (slow.call(query="rye", k=1), asyncio.run(slow.acall(query="rye", k=1))):
        assert output.is_error
        assert "expected an answer within 0.05 s" in output.content
    gate.open.set()


def test_many_are_called_at_once(live: hr.Live) -> None:
    made = {tool.metadata.name: tool for tool in tools(live)}

    async def talk() -> list[Any]:
        return await asyncio.gather(
            *(made["spending"].acall(user_id="u1") for _ in range(8)),
            *(made["library"].acall(query="rye", k=1) for _ in range(8)),
        )

    assert {output.is_error for output in asyncio.run(talk())} == {False}
