"""examples/llm_twin: the app by pushes, what the watcher publishes, and its README's commands."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from twin import FOLDER, LIGHT, twin_module

import headrace as hr
from headrace.cli import export
from headrace.cli import parser as headrace_parser
from headrace.runners.library.snapshot import snapshot
from headrace.serving.export import Recipe
from headrace.serving.export import export as exported
from headrace.serving.server import BackgroundServer

watch, seed = twin_module("watch"), twin_module("seed")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> hr.App:
    for name, value in LIGHT.items():
        monkeypatch.setenv(name, value)
    made: hr.App = twin_module("app").app
    return made


@pytest.fixture
def live(app: hr.App, tmp_path: Path) -> Iterator[hr.Live]:
    """The app, with all that seed.py has."""
    with app.open(tmp_path / "data") as opened:
        token = opened.push("documents", seed.rows())
        assert token.rejected == []
        opened.search("twin", "ready", after=token)
        yield opened


# -- app.py ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "kind", "document"),
    [
        ("How would you delete one customer from your vector index?", "post", "post-3"),
        ("when may a message be acknowledged", "article", "article-1"),
        ("exponential backoff with full jitter", "code", "code-1"),
    ],
)
def test_each_type_is_found(live: hr.Live, question: str, kind: str, document: str) -> None:
    hit = live.search("twin", question, k=1)[0]
    assert (hit.kind, hit.document) == (kind, document)


def test_posts_are_cleaned_and_code_is_left_alone(live: hr.Live) -> None:
    hits = live.search("twin", "backfills are not a side quest", k=3, where={"type": "post"})
    post = next(hit for hit in hits if hit.document == "post-1")
    assert post.text.strip().startswith("Backfills are not a side quest.")
    assert "utm_source" not in post.text
    assert "👉" not in post.text
    code = live.search("twin", "def backoff", k=1, where={"type": "code"})[0]
    assert code.text in seed.CODE["code-1"][2]


def test_a_file_is_found_by_its_path(live: hr.Live) -> None:
    assert live.search("twin", "mara/backfill/window.py", k=1)[0].document == "code-2"


def test_each_type_is_cut_in_its_own_way(live: hr.Live) -> None:
    handlers = live.app.collections["twin"].handlers.by_kind
    assert {kind: handler.chunking.tokens for kind, handler in handlers.items()} == {
        "post": 128,
        "article": 256,
        "code": 256,
    }
    article = live.search("twin", "random id per attempt", k=1, where={"type": "article"})[0]
    assert article.headings[0] == "Exactly once is a property of the whole"


def test_an_edit_replaces_and_a_delete_removes(live: hr.Live) -> None:
    row = next(row for row in seed.rows() if row["id"] == "post-2")
    token = live.push("documents", [row | {"text": "Dashboards want fresh numbers after all."}])
    hits = live.search("twin", "dashboards", where={"type": "post"}, after=token)
    assert [hit.text for hit in hits if hit.document == "post-2"] == ["Dashboards want fresh numbers after all."]
    token = live.delete("documents", ["post-2"])
    assert "post-2" not in {hit.document for hit in live.search("twin", "dashboards", k=20, after=token)}


def test_code_may_have_an_embedder_and_an_index_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**LIGHT, "HEADRACE_TWIN_EMBED_CODE": "hash:64"}.items():
        monkeypatch.setenv(name, value)
    app = twin_module("app").app
    assert app.collections["twin"].embedders()["code"] == "hash:64"


def test_the_two_snapshots(live: hr.Live, app: hr.App, tmp_path: Path) -> None:
    data = tmp_path / "data"
    documents = snapshot(app, data, app.collections["twin"], tmp_path / "documents", what="documents")
    chunks = snapshot(app, data, app.collections["twin"], tmp_path / "chunks", what="chunks")
    assert (documents.rows, documents.version) == (len(seed.rows()), chunks.version)
    assert chunks.rows == live.stats().collections["twin"].chunks
    made = exported(app, data, "twin", tmp_path / "dataset", Recipe(test=0.2, least=4))
    assert sum(made.examples.values()) >= 5


# -- seed.py -----------------------------------------------------------------------------------------------------------


def test_the_seed_goes_into_a_running_app(app: hr.App, capsys: pytest.CaptureFixture[str]) -> None:
    with app.open() as opened, BackgroundServer(opened) as server:
        assert seed.main(["--push", server.url]) == 0
        assert seed.main(["--push", server.url, "--edit", "post-2", "I was wrong."]) == 0
        assert seed.main(["--push", server.url, "--delete", "post-3"]) == 0
        opened.drain(10)
        assert opened.stats().tables["documents"].rows == len(seed.rows()) - 1
        assert "I was wrong." in {hit.text for hit in opened.search("twin", "wrong", k=3)}
    said = capsys.readouterr().out.splitlines()
    assert said == ["7 documents pushed", "1 documents pushed", "post-3 deleted"]


def test_without_a_server_the_seed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert seed.main(["--push", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9" in capsys.readouterr().err


# -- watch.py ----------------------------------------------------------------------------------------------------------

TIME = Timestamp(1_790_000_000, 7)


def event(operation: str, **more: Any) -> dict[str, Any]:
    return {"operationType": operation, "clusterTime": TIME, "documentKey": {"_id": "a"}, "_id": {}} | more


def test_an_update_is_published_whole() -> None:
    document = {"_id": ObjectId("0" * 24), "text": "é", "published": datetime(2026, 1, 2, tzinfo=UTC)}
    told = json.loads(watch.body(watch.change_of(event("update", fullDocument=document))))
    row = {"id": "0" * 24, "text": "é", "published": "2026-01-02T00:00:00+00:00"}
    at = 1_790_000_000_000_000
    version = 1_790_000_000 << 32 | 7
    assert told == {"op": "upsert", "key": "0" * 24, "row": row, "version": version, "at": at}


@pytest.mark.parametrize("operation", ["delete", "update"])
def test_what_is_gone_is_published_as_a_delete(operation: str) -> None:
    told = watch.change_of(event(operation, fullDocument=None))
    assert (told["op"], told["key"]) == ("delete", "a")


def test_what_changes_no_document_is_not_published() -> None:
    assert watch.change_of(event("drop")) is None


def test_versions_grow_with_time() -> None:
    times = [Timestamp(5, 2), Timestamp(5, 1 << 31), Timestamp(6, 0)]
    assert sorted(times) == sorted(times, key=watch.version_of)


def test_the_state_remembers_what_was_confirmed(tmp_path: Path) -> None:
    state = watch.State(str(tmp_path / "state"))
    changes = [{"op": "upsert", "key": "a"}, {"op": "upsert", "key": "b"}, {"op": "delete", "key": "a"}]
    state.store(changes, {"_data": "82"})
    state.close()
    again = watch.State(str(tmp_path / "state"))
    assert (again.token(), list(again.keys())) == ({"_data": "82"}, ["b"])
    again.forget()
    assert (again.token(), list(again.keys())) == (None, ["b"])
    again.close()


# -- README.md ---------------------------------------------------------------------------------------------------------


def commands() -> list[list[str]]:
    """Each command of the README's blocks, as words, without the variables before it and the `&` after it."""
    text = (FOLDER / "README.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[word for word in line if word != "&" and not re.match(r"[A-Z_]+=", word)] for line in words]


def export_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    export.add(made.add_subparsers(), lambda command, about, more: command)
    return made


@pytest.mark.parametrize("line", commands(), ids=" ".join)
def test_the_readmes_commands_are_ones(line: list[str]) -> None:
    if line[0] == "python":
        {"watch.py": watch, "seed.py": seed}[line[1]].parser().parse_args(line[2:])
    elif line[:2] == ["headrace", "export"]:
        assert export_parser().parse_args(line[1:]).app == "app:app"
    elif line[0] == "headrace":
        assert headrace_parser().parse_args(line[1:]).app == "app:app"
    else:
        assert line[0] in ("curl", "docker")


def test_the_readmes_searches_are_answered(live: hr.Live) -> None:
    import httpx

    lines = [line for line in commands() if line[0] == "curl"]
    with BackgroundServer(live) as server:
        for line in lines:
            url = next(word for word in line if word.startswith("http")).replace("http://127.0.0.1:8900", server.url)
            answer = httpx.post(url, content=line[line.index("-d") + 1])
            assert answer.json()["hits"], line
    assert lines


def test_the_readmes_urls_are_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a queue and of a database, here and elsewhere: they are taken, without a server."""
    text = (FOLDER / "README.md").read_text()
    monkeypatch.setenv("USER", "twin")
    monkeypatch.setenv("PASSWORD", "secret")
    found = [*re.findall(r"(?:rabbitmq|mongodb)://[^\s`\"]+\?[^\s`\"]+", text), twin_module("app").QUEUE]
    for url in found:
        hr.registry.create("table", url)
    assert len(found) == 3
