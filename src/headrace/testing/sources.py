"""The contract of a source as a test suite: subclass it, and say how to make the source.

    class TestMySource(SourceContract):
        @pytest.fixture
        def source(self, tmp_path):                 # some rows, and an end; opened several times
            (tmp_path / "a.ndjson").write_text('{"a": 1}\\n{"a": 2}\\n')
            return FileSource(f"file://{tmp_path}/a.ndjson?chunk=10")

        @pytest.fixture
        def waiting(self, tmp_path):                # optional: a source that has nothing now and no end
            return FileSource(f"file://{tmp_path}/b.ndjson?follow=true")

Choose chunk sizes so small that the source gives several chunks: every position is resumed from.
The rows are compared as bytes (or as tuples, where chunks hold frames); override `rows` for another format, and
`arranged` for a source in partitions, whose rows keep their order only within each.

A source without an end (its readers are `Tracked`) is read to what it holds now.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest

from headrace.errors import ClosedError
from headrace.sources.base import Chunk, EndOfSource, Reader, Skipped, Source, Tracked

PATIENCE = 30.0  # seconds after which a read that should have ended counts as stuck
POLL = 0.05


def next_chunk(reader: Reader) -> Chunk | None:
    """The next chunk; None at the end, or where all has been read that a source without an end holds now."""
    deadline = time.monotonic() + PATIENCE
    asked: object = reader
    while time.monotonic() < deadline:
        try:
            chunk = reader.read(POLL if isinstance(asked, Tracked) else PATIENCE)
        except EndOfSource:
            return None
        if chunk is not None:
            return chunk
        if isinstance(asked, Tracked) and asked.at_end():
            return None
    raise AssertionError(f"nothing new within {PATIENCE} s, and no end")


def read_all(source: Source, position: Any = None) -> list[Chunk]:
    """Every chunk of a source, from a position on to its end, or to what is its end now."""
    with closing(source.open(position)) as reader:
        return read_rest(reader)


def read_rest(reader: Reader) -> list[Chunk]:
    """Every chunk that a reader has not given yet."""
    chunks: list[Chunk] = []
    while (chunk := next_chunk(reader)) is not None:
        chunks.append(chunk)
    return chunks


def read_available(reader: Reader) -> list[Chunk]:
    """Every chunk that is there now, of a source that does not end."""
    chunks: list[Chunk] = []
    while (chunk := reader.read(0)) is not None:
        chunks.append(chunk)
    return chunks


def chunk_rows(chunk: Chunk) -> list[Any]:
    """The rows of a chunk, as something to compare: lines, fields of a CSV row, JSON values or tuples."""
    if chunk.frame is not None:
        return chunk.frame.rows()
    if chunk.messages is not None:
        return list(chunk.messages)
    if not chunk.data:
        return []
    if chunk.format == "csv":
        return [tuple(row) for row in csv.reader(io.StringIO(chunk.data.decode(), newline=""))][1:]
    if chunk.format == "json":
        values = json.loads(chunk.data)
        return values if isinstance(values, list) else [values]
    return [line for line in chunk.data.split(b"\n") if line.strip()]


class SourceContract:
    """What every source promises; see the module for how to use it."""

    @pytest.fixture
    def source(self) -> Source:
        """A source with rows in several chunks, and an end. It is opened many times."""
        raise NotImplementedError("override the fixture `source` to return the source under test")

    @pytest.fixture
    def waiting(self) -> Source | None:
        """A source that has nothing now and may have later; None if there is no such thing."""
        return None

    def rows(self, chunks: Sequence[Chunk]) -> list[Any]:
        """The rows of chunks, in order, as something to compare."""
        return [row for chunk in chunks for row in chunk_rows(chunk)]

    def arranged(self, rows: Sequence[Any]) -> list[Any]:
        """Rows in an order that is the same in every reading."""
        return list(rows)

    def skipped(self, chunks: Sequence[Chunk]) -> list[Skipped]:
        """What chunks say was skipped."""
        return [each for chunk in chunks for each in chunk.skipped]

    def test_it_has_a_name(self, source: Source) -> None:
        """Logs, metrics and dead letters name it."""
        assert isinstance(source.name, str)
        assert source.name

    def test_it_is_a_source(self, source: Source) -> None:
        """It has the methods of the protocols."""
        assert isinstance(source, Source)
        with closing(source.open(None)) as reader:
            assert isinstance(reader, Reader)

    def test_it_has_several_chunks(self, source: Source) -> None:
        """Otherwise the tests of resuming would show nothing."""
        assert len(read_all(source)) > 1

    def test_reading_twice_gives_the_same(self, source: Source) -> None:
        """A source is a log: reading takes nothing away."""
        assert self.arranged(self.rows(read_all(source))) == self.arranged(self.rows(read_all(source)))

    def test_resuming_at_every_position_gives_the_rest(self, source: Source) -> None:
        """No row is lost and none comes twice, wherever a reader is replaced by another."""
        chunks = read_all(source)
        for number, chunk in enumerate(chunks, start=1):
            resumed = read_all(source, chunk.position)
            rows = self.rows(chunks[:number]) + self.rows(resumed)
            assert self.arranged(rows) == self.arranged(self.rows(chunks))
            assert self.skipped(chunks[:number]) + self.skipped(resumed) == self.skipped(chunks)

    def test_a_reader_for_every_chunk_gives_all(self, source: Source) -> None:
        """The worst case: it is stopped after each chunk."""
        chunks: list[Chunk] = []
        position = None
        while True:
            with closing(source.open(position)) as reader:
                chunk = next_chunk(reader)
            if chunk is None:
                break
            chunks.append(chunk)
            position = chunk.position
        assert self.arranged(self.rows(chunks)) == self.arranged(self.rows(read_all(source)))

    def test_positions_are_json(self, source: Source) -> None:
        """A position comes back from JSON as it was, and is as good after it."""
        chunks = read_all(source)
        for number, chunk in enumerate(chunks, start=1):
            position = json.loads(json.dumps(chunk.position, allow_nan=False))
            assert position == chunk.position
            rows = self.rows(read_all(source, position))
            assert self.arranged(rows) == self.arranged(self.rows(chunks[number:]))

    def test_positions_do_not_change_afterwards(self, source: Source) -> None:
        """A position that was given out is not touched by reading on."""
        given, copies = [], []
        with closing(source.open(None)) as reader:
            while (chunk := next_chunk(reader)) is not None:
                given.append(chunk.position)
                copies.append(copy.deepcopy(chunk.position))
        assert given == copies

    def test_readers_do_not_share(self, source: Source) -> None:
        """Two readers of one source each get all of it."""
        with closing(source.open(None)) as first, closing(source.open(None)) as second:
            begun = next_chunk(first)
            other, rest = read_rest(second), read_rest(first)
        assert begun is not None
        assert self.arranged(self.rows([begun, *rest])) == self.arranged(self.rows(other))

    def test_the_end_stays_the_end(self, source: Source) -> None:
        """`EndOfSource` is raised again; without an end, nothing comes and it is still where all has been read."""
        with closing(source.open(None)) as reader:
            read_rest(reader)
            asked: object = reader
            for _ in range(2):
                if isinstance(asked, Tracked):
                    assert (reader.read(0), asked.at_end()) == (None, True)
                else:
                    with pytest.raises(EndOfSource):
                        reader.read(0)

    def test_nothing_after_the_last_position(self, source: Source) -> None:
        """The position after the last chunk is the end."""
        assert read_all(source, read_all(source)[-1].position) == []

    def test_messages_say_where_they_came_from(self, source: Source) -> None:
        """Each under an origin of its own, with its bytes while its chunk is held and without them later."""
        chunks = [chunk for chunk in read_all(source) if chunk.trace is not None]
        traces = [chunk.trace for chunk in chunks if chunk.trace is not None]
        sizes = [len(chunk.messages or ()) for chunk in chunks]
        for chunk in chunks:
            assert chunk.messages is not None
            assert chunk.trace is not None
            assert [chunk.trace(row).raw for row in range(len(chunk.messages))] == list(chunk.messages)
        del chunks
        origins = [trace(row).origin for trace, size in zip(traces, sizes, strict=True) for row in range(size)]
        assert len(set(origins)) == len(origins)

    def test_the_lag_is_what_is_left(self, source: Source) -> None:
        """At its end a reader is behind nothing."""
        with closing(source.open(None)) as reader:
            asked: object = reader
            if not isinstance(asked, Tracked):
                pytest.skip("its readers do not know how far the end is")
            assert not asked.at_end()
            read_rest(reader)
            assert set(asked.lag().values()) == {0}

    def test_closing_twice_is_harmless(self, source: Source) -> None:
        """`close` may be called by whoever comes last."""
        reader = source.open(None)
        reader.close()
        reader.close()

    def test_a_closed_reader_does_not_read(self, source: Source) -> None:
        """It says so."""
        reader = source.open(None)
        reader.close()
        with pytest.raises(ClosedError):
            reader.read(0)

    def test_nothing_new_is_none(self, waiting: Source | None) -> None:
        """A read that has nothing to give comes back when its time is over."""
        with closing(_need(waiting).open(None)) as reader:
            assert reader.read(0) is None
            assert reader.read(0.01) is None

    def test_closing_ends_a_read_that_waits(self, waiting: Source | None) -> None:
        """Shutting down does not wait for input."""
        reader = _need(waiting).open(None)
        begun, ended = threading.Event(), threading.Event()
        raised: list[BaseException] = []

        def wait() -> None:
            begun.set()
            try:
                reader.read(10 * PATIENCE)
            except ClosedError as error:
                raised.append(error)
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        assert begun.wait(PATIENCE)
        reader.close()
        assert ended.wait(PATIENCE), "the read went on waiting after close()"
        assert len(raised) == 1, "expected ClosedError from the read that was waiting"


def _need(source: Source | None) -> Source:
    if source is None:
        pytest.skip("the fixture `waiting` gives no source that waits")
    return source
