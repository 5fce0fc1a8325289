"""Tables and collections over HTTP, as tools, and from the client: the same as in process."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import jsonschema
import polars as pl
import pytest
from openapi_spec_validator import validate

import headrace as hr
from headrace.serving.live import Live
from headrace.serving.server import BackgroundServer


class Article(hr.Document):
    """A piece of news."""

    id: str
    title: str
    body: str
    lang: str = "en"


ROWS = [
    {"id": "a", "title": "Rockets", "body": "The launch slipped by a week.", "lang": "en"},
    {"id": "b", "title": "Ports", "body": "The harbour froze in January.", "lang": "de"},
]


@pytest.fixture(scope="module")
def news() -> Iterator[Live]:
    app = hr.App("newsroom")
    articles = app.table(Article)
    app.collection("library", articles, text=["title", "body"], embed="hash", index="memory:", about="The news.")
    with app.open() as live:
        yield live


@pytest.fixture(scope="module")
def address(news: Live) -> Iterator[str]:
    with BackgroundServer(news) as server:
        yield server.url


@pytest.fixture
def client(news: Live, address: str) -> Iterator[httpx.Client]:
    news.delete("article", ["a", "b", "x", "y", "z"])
    with httpx.Client(base_url=address) as made:
        yield made


def put(client: httpx.Client) -> str:
    answer = client.put("/v1/tables/article", json=ROWS)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 2)
    return answer.json()["token"]


def search(client: httpx.Client, **asked: object) -> list[dict]:
    answer = client.post("/v1/collections/library/search", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


def test_rows_are_put_found_and_deleted(client: httpx.Client) -> None:
    token = put(client)
    assert search(client, query="the launch slipped by a week", k=1, after=token)[0]["document"] == "a"
    answer = client.request("DELETE", "/v1/tables/article", json={"keys": ["a", "nobody"]})
    assert answer.json()["deleted"] == 2
    assert [hit["document"] for hit in search(client, query="launch", after=answer.json()["token"])] == ["b"]


def test_a_hit_says_where_it_is_from(client: httpx.Client) -> None:
    hit = search(client, query="harbour", where={"lang": "de"}, after=put(client))[0]
    assert set(hit) == {
        *("text", "score", "document", "chunk", "as_of", "age", "source", "title", "headings", "kind", "columns"),
        *("start", "end", "trusted"),
    }
    assert (hit["title"], hit["columns"]["lang"], hit["trusted"]) == ("Ports", "de", True)


def test_rejected_rows_are_named(client: httpx.Client) -> None:
    answer = client.put("/v1/tables/article", content=b'{"id": "x"}\n{"id": "y", "title": "t", "body": "b"}\nnonsense')
    assert (answer.json()["accepted"], [one["row"] for one in answer.json()["errors"]]) == (1, [0, 2])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/v1/collections/library/search", {"k": 5}, 400, "query"),
        ("POST", "/v1/collections/library/search", {"query": "x", "k": 0}, 400, "k from 1 to"),
        ("POST", "/v1/collections/library/search", {"query": "x", "where": {"nope": 1}}, 400, "nope"),
        ("POST", "/v1/collections/library/search", {"query": "x", "limit": 3}, 400, "limit"),
        ("POST", "/v1/collections/other/search", {"query": "x"}, 404, "other"),
        ("PUT", "/v1/tables/other", [], 404, "other"),
        ("PUT", "/v1/tables/article", "nonsense", 200, ""),
        ("DELETE", "/v1/tables/article", {}, 400, "keys"),
        ("DELETE", "/v1/tables/article", {"keys": [None]}, 400, "null"),
        ("PATCH", "/v1/tables/article", {}, 405, "PUT"),
    ],
)
def test_what_cannot_be_asked(client: httpx.Client, method, path, body, status, said) -> None:
    answer = client.request(method, path, json=body)
    assert (answer.status_code, said in answer.text) == (status, True)


def test_a_collection_is_a_tool(client: httpx.Client, news: Live) -> None:
    token = put(client)
    search(client, query="x", after=token)
    (tool,) = news.tools()
    assert tool["function"]["name"] == "library"
    assert tool["function"]["description"].startswith("The news.")
    jsonschema.Draft202012Validator.check_schema(tool["function"]["parameters"])
    answer = client.post("/v1/tools/library", json={"query": "launch", "k": 1}).json()
    assert [hit["document"] for hit in answer["hits"]] == ["a"]
    assert json.dumps(answer) == json.dumps(news.call("library", '{"query": "launch", "k": 1}')) or answer["now"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "query"),
        ({"query": 7}, "string"),
        ({"query": "x", "n": 1}, "only the arguments"),
        ({"query": "x", "k": "y"}, "k"),
    ],
)
def test_a_model_is_told_what_is_wrong(news: Live, arguments, said) -> None:
    with pytest.raises(hr.InputError, match=said):
        news.call("library", arguments)


def test_the_client_has_the_same_methods(client: httpx.Client, address: str) -> None:
    with hr.connect(address) as remote:
        token = remote.push("article", ROWS)
        found = remote.search("library", "harbour", k=1, where=pl.col("lang") == "de", after=token)
        assert [(hit.document, hit.trusted, hit.headings) for hit in found] == [("b", True, found[0].headings)]
        token = remote.delete(Article, ["b"])
        assert [hit.document for hit in remote.search("library", "harbour", after=token)] == ["a"]
        token = remote.push("article", pl.DataFrame(ROWS))
        assert (token.accepted, len(remote.search("library", "harbour", after=token))) == (2, 2)
        remote.delete("article", ["b"], erase=True)
        assert remote.push(Article, [{"id": "z"}]).rejected[0].row == 0
        assert remote.stats().collections["library"].documents == 1


def test_it_is_all_in_the_openapi_document(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    validate(document)
    assert {"/v1/tables/article", "/v1/collections/library/search", "/v1/tools/library"} <= set(document["paths"])


def test_figures_are_in_the_metrics(client: httpx.Client) -> None:
    search(client, query="x", after=put(client))
    text = client.get("/metrics").text
    assert 'headrace_collection_documents{collection="library"} 2.0' in text
    assert 'headrace_table_rows{table="article"} 2.0' in text
