"""Random files, cuts and resumes, held against Python's csv and json over the whole file."""

import csv
import io
import json
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.sources.files import FileSource
from headrace.sources.framing import first_row_end, last_row_end
from headrace.testing.sources import chunk_rows, read_all, read_available

NEWLINES = st.sampled_from(["\n", "\r\n"])
TEXT = st.text(alphabet=st.sampled_from('ab,"\n\r é\u2028'), max_size=12)
CHUNKS = st.integers(1, 60)
VALUES = st.one_of(st.none(), st.integers(), TEXT, st.text(max_size=5), st.just("long" * 50))


@st.composite
def ndjson_files(draw: st.DrawFn) -> tuple[bytes, list[Any]]:
    """A file and its rows: blank lines, either line end, perhaps none at the end, perhaps a byte order mark."""
    rows = draw(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1), max_size=12))
    text = draw(st.sampled_from(["", "\ufeff"]))
    for row in rows:
        text += draw(st.sampled_from(["", "", "", "\n", "\r\n\n"]))
        text += json.dumps(row, ensure_ascii=draw(st.booleans())) + draw(NEWLINES)
    return (text.rstrip("\r\n") if draw(st.booleans()) else text).encode(), rows


@st.composite
def csv_files(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, ...]]]:
    """A CSV file of two columns and its rows: quoted newlines, quotes and commas, with or without a last line end."""
    header = ("n", draw(st.sampled_from(["text", "te\nxt", 'te"xt'])))
    rows = draw(st.lists(st.tuples(st.integers(0, 9).map(str), TEXT), max_size=12))
    buffer = io.StringIO(newline="")
    # Before Python 3.13, csv leaves a lone carriage return without the quotes that it needs.
    bare = draw(st.booleans()) and not any("\r" in text for _, text in rows)
    quoting = csv.QUOTE_MINIMAL if bare else csv.QUOTE_ALL
    writer = csv.writer(buffer, lineterminator=draw(NEWLINES), quoting=quoting)
    writer.writerows([header, *rows])
    text = buffer.getvalue()
    if draw(st.booleans()):
        text = text.removesuffix("\n").removesuffix("\r")
    return (draw(st.sampled_from(["", "\ufeff"])) + text).encode(), rows


def values(chunks: list[Any]) -> list[Any]:
    found = [row for chunk in chunks for row in chunk_rows(chunk)]
    return [json.loads(row) if isinstance(row, bytes) else row for row in found]


def resumed(source: FileSource, stops: list[int]) -> list[Any]:
    """All chunks, with a new reader after each number of chunks in `stops`, and one to the end."""
    chunks: list[Any] = []
    position = None
    for stop in stops:
        with closing(source.open(position)) as reader:
            for _ in range(stop):
                if position is not None and position == chunks[-1].position and not read_all(source, position):
                    break
                chunks.append(reader.read(0))
                position = json.loads(json.dumps(chunks[-1].position))
        if not read_all(source, position):
            return chunks
    return chunks + read_all(source, position)


@settings(deadline=None)
@given(ndjson_files(), CHUNKS, st.lists(st.integers(0, 3), max_size=3))
def test_ndjson_equals_json_over_the_whole_file(file: tuple[bytes, list[Any]], chunk: int, stops: list[int]):
    data, expected = file
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.ndjson").write_bytes(data)
        source = FileSource(f"file://{folder}/a.ndjson", chunk=chunk)
        if not read_all(source):
            assert expected == []
        else:
            assert expected == values(resumed(source, stops))


@settings(deadline=None)
@given(csv_files(), CHUNKS, st.lists(st.integers(0, 3), max_size=3))
def test_csv_equals_csv_over_the_whole_file(file: tuple[bytes, list[Any]], chunk: int, stops: list[int]):
    data, expected = file
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.csv").write_bytes(data)
        source = FileSource(f"file://{folder}/a.csv", chunk=chunk)
        whole = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        assert expected == [tuple(row) for row in whole[1:]]
        if not read_all(source):
            assert expected == []
        else:
            assert expected == values(resumed(source, stops))


@settings(deadline=None)
@given(st.one_of(ndjson_files(), csv_files()), CHUNKS, st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=5))
def test_a_file_that_grows_under_the_reader(file: tuple[bytes, list[Any]], chunk: int, cuts: list[tuple[float, bool]]):
    """Written in random pieces, with a look and perhaps a restart after each, every row comes once."""
    content, expected = file
    ending = "ndjson" if expected and isinstance(expected[0], dict) else "csv"
    content += b"\n" if content and not content.endswith(b"\n") else b""
    pieces = sorted((int(share * len(content)), restart) for share, restart in cuts)
    written = 0
    with tempfile.TemporaryDirectory() as folder:
        source = FileSource(f"file://{folder}/*.{ending}?follow=true", chunk=chunk)
        reader, chunks = source.open(None), []
        for stop, restart in [*pieces, (len(content), False)]:
            with open(Path(folder, f"a.{ending}"), "ab") as target:
                target.write(content[written:stop])
            written = stop
            chunks += read_available(reader)
            if restart:
                reader.close()
                reader = source.open(chunks[-1].position if chunks else None)
        reader.close()
    assert expected == values(chunks)


def _row_ends(data: bytes, quoted: bool, inside: bool) -> list[int]:
    ends = []
    for at, byte in enumerate(data):
        inside ^= quoted and byte == ord('"')
        if byte == ord("\n") and not inside:
            ends.append(at + 1)
    return ends


@given(st.text(alphabet='a"\n', max_size=40).map(str.encode), st.booleans(), st.booleans())
def test_row_ends_equal_a_walk_over_every_byte(data: bytes, quoted: bool, inside: bool):
    inside &= quoted
    ends = _row_ends(data, quoted, inside) or [0]
    assert (ends[0], ends[-1]) == (
        first_row_end(data, quoted=quoted, inside=inside),
        last_row_end(data, quoted=quoted, inside=inside),
    )
