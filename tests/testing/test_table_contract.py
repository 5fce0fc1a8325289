"""The contract of tables' sources, on a source in memory that keeps it, and on some that break it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from headrace.cdc import Change
from headrace.document import Document, TableSchema
from headrace.errors import ClosedError, ConfigError
from headrace.sources.tables import Changes
from headrace.testing.tables import TableSourceContract


class Note(Document):
    id: str
    text: str


class Log:
    """A table with its log: a snapshot of two rows a batch, then one change a batch."""

    name = "log://memory"
    lose: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.log: list[Change] = []
        self.news = threading.Condition()

    def open(self, position: Any, schema: TableSchema) -> LogReader:
        if position is not None and not {"at"} <= set(position) <= {"at", "after"}:
            raise ConfigError(f"expected a position of the log, found {position}")
        return LogReader(self, position)


class LogReader:
    def __init__(self, source: Log, position: Any) -> None:
        self._source = source
        self._begins = position is None
        self._at: int = len(source.log) if position is None else position["at"]
        self._after: str | None = "" if position is None else position.get("after")
        self._closed = False

    def read(self, timeout: float) -> Changes | None:
        with self._source.news:
            self._source.news.wait_for(lambda: self._closed or not self.at_end(), timeout)
            if self._closed:
                raise ClosedError("closed")
            if self._after is not None:
                return self._snapshot(self._after)
            if self.at_end():
                return None
            change = self._source.log[self._at]
            self._at += 1
            return Changes([] if change.op in self._source.lose else [change], {"at": self._at})

    def _snapshot(self, after: str) -> Changes:
        left = sorted(key for key in self._source.rows if key > after)
        taken = left[:2]
        rows = [Change("upsert", {"id": key, "text": self._source.rows[key]}, origin=f"log@{key}") for key in taken]
        complete = len(left) <= 2 and "complete" not in self._source.lose
        begins, self._begins = self._begins, False
        self._after = None if len(left) <= 2 else taken[-1]
        position = {"at": self._at} | ({} if self._after is None else {"after": self._after})
        return Changes(rows, position, snapshot=True, begins=begins, complete=complete)

    def stored(self, changes: Changes) -> None:
        pass

    def lag(self) -> Mapping[str, int]:
        return {"messages": len(self._source.log) - self._at}

    def at_end(self) -> bool:
        return self._after is None and self._at == len(self._source.log)

    def close(self) -> None:
        with self._source.news:
            self._closed = True
            self._source.news.notify_all()


class World:
    def __init__(self, *, lose: frozenset[str] = frozenset()) -> None:
        self.source = Log()
        self.source.lose = lose
        self.schema = TableSchema.of("notes", [Note], key="id")

    def put(self, key: str, text: str) -> str:
        with self.source.news:
            self.source.rows[key] = text
            self._log(Change("upsert", {"id": key, "text": text}, origin=f"log@{len(self.source.log)}"))
        return key

    def delete(self, key: str) -> None:
        with self.source.news:
            del self.source.rows[key]
            self._log(Change("delete", key=key, origin=f"log@{len(self.source.log)}"))

    def text(self, document: Document) -> str:
        assert isinstance(document, Note)
        return document.text

    def _log(self, change: Change) -> None:
        self.source.log.append(change)
        self.source.news.notify_all()


class TestALogInMemory(TableSourceContract):
    """A source that keeps the contract passes all of it."""

    @pytest.fixture
    def world(self) -> World:
        return World()


@pytest.mark.parametrize(
    ("lost", "test"),
    [
        ("delete", "test_changes_come_after"),
        ("delete", "test_resuming_at_every_position_gives_the_table"),
        ("upsert", "test_changes_while_nobody_reads"),
        ("complete", "test_a_new_snapshot_finds_what_was_deleted"),
    ],
)
def test_a_source_that_loses_something_fails(lost: str, test: str) -> None:
    contract, world = TableSourceContract(), World(lose=frozenset({lost}))
    filled = {world.put(key, key): key for key in ("ada", "bob", "cyd")}
    with pytest.raises(AssertionError), suppress(StopIteration):
        getattr(contract, test)(world, filled)
