"""`headrace replay`: what a model saw is made again from what is kept, and compared with now."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from headrace.cli.main import main
from headrace.serving.server import BackgroundServer

APP = """
from datetime import datetime
import headrace as hr
from headrace.testing.clock import VirtualClock

class Payment(hr.Event):
    user_id: str
    amount: float
    at: datetime = hr.event_time()

class Article(hr.Document):
    id: str
    title: str
    body: str

clock = VirtualClock("2026-01-31T12:00:00Z")
app = hr.App("desk", clock=clock)
payments = app.stream(Payment)
articles = app.table(Article)
library = app.collection("library", articles, text=["title", "body"], embed="hash", index="memory:")

@app.features(payments, key="user_id")
class Spending:
    total_10m = hr.sum("amount", over="10m", every="1m")

@app.context(budget=800)
def support(user_id: str, question: str):
    yield Spending(user_id)
    yield library.search(question, k=2)
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "replayed_desk.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("replayed_desk", None)
    import replayed_desk  # type: ignore[import-not-found]  # written above

    with replayed_desk.app.open(tmp_path / "data") as live:
        live.push("payment", {"user_id": "u1", "amount": 5.0, "at": "2026-01-31T11:59:30Z"})
        live.push("article", {"id": "a", "title": "Refunds", "body": "A refund takes five days."})
        live.drain()
        pack = live.context("support", user_id="u1", question="how long does a refund take")
        live.packs.keep(pack)
        live.push("payment", {"user_id": "u1", "amount": 7.0, "at": "2026-01-31T11:59:50Z"})
        live.push("article", {"id": "a", "title": "Refunds", "body": "A refund takes two weeks now."})
        live.drain()
    found: str = pack.id
    return found


def test_what_the_model_saw_is_made_again_though_all_has_changed(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", kept, "replayed_desk:app", "--data", "data", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["rebuilt"]["same"]), found["rebuilt"]["other"], found["rebuilt"]["unknown"]) == (2, [], {})
    assert {one["what"] for one in found["now"]["changed"]} == {"value", "changed", "new passage"}
    assert found["now"]["not_compared"] == []


def test_it_is_shown_in_words(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", kept, "replayed_desk:app", "--data", "data"]) == 0
    text = capsys.readouterr().out
    assert "A refund takes five days." in text
    assert "as of then: 2 items made again, the same" in text
    assert "total_10m: 5.0 → 12.0" in text


def test_a_running_server_is_asked_and_the_output_is_the_same(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import replayed_desk

    for form in ((), ("--json",)):
        assert main(["replay", kept, "replayed_desk:app", "--data", "data", *form]) == 0
    opened = capsys.readouterr().out
    key = tmp_path / "key"
    key.write_text("a-key-of-the-server")
    key.chmod(0o600)
    with replayed_desk.app.open(tmp_path / "data") as live:
        live.drain()
        with BackgroundServer(live, api_key="a-key-of-the-server") as server:
            for form in ((), ("--json",)):
                assert main(["replay", kept, "--url", server.url, "--api-key-file", str(key), *form]) == 0
            assert capsys.readouterr().out == opened
            assert main(["replay", "pack_none", "--url", server.url, "--api-key-file", str(key)]) == 1
            assert "no pack 'pack_none'" in capsys.readouterr().err
            monkeypatch.delenv("HEADRACE_API_KEY", raising=False)
            assert main(["replay", kept, "--url", server.url]) == 1
            assert "key" in capsys.readouterr().err
    assert main(["replay", kept, "replayed_desk:app", "--url", "http://127.0.0.1:1"]) == 1
    assert "found both" in capsys.readouterr().err
    assert main(["replay", kept]) == 1
    assert "expected the app" in capsys.readouterr().err


def test_what_is_not_there_is_said(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "pack_none", "replayed_desk:app", "--data", "data"]) == 1
    assert "no pack 'pack_none'" in capsys.readouterr().err
    assert main(["replay", kept, "replayed_desk:app", "--data", "elsewhere"]) == 1
    assert "found none in elsewhere" in capsys.readouterr().err
