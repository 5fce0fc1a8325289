"""What a `file:` URL may say, and what is said about one that cannot be used."""

import os
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError, StorageError
from headrace.sources.file_url import FileUrl
from headrace.sources.files import FileSource
from headrace.testing.sources import read_all


@pytest.mark.parametrize(
    ("url", "root", "pattern", "file_format"),
    [
        ("file:///a/b/c.ndjson", "/a/b", "c.ndjson", "ndjson"),
        ("file:///a/b/*.jsonl", "/a/b", "*.jsonl", "ndjson"),
        ("FILE://localhost/a/**/b/%3F.CSV", "/a", "**/b/?.CSV", "csv"),
        ("file:/*.json", "/", "*.json", "json"),
        ("file:///a/x%20y%23z.parquet", "/a", "x y#z.parquet", "parquet"),
        ("file:///a/part-*?format=csv", "/a", "part-*", "csv"),
        ("file:///a/~/b.json?format=ndjson", "/a/~", "b.json", "ndjson"),
    ],
)
def test_parts(url: str, root: str, pattern: str, file_format: str):
    parsed = FileUrl.parse(url, {})
    assert (parsed.root, parsed.pattern, parsed.format) == (root, pattern, file_format)


def test_a_relative_path_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    source = FileSource("file:data/*.ndjson")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.ndjson").write_text("1\n")
    os.chdir("/")
    assert [chunk.data for chunk in read_all(source)] == [b"1\n"]


def test_options_beside_the_url_win():
    parsed = FileUrl.parse("file:///a.csv?follow=true&chunk=1MiB", {"chunk": 10, "follow": False})
    assert (parsed.chunk, parsed.follow) == (10, False)


@pytest.mark.parametrize(
    ("text", "size"), [("8MiB", 8 << 20), ("64 KiB", 1 << 16), ("2MB", 2_000_000), ("77", 77), ("1GiB", 1 << 30)]
)
def test_sizes(text: str, size: int):
    assert FileUrl.parse("file:///a.csv", {"chunk": text}).chunk == size


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("file:///a.csv?folow=true", {}, "has no option 'folow'; did you mean 'follow'"),
        ("file:///a.csv", {"colour": 1}, "has no option 'colour'; known: chunk, follow, format, max_row"),
        ("file:///a.csv?follow=yes", {}, "expected follow=true or follow=false, found 'yes'"),
        ("file:///a.csv?chunk=big", {}, "expected chunk to be a size such as '8MiB'"),
        ("file:///a.csv?chunk=0", {}, "expected chunk to be a size"),
        ("file:///a.csv?chunk=10&max_row=9", {}, "expected max_row to be at least chunk"),
        ("file:///a.csv?format=cvs", {}, "'cvs' is not a format of files; did you mean 'csv'"),
        ("file:///a.ndjson.gz", {}, "compressed files (.gz) cannot be read"),
        ("file:///a/*", {}, "cannot tell the format of '/a/*'"),
        ("file:///a/", {}, "found a directory"),
        ("file:", {}, "expected the path of a file"),
        ("file://data/a.csv", {}, "did you mean 'file:data/a.csv'"),
        ("file:///a#b.csv", {}, "write %23"),
        ("http://a/b.csv", {}, "expected a URL such as 'file:///data/*.ndjson'"),
    ],
)
def test_what_cannot_be_used_is_named(url: str, options: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as raised:
        FileUrl.parse(url, options)
    assert message in str(raised.value)


def test_no_file_is_said_when_it_is_opened(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"expected a file at .*none.ndjson.*found nothing; follow=true waits"):
        FileSource(f"file://{tmp_path}/none.ndjson").open(None)


def test_a_directory_is_no_file(tmp_path: Path):
    (tmp_path / "d.ndjson").mkdir()
    with pytest.raises(ConfigError, match="found a directory"):
        FileSource(f"file://{tmp_path}/d.ndjson").open(None)


def test_only_regular_files_are_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.ndjson")
    (tmp_path / "dir.ndjson").mkdir()
    (tmp_path / ".hidden.ndjson").write_text("0\n")
    (tmp_path / "dangling.ndjson").symlink_to("nowhere")
    (tmp_path / "a.ndjson").write_text("1\n")
    (tmp_path / "link.ndjson").symlink_to("a.ndjson")
    assert [chunk.data for chunk in read_all(FileSource(f"file://{tmp_path}/*.ndjson"))] == [b"1\n", b"1\n"]


def test_files_in_directories_below(tmp_path: Path):
    for name in ("b/c/2.ndjson", "b/1.ndjson", "0.ndjson"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    chunks = read_all(FileSource(f"file://{tmp_path}/**/*.ndjson"))
    assert [chunk.data for chunk in chunks] == [b"0.ndjson\n", b"b/1.ndjson\n", b"b/c/2.ndjson\n"]
    assert chunks[0].origin == f"{tmp_path}/0.ndjson"


@pytest.mark.parametrize(
    "position",
    [
        *("12", 12, [], {}, {"files": []}, {"files": {"a": {"offset": 1}}}, {"files": {"a": [1]}}),
        {"files": {"a": {"offset": -1, "inode": 1, "mark": ""}}},
    ],
)
def test_a_position_of_another_source_is_refused(tmp_path: Path, position: Any):
    (tmp_path / "a.ndjson").write_text("1\n")
    with pytest.raises(ConfigError, match=r"expected a position of 'file://.*it may be another source's"):
        FileSource(f"file://{tmp_path}/a.ndjson").open(position)


def test_a_file_that_cannot_be_opened_is_named_and_read_when_it_can(tmp_path: Path):
    path = tmp_path / "a.ndjson"
    path.write_text("1\n")
    reader = FileSource(f"file://{path}").open(None)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(StorageError, match=r"a\.ndjson"):
        reader.read(0)
    path.unlink()
    path.write_text("1\n")
    chunk = reader.read(0)
    assert chunk is not None
    assert chunk.data == b"1\n"
    reader.close()
