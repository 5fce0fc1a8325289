"""`headrace tables`, and tables and collections in `headrace status`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import headrace as hr
from headrace.cli.main import main
from headrace.cli.status import drawn
from headrace.serving.server import BackgroundServer

MODULE = """
import headrace as hr

class Note(hr.Document):
    id: str
    text: str

app = hr.App("notes")
notes = app.table(Note)
app.collection("library", notes, embed="hash", index="memory:", about="Notes.")
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> hr.App:
    (tmp_path / "notes_app.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from headrace.cli.apps import load_app

    yield load_app("notes_app:app")
    sys.modules.pop("notes_app", None)


def test_what_is_stored_is_listed(app: hr.App, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with app.open(tmp_path / "data") as live:
        live.push("note", [{"id": "a", "text": "water"}, {"id": "b", "text": "wheel"}])
        assert main(["tables", "list", "--data", str(tmp_path / "data")]) == 0
    assert capsys.readouterr().out == "note  2 rows  change 2\n"


def test_a_table_without_a_source_has_nothing_to_forget(app: hr.App, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "forget", "notes_app:app", "note"]) == 0
    assert "nothing to take away" in capsys.readouterr().out


def test_an_unknown_table_is_named(app: hr.App, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "forget", "notes_app:app", "notes"]) == 1
    assert "did you mean 'note'" in capsys.readouterr().err


def test_the_plan_draws_them(app: hr.App, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "notes_app:app"]) == 0
    out = capsys.readouterr().out
    assert "pushes ──► note (note by id)" in out
    assert "library: clean ─► chunk ─► embed ─► memory:" in out


def test_they_are_in_the_status(app: hr.App) -> None:
    with app.open() as live, BackgroundServer(live) as server, hr.connect(server.url) as remote:
        live.push("note", {"id": "a", "text": "water"})
        live.drain(10)
        lines = drawn(remote.status()).splitlines()
    assert [line.split() for line in lines if line.startswith(("note ", "library "))] == [
        ["note", "1", "1", "0", "–", "ok"],
        ["library", "1", "1", "0", "0", "0", "ms", "ok"],
    ]
