"""The file source under the contract that every source is held to, one class a format."""

import json
from pathlib import Path

import polars as pl
import pytest

from headrace.sources.files import FileSource
from headrace.testing.sources import SourceContract


class _Waiting(SourceContract):
    @pytest.fixture
    def waiting(self, tmp_path: Path) -> FileSource:
        return FileSource(f"file://{tmp_path}/later-*.ndjson?follow=true")


class TestNdjson(_Waiting):
    @pytest.fixture
    def source(self, tmp_path: Path) -> FileSource:
        (tmp_path / "a.ndjson").write_text("".join(f'{{"n": {n}}}\n' for n in range(20)))
        (tmp_path / "b.ndjson").write_text('\n\r\n{"n": 20}\r\n{"n": 21}')
        (tmp_path / "c.ndjson").write_text("")
        (tmp_path / "d.ndjson").write_text('{"n": 22}\n')
        return FileSource(f"file://{tmp_path}/*.ndjson?chunk=24")


class TestNdjsonWithRowsThatAreTooLong(_Waiting):
    @pytest.fixture
    def source(self, tmp_path: Path) -> FileSource:
        rows = ['{"n": 1}', '{"n": "' + "x" * 100 + '"}', '{"n": 2}', "y" * 99, '{"n": 3}', "z" * 500]
        (tmp_path / "a.ndjson").write_text("\n".join(rows))
        return FileSource(f"file://{tmp_path}/*.ndjson?chunk=16&max_row=64")


class TestCsv(_Waiting):
    @pytest.fixture
    def source(self, tmp_path: Path) -> FileSource:
        body = "".join(f'{n},"line {n}\nand ""more"", of it"\r\n' for n in range(12))
        (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + f"n,text\r\n{body}".encode())
        (tmp_path / "b.csv").write_text('text,"n\nx"\nlast,1')
        (tmp_path / "c.csv").write_text("only,a,header\n")
        return FileSource(f"file://{tmp_path}/*.csv?chunk=40")


class TestJson(_Waiting):
    @pytest.fixture
    def source(self, tmp_path: Path) -> FileSource:
        (tmp_path / "a.json").write_text(json.dumps([{"n": n} for n in range(5)], indent=1))
        (tmp_path / "b.json").write_text('\ufeff{"n": 5}\n')
        (tmp_path / "c.json").write_text(" \n")
        return FileSource(f"file://{tmp_path}/*.json")


class TestParquet(_Waiting):
    @pytest.fixture
    def source(self, tmp_path: Path) -> FileSource:
        frame = pl.DataFrame({"n": range(1000), "text": [str(n) * 3 for n in range(1000)]})
        frame.write_parquet(tmp_path / "a.parquet", row_group_size=300)
        frame.clear().write_parquet(tmp_path / "b.parquet")
        frame.head(10).write_parquet(tmp_path / "c.parquet")
        (tmp_path / "d.parquet").write_bytes(b"not a Parquet file")
        return FileSource(f"file://{tmp_path}/*.parquet?chunk=2kB")
