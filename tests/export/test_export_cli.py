"""`headrace export`, in this process: what it writes, what it says, and what it says of a mistake."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import polars as pl
import pytest
from exported import store_at, stored, upsert, written

from headrace.cli import export
from headrace.errors import ConfigError, HeadraceError, InputError, UnknownNameError
from headrace.stores.datadir import DataDir

WORDS = "The river runs past the old mill and turns its wheel all day long, whatever the weather may be, number"


def described(command: argparse.ArgumentParser, about: str, more: str) -> argparse.ArgumentParser:
    command.description, command.epilog = about, more
    return command


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="headrace")
    export.add(parser.add_subparsers(), described)
    parsed = parser.parse_args(["export", "exported:app", *arguments])
    return int(parsed.call(parsed))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [upsert(f"d{n}", f"{WORDS} {n}" + f" {n}-" * 40, "T", lang="de" if n % 2 else "en") for n in range(10)]
    return written(tmp_path / "data", rows)


def test_a_data_set(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    given = [
        "--collection",
        "library",
        "--data",
        str(data),
        "--out",
        str(out),
        "--test",
        "0.3",
        "--where",
        '{"lang": "en"}',
    ]
    assert run(*given, "--format", "completion", "--template", "title=On {title}:") == 0
    examples = [
        json.loads(one) for name in ("train", "test") for one in (out / f"{name}.jsonl").read_text().splitlines()
    ]
    assert {one["prompt"] for one in examples} == {"On T:"}
    counts = json.loads((out / "manifest.json").read_text())["examples"]
    assert capsys.readouterr().out.splitlines() == [
        "library: version 10 of 2026-01-09T00:00:00+00:00",
        f"documents: {counts['train']} to train, {counts['test']} to test; left out: 5 filtered",
        f"examples:  {counts['train']} to train, {counts['test']} to test",
        f"written to {out}",
    ]
    assert counts["train"] + counts["test"] == 5


def test_a_snapshot_instead(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    given = ["--collection", "library", "--data", str(data), "--out", str(out), "--version", "4"]
    assert run(*given, "--documents-only", "parquet") == 0
    assert pl.read_parquet(out / "part-*.parquet")["key"].to_list() == ["d0", "d1", "d2", "d3"]
    assert capsys.readouterr().out == f"library: version 4, 4 documents in {out}\n"


def test_at_a_time(tmp_path: Path) -> None:
    store = store_at(tmp_path / "data")
    for day in (2, 5):
        stored(store, [upsert("a", f"day {day}")], day)
    store.close()
    given = ["--collection", "library", "--data", str(tmp_path / "data"), "--documents-only", "parquet"]
    run(*given, "--out", str(tmp_path / "out"), "--at", "2026-01-04T00:00:00Z")
    assert pl.read_parquet(tmp_path / "out" / "part-*.parquet")["text"].to_list() == ["day 2"]


def test_beside_a_server(data: Path, tmp_path: Path) -> None:
    """Whoever has the data directory open keeps it."""
    held = DataDir(tmp_path / "held")
    store = store_at(tmp_path / "held")
    stored(store, [upsert("a", WORDS, "T")])
    assert run("--collection", "library", "--data", str(tmp_path / "held"), "--out", str(tmp_path / "out")) == 0
    store.close()
    held.close()


def test_tokens_of_a_tokenizer(data: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    given = ["--collection", "library", "--data", str(data), "--out", str(tmp_path / "out"), "--test", "0"]
    run(*given, "--tokenizer", str(tmp_path / "tokenizer.json"), "--max-tokens", "61", "--min-tokens", "61")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["examples"]["train"], manifest["recipe"]["counted_by"]) == (10, "tokenizer.json")


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"--collection": "libary"}, UnknownNameError, "did you mean 'library'"),
        ({"--data": "nowhere"}, InputError, "expected a data directory, found none"),
        ({"--version": "99"}, InputError, "expected a version from 0 to 10, its newest, found 99"),
        ({"--at": "yesterday"}, InputError, "expected a time such as"),
        ({"--at": "2030-01-01"}, InputError, "expected a time that has passed"),
        ({"--where": '{"lang": "xx"}'}, InputError, "nothing to export"),
        ({"--where": "lang=en"}, InputError, "expected JSON such as"),
        ({"--where": '["lang"]'}, InputError, "expected an object such as"),
        ({"--template": "title"}, InputError, "expected NAME=TEXT"),
        ({"--template": "title={tilte}"}, ConfigError, "did you mean 'title'"),
        ({"--test": "2"}, InputError, "expected a part from 0 to below 1"),
        ({"--tokenizer": "none.json"}, InputError, "expected a tokenizer.json at none.json"),
        ({"--version": "0", "--documents-only": "parquet"}, InputError, "has no documents at version 0"),
    ],
)
def test_a_mistake_is_named(
    data: Path, tmp_path: Path, asked: dict[str, str], error: type[HeadraceError], message: str
) -> None:
    options = {"--collection": "library", "--data": str(data), "--out": str(tmp_path / "out")} | asked
    if "tokenizer" in message:
        pytest.importorskip("tokenizers")
    with pytest.raises(error, match=message):
        run(*(word for pair in options.items() for word in pair))
    assert not (tmp_path / "out").exists()


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        run("--help")
    assert "--collection NAME" in capsys.readouterr().out
