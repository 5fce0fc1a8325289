"""Files that grow, are renamed, cut, replaced and deleted while they are followed."""

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.sources.base import Chunk, Reader
from headrace.sources.files import GRACE, KEPT_GONE, KEPT_OPEN, FileSource
from headrace.testing.sources import PATIENCE, chunk_rows, read_all, read_available


class Tail:
    """A followed pattern in a directory, and what has been read of it."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self.folder = folder
        self.source = FileSource(f"file://{folder}/{pattern}?follow=true")
        self.reader: Reader = self.source.open(None)
        self.chunks: list[Chunk] = []

    def rows(self) -> list[Any]:
        """What is new."""
        chunks = read_available(self.reader)
        self.chunks += chunks
        return [row for chunk in chunks for row in chunk_rows(chunk)]

    def position(self) -> Any:
        return json.loads(json.dumps(self.chunks[-1].position))

    def restart(self) -> None:
        self.reader.close()
        self.reader = self.source.open(self.position())

    def scan(self, times: int) -> list[Any]:
        return [row for _ in range(times) for row in self.rows()]


@pytest.fixture
def tail(tmp_path: Path) -> Iterator[Tail]:
    found = Tail(tmp_path, "*.ndjson")
    yield found
    found.reader.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def open_below(folder: Path) -> int:
    """How many files in a directory this process holds open."""
    names = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return len([name for name in names if name.startswith(str(folder))])


def test_a_file_that_comes_later_is_read(tail: Tail, tmp_path: Path):
    assert tail.rows() == []
    append(tmp_path / "a.ndjson", "1\n2\n")
    assert tail.rows() == [b"1", b"2"]


def test_a_row_waits_for_its_newline(tail: Tail, tmp_path: Path):
    append(tmp_path / "a.ndjson", "1\n2")
    assert tail.rows() == [b"1"]
    append(tmp_path / "a.ndjson", "3\n")
    assert tail.rows() == [b"23"]


def test_a_read_that_waits_sees_what_is_appended(tail: Tail, tmp_path: Path):
    append(tmp_path / "a.ndjson", "1\n")
    assert tail.rows() == [b"1"]
    begun, found = threading.Event(), []

    def wait() -> None:
        begun.set()
        found.append(tail.reader.read(PATIENCE))

    thread = threading.Thread(target=wait)
    thread.start()
    begun.wait(PATIENCE)
    append(tmp_path / "a.ndjson", "2\n")
    thread.join(PATIENCE)
    assert [chunk and chunk.data for chunk in found] == [b"2\n"]


def test_a_file_that_sorts_before_those_read_is_not_missed(tail: Tail, tmp_path: Path):
    append(tmp_path / "b.ndjson", "1\n")
    assert tail.rows() == [b"1"]
    append(tmp_path / "a.ndjson", "2\n")
    tail.restart()
    assert tail.rows() == [b"2"]


def test_a_busy_file_does_not_keep_the_others_waiting(tail: Tail, tmp_path: Path):
    append(tmp_path / "a.ndjson", "1\n")
    append(tmp_path / "b.ndjson", "2\n")
    first = tail.reader.read(0)
    append(tmp_path / "a.ndjson", "3\n")
    second = tail.reader.read(0)
    assert [first and first.data, second and second.data] == [b"1\n", b"2\n"]


@pytest.mark.parametrize("restart", [False, True])
def test_rotation_within_the_pattern(tail: Tail, tmp_path: Path, restart: bool, caplog: Any):
    current, old, older = (tmp_path / f"{name}.ndjson" for name in ("app", "app-1", "app-2"))
    append(current, "1\n")
    assert tail.rows() == [b"1"]
    current.rename(old)
    append(current, "2\n")
    assert tail.rows() == [b"2"]
    append(old, "3\n")
    old.rename(older)
    current.rename(old)
    append(current, "4\n")
    append(old, "5\n")
    if restart:
        tail.restart()
    assert tail.rows() == [b"5", b"3", b"4"]
    assert caplog.messages == []


def test_the_end_of_a_file_renamed_out_of_the_pattern_is_read(tail: Tail, tmp_path: Path):
    current, old = tmp_path / "app.ndjson", tmp_path / "app.old"
    append(current, "1\n2")
    assert tail.rows() == [b"1"]
    current.rename(old)
    append(current, "a\n")
    append(old, "3\n")
    assert sorted(tail.rows()) == [b"23", b"a"]
    append(old, "4\n5")
    append(current, "b\n")
    assert sorted(tail.rows()) == [b"4", b"b"]
    assert tail.scan(GRACE + 2) == [b"5"]
    tail.restart()
    assert tail.rows() == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_a_deleted_file_is_let_go(tail: Tail, tmp_path: Path):
    path = tmp_path / "a.ndjson"
    append(path, "1\n2")
    assert tail.rows() == [b"1"]
    path.unlink()
    assert tail.scan(GRACE + 2) == [b"2"]
    assert open_below(tmp_path) == 0


def test_a_file_that_goes_and_comes_back_is_not_read_twice(tail: Tail, tmp_path: Path):
    path, away = tmp_path / "a.ndjson", tmp_path / "away"
    append(path, "1\n")
    assert tail.rows() == [b"1"]
    path.rename(away)
    append(away, "2\n")
    assert tail.rows() == [b"2"]
    away.rename(path)
    append(path, "3\n")
    assert tail.rows() == [b"3"]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("new", ["9\n", "8\n9\n10\n11\n"], ids=["shorter", "longer"])
def test_a_file_cut_and_filled_again_is_read_from_its_start(
    tail: Tail, tmp_path: Path, new: str, restart: bool, caplog: Any
):
    path = tmp_path / "a.ndjson"
    append(path, "1\n2\n3\n")
    assert len(tail.rows()) == 3
    path.write_text(new)
    if restart:
        tail.restart()
    assert tail.rows() == new.encode().split()
    assert "a.ndjson, which had been read up to byte 6, was" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_a_file_replaced_by_another_is_read_from_its_start(tail: Tail, tmp_path: Path, caplog: Any):
    path = tmp_path / "a.ndjson"
    append(path, "1\n2\n")
    assert len(tail.rows()) == 2
    append(tmp_path / "new", "7\n8\n9\n")
    (tmp_path / "new").rename(path)
    assert tail.rows() == [b"7", b"8", b"9"]
    assert "is another file now; it is read from its start" in caplog.text


def test_a_copy_that_begins_the_same_is_read_on(tail: Tail, tmp_path: Path, caplog: Any):
    """As rsync and editors write: another inode, the same rows and more."""
    path = tmp_path / "a.ndjson"
    append(path, "1\n2\n")
    assert len(tail.rows()) == 2
    append(tmp_path / "new", "1\n2\n3\n")
    (tmp_path / "new").rename(path)
    assert tail.rows() == [b"3"]
    assert caplog.messages == []


def test_a_moved_directory_is_read_on(tmp_path: Path):
    (tmp_path / "old").mkdir()
    append(tmp_path / "old" / "a.ndjson", "1\n")
    position = read_all(FileSource(f"file://{tmp_path}/old/*.ndjson"))[-1].position
    (tmp_path / "old").rename(tmp_path / "new")
    append(tmp_path / "new" / "a.ndjson", "2\n")
    chunks = read_all(FileSource(f"file://{tmp_path}/new/*.ndjson"), position)
    assert [chunk.data for chunk in chunks] == [b"2\n"]


def test_a_long_row_that_is_too_long_is_reported_when_it_ends(tmp_path: Path):
    path = tmp_path / "a.ndjson"
    source = FileSource(f"file://{path}?follow=true&chunk=8&max_row=16")
    with closing(source.open(None)) as reader:
        append(path, "1\n" + "x" * 50)
        assert [chunk.data for chunk in read_available(reader)] == [b"1\n"]
        append(path, "x" * 50 + "\n2\n")
        chunks = read_available(reader)
    (skipped,) = chunks[0].skipped
    assert [chunk.data for chunk in chunks] == [b"", b"2\n"]
    assert (skipped.path, skipped.start, skipped.end, skipped.raw) == (str(path), 2, 103, b"x" * 100 + b"\n")
    assert skipped.reason == "a row of 101 bytes is longer than max_row, 16 bytes"


def test_a_csv_header_that_is_too_long_is_reported(tmp_path: Path):
    path = tmp_path / "a.csv"
    append(path, "h" * 100 + "\n1\n")
    (chunk,) = read_all(FileSource(f"file://{path}?chunk=8&max_row=16"))
    assert [(each.start, each.end) for each in chunk.skipped] == [(0, 103)]


def test_a_json_file_is_read_when_it_is_closed(tmp_path: Path):
    path = tmp_path / "a.json"
    with closing(FileSource(f"file://{path}?follow=true").open(None)) as reader:
        append(path, '[{"a": 1},')
        assert reader.read(0) is None
        append(path, ' {"a": 2}]\n')
        chunk = reader.read(0)
        assert chunk is not None
        assert chunk_rows(chunk) == [{"a": 1}, {"a": 2}]
        assert reader.read(0) is None


def test_a_json_file_past_the_limit_is_reported(tmp_path: Path):
    append(tmp_path / "a.json", json.dumps(list(range(50))))
    (chunk,) = read_all(FileSource(f"file://{tmp_path}/a.json?chunk=8&max_row=16"))
    assert "longer than max_row, 16 bytes" in chunk.skipped[0].reason


def test_a_parquet_file_is_read_when_it_has_its_footer(tmp_path: Path):
    frame = pl.DataFrame({"a": [1, 2, 3]})
    frame.write_parquet(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    path = tmp_path / "a.parquet"
    with closing(FileSource(f"file://{path}?follow=true").open(None)) as reader:
        path.write_bytes(data[:-5])
        assert reader.read(0) is None
        path.write_bytes(data)
        chunk = reader.read(0)
        assert chunk is not None
        assert chunk.frame is not None
        assert chunk.frame.equals(frame)
        assert reader.read(0) is None


def test_a_parquet_file_deleted_half_way_is_reported(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": range(1000)}).write_parquet(path)
    with closing(FileSource(f"file://{path}?chunk=800").open(None)) as reader:
        first = reader.read(0)
        assert first is not None
        assert first.frame is not None
        path.unlink()
        second = reader.read(0)
    assert second is not None
    assert f"deleted or replaced before it was read from row {first.frame.height} on" in second.skipped[0].reason


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_no_more_files_are_held_open_than_stated(tail: Tail, tmp_path: Path):
    for number in range(KEPT_OPEN + 20):
        append(tmp_path / f"{number}.ndjson", f"{number}\n")
    assert len(tail.rows()) == KEPT_OPEN + 20
    assert open_below(tmp_path) == KEPT_OPEN
    append(tmp_path / "3.ndjson", "again\n")
    assert tail.rows() == [b"again"]


def test_a_position_forgets_the_oldest_of_the_files_that_are_gone(tail: Tail, tmp_path: Path):
    for number in range(KEPT_GONE + 10):
        append(tmp_path / f"{number:05}.ndjson", "1\n")
    tail.rows()
    for number in range(KEPT_GONE + 10):
        (tmp_path / f"{number:05}.ndjson").unlink()
    tail.scan(GRACE + 2)
    append(tmp_path / "new.ndjson", "2\n")
    assert tail.rows() == [b"2"]
    assert len(tail.position()["files"]) == KEPT_GONE + 1
    assert len(json.dumps(tail.position())) < 100 * (KEPT_GONE + 1)
