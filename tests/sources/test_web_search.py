"""The search source against a stand-in of the Brave Search API, as its documentation has it."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from web_site import Site

from headrace.document import TableSchema
from headrace.errors import ConfigError, StorageError
from headrace.files import Page
from headrace.sources.web_search import Hit, SearchSource
from headrace.testing.tables import PATIENCE, TableModel, batches

SCHEMA = TableSchema.of("pages", [Page], key="id")
KEY = "a-key-that-nobody-sees"


class Engine:
    """Answers `GET /res/v1/web/search` with 45 results, or with what a test says."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.found = [site.page(f"/page/{number}", f"text {number}") for number in range(45)]
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, list[str]]] = []
        self.paths: dict[str, Any] = {}
        for offset in range(10):
            for count in (2, 20):
                query = f"q=mill+wheels&count={count}&offset={offset}&result_filter=web"
                site.pages[f"/res/v1/web/search?{query}"] = self.answer

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        self.asked.append(query)
        status = self.status if handler.headers["X-Subscription-Token"] == KEY else 401
        count, offset = int(query["count"][0]), int(query["offset"][0])
        found = self.found[count * offset : count * (offset + 1)]
        results = [
            {
                "type": "search_result",
                "title": f"Title of {url}",
                "url": url,
                "description": "…",
                "page_age": "2026-01-02T03:04:05",
            }
            for url in found
        ]
        more = len(self.found) > count * (offset + 1)
        body = {"type": "search", "query": {"original": query["q"][0], "more_results_available": more}}
        body |= {"web": {"type": "search", "results": results}}
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("BRAVE_SEARCH_API_KEY", KEY)
    site = Site()
    yield Engine(site)
    site.close()


def source(site: Engine, /, **options: Any) -> SearchSource:
    endpoint = f"{site.site.url}/res/v1/web/search"
    quick = {"endpoint": endpoint, "allow_private": True, "delay": 0, "robots": False, "every": "10ms"}
    return SearchSource("search:?q=mill wheels", **(quick | options))


def read(source: SearchSource, model: TableModel, position: Any = None) -> Any:
    reader = source.open(position, SCHEMA)
    try:
        for batch in batches(reader):
            model.take(batch)
            position = batch.position
    finally:
        reader.close()
    return position


def test_pages_that_are_found_are_rows(engine: Engine) -> None:
    """As many as were asked for, over several pages of results; those that are found no more are deleted."""
    model = TableModel(SCHEMA)
    position = read(source(engine, k=30, every="1h"), model)
    assert sorted(model.rows) == sorted(engine.found[:30])
    row = model.rows[engine.found[0]].model_dump()
    assert (row["text"], str(row["published"])) == ("text 0", "2026-01-02 03:04:05+00:00")
    assert [query["offset"] for query in engine.asked] == [["0"], ["1"]]
    engine.found = engine.found[3:5]
    read(source(engine, k=2), model, position)
    assert sorted(model.rows) == sorted(engine.found)


def test_the_key_is_sent_to_the_engine_only(engine: Engine) -> None:
    model = TableModel(SCHEMA)
    position = read(source(engine, k=2), model)
    assert {path.startswith("/res/") for path, headers in engine.site.asked if "x-subscription-token" in headers} == {
        True
    }
    assert KEY not in json.dumps(position)
    assert KEY not in repr(source(engine)) + source(engine).name


@pytest.mark.parametrize(("status", "reason"), [(429, r"asked in 7 s"), (500, "status 500"), (422, "is the key in")])
def test_an_engine_that_does_not_answer_is_said(engine: Engine, status: int, reason: str) -> None:
    engine.status, engine.headers = status, {"X-RateLimit-Reset": "7, 1419704"}
    reader = source(engine, k=2).open(None, SCHEMA)
    try:
        with pytest.raises(StorageError, match=reason) as raised:
            reader.read(PATIENCE)
    finally:
        reader.close()
    assert KEY not in str(raised.value)


def test_an_engine_of_ones_own(engine: Engine) -> None:
    """Anything that searches."""

    class Mine:
        name = "mine"

        def search(self, query: str, k: int) -> list[Hit]:
            return [Hit(url) for url in ["no url", *engine.found]][:k]

    model = TableModel(SCHEMA)
    read(source(engine, engine=Mine(), k=3), model)
    assert sorted(model.rows) == sorted(engine.found[:2])


def test_what_cannot_be_searched_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRAVE_SEARCH_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="no BRAVE_SEARCH_API_KEY"):
        SearchSource("search:?q=x").open(None, SCHEMA)
    for url, message in {
        "search:?q=": "1 to 400",
        "search:?q=x&k=0": "k to be",
        "search:?q=x&feed=true": "no option",
    }.items():
        with pytest.raises(ConfigError, match=message):
            SearchSource(url)
