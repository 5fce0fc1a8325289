"""LangChain's retriever over a collection and over a context, in process and over HTTP."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import polars as pl
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough

import headrace as hr
from headrace.adapters.langchain import HeadraceRetriever
from headrace.errors import ConfigError, InputError, StaleError, UnknownNameError

ASKED = "who looks at a payment?"


def test_documents_are_what_a_search_finds(client: Any) -> None:
    retriever = HeadraceRetriever(client=client, collection="library", k=3)
    found = retriever.invoke(ASKED)
    hits = client.search("library", ASKED, k=3)
    assert isinstance(retriever, BaseRetriever)
    assert [(one.id, one.page_content) for one in found] == [(hit.chunk, hit.text) for hit in hits]
    assert len(found) == 3


def test_metadata_says_where_a_document_is_from_and_how_old_it_is(client: Any) -> None:
    (found,) = HeadraceRetriever(client=client, collection="library", k=1).invoke("when is rye milled?")
    (hit,) = client.search("library", "when is rye milled?", k=1)
    said = found.metadata
    assert (said["document"], said["source"], said["lang"]) == ("rye", hit.source or "rye", "en")
    assert datetime.fromisoformat(said["as_of"]) == hit.as_of
    assert said["age"] >= 0
    assert said["score"] == pytest.approx(hit.score)
    assert said["trusted"] is hit.trusted is True
    assert json.loads(json.dumps(said)) == said


def test_what_came_from_outside_is_not_to_be_trusted(client: Any) -> None:
    (found,) = HeadraceRetriever(client=client, collection="outside").invoke("refund")
    assert (found.metadata["trusted"], found.metadata["document"]) == (False, "page.txt")


@pytest.mark.parametrize("where", [{"lang": "de"}, pl.col("lang") == "de"], ids=["dict", "expression"])
def test_a_condition_holds(client: Any, where: Any) -> None:
    found = HeadraceRetriever(client=client, collection="library", where=where).invoke(ASKED)
    assert [one.metadata["document"] for one in found] == ["evil"]


def test_options_can_be_set_anew_for_a_call(client: Any) -> None:
    retriever = HeadraceRetriever(client=client, collection="library", k=3)
    once = retriever.invoke(ASKED, None, k=1, where={"lang": "de"}, mode="words")
    assert [one.metadata["document"] for one in once] == ["evil"]
    assert len(retriever.invoke(ASKED)) == 3


def test_a_write_is_seen_with_its_token(client: Any) -> None:
    retriever = HeadraceRetriever(client=client, collection="library", k=10)
    for round_ in range(5):
        token = client.push("note", {"id": "new", "lang": "fr", "body": f"Barley is milled in week {round_}."})
        (found,) = retriever.invoke("barley", where={"lang": "fr"}, after=token)
        assert found.page_content == f"Barley is milled in week {round_}."
        gone = client.delete("note", ["new"])
        assert retriever.invoke("barley", where={"lang": "fr"}, after=gone) == []


def test_a_text_that_stays_keeps_its_id(client: Any) -> None:
    retriever = HeadraceRetriever(client=client, collection="library", where={"lang": "de"})
    (before,) = retriever.invoke(ASKED)
    token = client.push("note", {"id": "other", "lang": "en", "body": "Something else."})
    (after,) = retriever.invoke(ASKED, after=token)
    assert after.id == before.id


def test_a_context_gives_its_pack_item_by_item(client: Any) -> None:
    retriever = HeadraceRetriever(client=client, context="case", arguments={"user_id": "u1"}, budget=400)
    found = retriever.invoke(ASKED)
    kinds = [one.metadata["kind"] for one in found]
    assert sorted(kinds) == ["features", "passages", "passages", "text"]
    assert [one.metadata["trusted"] for one in found] == [kind != "passages" for kind in kinds]
    assert [one.metadata["citation"] for one in found] == [1, 2, 3, 4]
    row = found[kinds.index("features")]
    assert "total_1h: 5" in row.page_content
    assert row.metadata["source"] == "events of payment"
    hits = client.search("library", ASKED, k=2)
    assert [one.metadata["document"] for one in found if one.metadata["kind"] == "passages"] == [
        hit.document for hit in hits
    ]
    assert len({one.metadata["pack"] for one in found}) == 1


def test_a_context_keeps_to_its_freshness(client: Any) -> None:
    retriever = HeadraceRetriever(
        client=client, context="case", arguments={"user_id": "u1"}, max_age="1us", on_stale="refuse"
    )
    client.push("payment", {"user_id": "u2", "amount": 1.0, "at": "2026-01-31T13:00:00Z"})
    client.drain(30)
    with pytest.raises(StaleError):
        retriever.invoke(ASKED)
    flagged = retriever.invoke(ASKED, on_stale="flag")
    assert all(one.metadata["stale"] for one in flagged)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "found neither"),
        ({"collection": "library", "context": "case"}, "found both"),
        ({"collection": "library", "max_age": "5s"}, "max_age= does not go with a collection"),
        ({"collection": "library", "arguments": {"user_id": "u1"}}, "arguments= for a context only"),
        ({"context": "case", "k": 3, "where": {"lang": "de"}}, "k=, where= does not go with a context"),
        ({"context": "case", "arguments": {"question": "what?"}}, "expected 'question' to be the query"),
    ],
)
def test_options_that_do_not_go_together_are_refused_when_it_is_made(
    live: hr.Live, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        HeadraceRetriever(client=live, **options)


def test_what_is_wrong_is_said(client: Any) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'library'"):
        HeadraceRetriever(client=client, collection="librery").invoke(ASKED)
    with pytest.raises(InputError, match="did you mean 'where'"):
        HeadraceRetriever(client=client, collection="library").invoke(ASKED, wher={"lang": "de"})
    with pytest.raises(InputError, match="lang"):
        HeadraceRetriever(client=client, collection="library", where={"langg": "de"}).invoke(ASKED)
    with pytest.raises(InputError, match="user_id"):
        HeadraceRetriever(client=client, context="case").invoke(ASKED)


def test_it_is_asked_from_an_event_loop_and_many_at_once(client: Any) -> None:
    retriever = HeadraceRetriever(client=client, collection="library", k=2)
    in_a_context = HeadraceRetriever(client=client, context="case", arguments={"user_id": "u1"})

    async def talk() -> list[Any]:
        return await asyncio.gather(
            *(retriever.ainvoke(ASKED, None, k=1 + place % 2) for place in range(12)), in_a_context.ainvoke(ASKED)
        )

    *found, packed = asyncio.run(talk())
    assert [len(one) for one in found] == [1, 2] * 6
    assert len(packed) == 4


def test_it_is_asked_from_many_threads(client: Any) -> None:
    retriever = HeadraceRetriever(client=client, collection="library", k=1)
    questions = ["when is rye milled?", ASKED] * 10
    with ThreadPoolExecutor(8) as pool:
        found = [one[0].metadata["document"] for one in pool.map(retriever.invoke, questions)]
    assert found[::2] == ["rye"] * 10
    assert len(set(found[1::2])) == 1


def test_it_is_part_of_a_chain(live: hr.Live) -> None:
    retriever = HeadraceRetriever(client=live, collection="library", k=1)
    chain = {"found": retriever | (lambda found: found[0].page_content), "asked": RunnablePassthrough()} | (
        RunnablePassthrough() | (lambda given: f"{given['asked']} {given['found']}") | StrOutputParser()
    )
    assert chain.invoke("rye?") == f"rye? {live.search('library', 'rye?', k=1)[0].text}"


def test_what_is_shown_of_it_holds_no_client(live: hr.Live) -> None:
    retriever = HeadraceRetriever(client=live, collection="library")
    assert "client" not in repr(retriever)
    assert "client" not in retriever.model_dump()
