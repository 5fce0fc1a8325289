"""A source's rows on their way into the engine: decoded beside reading, bounded, and what is bad set aside."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import headrace as hr
from headrace.errors import ClosedError, StorageError
from headrace.runners.feeder import Feeder
from headrace.runners.inbox import Inbox
from headrace.runners.intake import Intake
from headrace.runners.setaside import SetAside
from headrace.schema import Schema
from headrace.sources.base import Chunk, EndOfSource
from headrace.sources.files import FileSource
from headrace.stores.dead_letters import DeadLetters

PATIENCE = 30.0


class Reading(hr.Event):
    n: int
    at: datetime = hr.event_time(unit="us")


class Listed:
    """A source of chunks in memory; an exception among them is raised when it is its turn."""

    name = "list:"

    def __init__(self, *chunks: bytes | Exception, ends: bool = True) -> None:
        self._chunks = chunks
        self._ends = ends
        self._closed = threading.Event()
        self.given = 0

    def open(self, position: Any | None) -> Listed:
        self.given = position or 0
        return self

    def read(self, timeout: float) -> Chunk | None:
        if self._closed.is_set():
            raise ClosedError("closed")
        if self.given == len(self._chunks):
            if self._ends:
                raise EndOfSource
            self._closed.wait(timeout)
            return None
        chunk = self._chunks[self.given]
        self.given += 1
        if isinstance(chunk, Exception):
            raise chunk
        return Chunk(chunk, "ndjson", self.given)

    def close(self) -> None:
        self._closed.set()


def line(n: int) -> bytes:
    return b'{"n": %d, "at": 0}\n' % n


class Fed:
    """A feeder of readings, and what came of it."""

    def __init__(self, source: Any, most_rows: int = 1000, position: Any | None = None) -> None:
        self.inbox = Inbox(most_rows)
        self.letters = DeadLetters(None)
        setaside = SetAside(self.letters, lambda: 42)
        intake = Intake("reading", Schema.of(Reading), source, setaside, lambda: 42)
        self.feeder = Feeder("reading", source, intake, self.inbox)
        self.feeder.start(position)

    def numbers(self) -> list[list[int]]:
        assert self.feeder.caught_up(PATIENCE)
        return [work.frame["n"].to_list() for work in self.inbox.take(0)]


def test_rows_come_in_order_with_their_positions() -> None:
    fed = Fed(Listed(line(1) + line(2), line(3)))
    assert fed.feeder.caught_up(PATIENCE)
    works = fed.inbox.take(0)
    assert [(work.frame["n"].to_list(), work.source, work.position, work.received) for work in works] == [
        ([1, 2], "list:", 1, 42),
        ([3], "list:", 2, 42),
    ]
    fed.feeder.close()
    assert (fed.feeder.finished, fed.feeder.rows, fed.feeder.failure) == (True, 3, None)


def test_it_goes_on_after_a_position() -> None:
    fed = Fed(Listed(line(1), line(2), line(3)), position=2)
    assert fed.numbers() == [[3]]
    fed.feeder.close()


def test_what_is_bad_is_set_aside_and_the_position_goes_on() -> None:
    """A bad row, and a chunk of which nothing can be used."""
    fed = Fed(Listed(line(1) + b"{oops\n", b"{oops\n", line(2)))
    assert fed.numbers() == [[1], [], [2]]
    assert [letter.raw for letter in fed.letters.list()] == [b"{oops", b"{oops"]
    fed.feeder.close()


def test_a_source_that_cannot_be_read_for_now_is_tried_again() -> None:
    fed = Fed(Listed(line(1), StorageError("the disk is away"), line(2)))
    assert fed.numbers() == [[1], [2]]
    fed.feeder.close()


def test_a_source_that_breaks_is_reported() -> None:
    """It is not tried again for ever, and whoever waits for it is told."""
    fed = Fed(Listed(line(1), RuntimeError("a bug")))
    assert not fed.feeder.caught_up(PATIENCE)
    assert fed.feeder.failure == "RuntimeError: a bug"
    fed.feeder.close()


def test_a_slow_engine_slows_the_source() -> None:
    """With a full inbox only so many chunks are read ahead; closing ends the wait."""
    source = Listed(*map(line, range(100)))
    fed = Fed(source, most_rows=2)
    assert not fed.feeder.caught_up(0.2)
    # Two in the inbox, one waiting for room, four between reader and decoder, one in the reader's hand.
    assert source.given <= 8
    fed.inbox.close()
    fed.feeder.close()


def test_waiting_for_a_source_that_goes_on(tmp_path: Path) -> None:
    """`caught_up` means what is there now, also where more may come."""
    file = tmp_path / "a.ndjson"
    file.write_bytes(line(1))
    fed = Fed(FileSource(f"file://{file}?follow=true"))
    assert fed.numbers() == [[1]]
    with file.open("ab") as out:
        out.write(line(2))
    assert fed.numbers() == [[2]]
    fed.feeder.close()
