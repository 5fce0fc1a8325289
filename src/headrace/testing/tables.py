"""The contract of a table's source as a test suite: subclass it, and say how to make and change what it reads.

    class NotesWorld:                           # what the source reads, and how a test changes it
        def __init__(self, folder):
            self.source = DirSource(f"dir://{folder}")
            self.schema = TableSchema.of("notes", [Note], key="path")
            self.folder = folder

        def put(self, key, text):               # inserts or updates; returns the key as the table tells it
            (self.folder / f"{key}.md").write_text(text)
            return f"{key}.md"

        def delete(self, key):
            (self.folder / f"{key}.md").unlink()

        def text(self, document):               # what `put` was given, out of a row
            return document.text

    class TestNotes(TableSourceContract):
        @pytest.fixture
        def world(self, tmp_path):
            return NotesWorld(tmp_path)

What a source cannot do is said by the attributes of the class: a queue has no snapshot, and forgets what was stored.

What is compared is the table that the changes make, never their list: a source may tell a change twice, and may pass
over a state that was replaced at once. `TableModel` is that table, which every real one must agree with.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, ClassVar, Protocol

import pytest

from headrace.document import Document, TableSchema
from headrace.errors import ClosedError, ConfigError
from headrace.sources.base import EndOfSource
from headrace.sources.tables import Changes, TableReader, TableSource

PATIENCE = 30.0  # seconds after which what should have come counts as lost
POLL = 0.05


class TableWorld(Protocol):
    """A source under test, and what changes the thing that it reads. Each change is done when the call returns."""

    source: TableSource  # opened many times, by one reader at a time
    schema: TableSchema  # of the table that it fills

    def put(self, key: str, text: str) -> str:
        """Inserts or updates a row; `key` is of letters. Returns its key as `TableSchema.key_text` gives it."""
        ...

    def delete(self, key: str) -> None:
        """Deletes a row that is there."""
        ...

    def text(self, document: Document) -> str:
        """What `put` was given, out of the row that came."""
        ...


class TableModel:
    """A table as changes make it, in memory.

    Args:
        schema: What says the key of a row.

    Attributes:
        rows: By key.
        told: The keys that the snapshot under way has told; None if there is none.
    """

    def __init__(self, schema: TableSchema) -> None:
        self._schema = schema
        self.rows: dict[str, Document] = {}
        self.told: set[str] | None = None
        self._versions: dict[str, int] = {}

    def take(self, changes: Changes) -> None:
        """Apply a batch."""
        if changes.begins:
            self.told = set()
        for change in changes.changes:
            if change.op == "truncate":
                self.rows.clear()
                continue
            old = None if change.key is None else self._schema.key_text(change.key)
            if change.op == "delete":
                assert old is not None, f"{change.origin}: a delete without a key"
                self._remove(old, change.version)
                continue
            assert change.row is not None, f"{change.origin}: an upsert without a row"
            row = self._schema.row(change.row)
            if old is not None and old != row.key:
                self._remove(old, change.version)
            if self._is_news(row.key, change.version):
                self.rows[row.key] = row.document
            if self.told is not None:
                self.told.add(row.key)
        if changes.complete:
            assert self.told is not None, "a snapshot was completed that never began"
            self.rows, self.told = {key: row for key, row in self.rows.items() if key in self.told}, None

    def _remove(self, key: str, version: int | None) -> None:
        if self._is_news(key, version):
            self.rows.pop(key, None)
        if self.told is not None:
            self.told.discard(key)

    def _is_news(self, key: str, version: int | None) -> bool:
        if version is None:
            return True
        if version < self._versions.get(key, version):
            return False
        self._versions[key] = version
        return True


def batches(reader: TableReader) -> Iterator[Changes]:
    """Every batch that the source holds now, or until its end; without saying that any is stored."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            found = reader.read(POLL)
        except EndOfSource:
            return
        if found is not None:
            yield found
        elif reader.at_end():
            return
    raise AssertionError(f"neither an end nor `at_end` within {PATIENCE} s")


def read_all(source: TableSource, schema: TableSchema, position: Any = None) -> list[Changes]:
    """Every batch from a position on, by a reader of its own; none is said to be stored."""
    with closing(source.open(position, schema)) as reader:
        return list(batches(reader))


class TableSourceContract:
    """What every source of a table promises; see the module for how to use it.

    Attributes:
        snapshots: It tells all rows when it is opened without a position, and then what was deleted meanwhile.
        remembers: A position can be read from again after later batches were stored.
        deletes: It tells what was deleted.
        foreign: A position that is not one of this source's; None if it takes any.
        most: Changes in a batch.
    """

    snapshots = True
    remembers = True
    deletes = True
    foreign: ClassVar[Any] = {"of": "another source"}
    most = 1_000

    @pytest.fixture
    def world(self) -> TableWorld:
        """A world without rows, whose source can be opened."""
        raise NotImplementedError("override the fixture `world` to return the source under test and what changes it")

    @pytest.fixture
    def filled(self, world: TableWorld) -> dict[str, str]:
        """What the table must be: three rows."""
        return {world.put(key, f"{key} as it was"): f"{key} as it was" for key in ("ada", "bob", "cyd")}

    def table(self, world: TableWorld, model: TableModel) -> dict[str, str]:
        """A table as keys and texts."""
        return {key: world.text(row) for key, row in model.rows.items()}

    def change(self, world: TableWorld, rows: dict[str, str]) -> dict[str, str]:
        """An insert, two updates and a delete; returns what the table is after them."""
        rows = dict(rows)
        rows[world.put("dee", "dee is new")] = "dee is new"
        rows[world.put("ada", "ada in between")] = "ada in between"
        rows[world.put("ada", "ada is another")] = "ada is another"
        if self.deletes:
            del rows[world.put("bob", "bob, at last")]
            world.delete("bob")
        return rows

    def test_it_has_a_name(self, world: TableWorld) -> None:
        """Logs, metrics and dead letters name it."""
        assert isinstance(world.source.name, str)
        assert world.source.name

    def test_it_is_a_source(self, world: TableWorld) -> None:
        """It has the methods of the protocol."""
        assert isinstance(world.source, TableSource)

    def test_without_a_position_all_is_told(self, world: TableWorld, filled: dict[str, str]) -> None:
        """The rows that were there before anybody read."""
        model = TableModel(world.schema)
        for batch in read_all(world.source, world.schema):
            model.take(batch)
        assert self.table(world, model) == filled

    @pytest.mark.usefixtures("filled")
    def test_a_snapshot_begins_and_is_completed_once(self, world: TableWorld) -> None:
        """Its first batch says so, its last one too, and those between are part of it."""
        _need(self.snapshots, "it has no snapshot")
        found = read_all(world.source, world.schema)
        marks = [(batch.begins, batch.complete) for batch in found]
        last = next(number for number, (_, complete) in enumerate(marks) if complete)
        assert marks[0][0]
        assert sum(begins for begins, _ in marks) == sum(complete for _, complete in marks) == 1
        assert all(batch.snapshot for batch in found[: last + 1])

    def test_a_snapshot_of_nothing_is_one(self, world: TableWorld) -> None:
        """Rows that a table has from earlier are gone, then."""
        _need(self.snapshots, "it has no snapshot")
        found = read_all(world.source, world.schema)
        assert [sum(batch.begins for batch in found), sum(batch.complete for batch in found)] == [1, 1]

    def test_changes_come_after(self, world: TableWorld, filled: dict[str, str]) -> None:
        """By the same reader, which said that it had come to the end."""
        model = TableModel(world.schema)
        with closing(world.source.open(None, world.schema)) as reader:
            for batch in batches(reader):
                model.take(batch)
                reader.stored(batch)
            expected = self.change(world, filled)
            for batch in batches(reader):
                model.take(batch)
                reader.stored(batch)
        assert self.table(world, model) == expected

    def test_changes_while_nobody_reads(self, world: TableWorld, filled: dict[str, str]) -> None:
        """Deletes among them: the next reader goes on where the last one stood."""
        model = TableModel(world.schema)
        position = self._follow(world, model, None)
        expected = self.change(world, filled)
        self._follow(world, model, position)
        assert self.table(world, model) == expected

    def test_resuming_at_every_position_gives_the_table(self, world: TableWorld, filled: dict[str, str]) -> None:
        """Wherever a reader was killed, another one makes the same table; what was not stored is told again."""
        given: list[tuple[Any, TableModel]] = []
        model = TableModel(world.schema)
        with closing(world.source.open(None, world.schema)) as reader:
            for batch in batches(reader):
                model.take(batch)
                given.append((batch.position, copy.deepcopy(model)))
            expected = self.change(world, filled)
            for batch in batches(reader):
                model.take(batch)
                given.append((batch.position, copy.deepcopy(model)))
        assert self.table(world, model) == expected
        for position, stood in given:
            for batch in read_all(world.source, world.schema, json.loads(json.dumps(position))):
                stood.take(batch)
            assert self.table(world, stood) == expected, f"read on from {position}"

    def test_positions_are_good_after_later_ones_were_stored(self, world: TableWorld, filled: dict[str, str]) -> None:
        """A data directory may be put back from a copy: what is missing then is told, by a new snapshot if need be."""
        _need(self.remembers, "it forgets what was stored")
        model = TableModel(world.schema)
        position = self._follow(world, model, None)
        before = copy.deepcopy(model)
        expected = self.change(world, filled)
        self._follow(world, model, position)
        self._follow(world, before, position)
        assert self.table(world, before) == self.table(world, model) == expected

    def test_a_reader_for_every_batch_gives_the_table(self, world: TableWorld, filled: dict[str, str]) -> None:
        """The worst case: it is stopped after each batch, stored or not."""
        model = TableModel(world.schema)
        expected = self.change(world, filled)
        position, number = None, 0
        while True:
            with closing(world.source.open(position, world.schema)) as reader:
                batch = next(batches(reader), None)
                if batch is None:
                    break
                model.take(batch)
                if number % 2:
                    reader.stored(batch)
                # A queue tells again what was not stored, for ever: its position is what was stored.
                if number % 2 or self.remembers:
                    position = batch.position
            number += 1
            assert number < 1_000, "a reader that begins where the last one stood does not come to an end"
        assert self.table(world, model) == expected

    def test_a_new_snapshot_finds_what_was_deleted(self, world: TableWorld, filled: dict[str, str]) -> None:
        """Without a position, rows from earlier that are not told again are gone."""
        _need(self.snapshots, "it has no snapshot")
        model = TableModel(world.schema)
        self._follow(world, model, None)
        expected = self.change(world, filled)
        self._follow(world, model, None)
        assert self.table(world, model) == expected

    @pytest.mark.usefixtures("filled")
    def test_positions_are_json_and_do_not_change(self, world: TableWorld) -> None:
        """A position comes back from JSON as it was, and is not touched by reading on."""
        given, copies = [], []
        with closing(world.source.open(None, world.schema)) as reader:
            for batch in batches(reader):
                given.append(batch.position)
                copies.append(json.loads(json.dumps(batch.position, allow_nan=False)))
        assert given == copies

    def test_stored_twice_is_harmless(self, world: TableWorld, filled: dict[str, str]) -> None:
        """Also for a batch before the last one."""
        model = TableModel(world.schema)
        with closing(world.source.open(None, world.schema)) as reader:
            found = list(batches(reader))
            for batch in found:
                model.take(batch)
            for batch in [*found, *found]:
                reader.stored(batch)
            expected = self.change(world, filled)
            for batch in batches(reader):
                model.take(batch)
                reader.stored(batch)
                reader.stored(found[0])
        assert self.table(world, model) == expected

    @pytest.mark.usefixtures("filled")
    def test_batches_are_bounded(self, world: TableWorld) -> None:
        """What is read has to fit in memory."""
        assert max(len(batch.changes) for batch in read_all(world.source, world.schema)) <= self.most

    @pytest.mark.usefixtures("filled")
    def test_changes_say_where_they_came_from(self, world: TableWorld) -> None:
        """Dead letters are told apart by it."""
        found = [change for batch in read_all(world.source, world.schema) for change in batch.changes]
        origins = {world.schema.row(change.row).key: change.origin for change in found if change.row is not None}
        assert all(origins.values())
        assert len(set(origins.values())) == len(origins)

    @pytest.mark.usefixtures("filled")
    def test_at_the_end_there_is_nothing_left(self, world: TableWorld) -> None:
        """A read brings nothing and comes back; the lag is numbers."""
        with closing(world.source.open(None, world.schema)) as reader:
            for batch in batches(reader):
                reader.stored(batch)
            assert reader.read(0) is None
            assert reader.at_end()
            assert all(isinstance(value, int) and value >= 0 for value in reader.lag().values())

    def test_a_position_of_another_source_is_refused(self, world: TableWorld) -> None:
        """It says so at once."""
        _need(self.foreign is not None, "it takes any position")
        with pytest.raises(ConfigError):
            world.source.open(self.foreign, world.schema).close()

    def test_a_closed_reader_does_not_read(self, world: TableWorld) -> None:
        """`close` may be called by whoever comes last, more than once."""
        reader = world.source.open(None, world.schema)
        reader.close()
        reader.close()
        with pytest.raises(ClosedError):
            reader.read(0)

    def test_closing_ends_a_read_that_waits(self, world: TableWorld) -> None:
        """Shutting down does not wait for input."""
        reader = world.source.open(None, world.schema)
        for batch in batches(reader):
            reader.stored(batch)
        begun, ended = threading.Event(), threading.Event()
        raised: list[BaseException] = []

        def wait() -> None:
            begun.set()
            try:
                while True:  # a source without input may still give a new position now and then
                    reader.read(10 * PATIENCE)
            except ClosedError as error:
                raised.append(error)
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        assert begun.wait(PATIENCE)
        reader.close()
        assert ended.wait(PATIENCE), "the read went on waiting after close()"
        assert len(raised) == 1, "expected ClosedError from the read that was waiting"

    def _follow(self, world: TableWorld, model: TableModel, position: Any) -> Any:
        """Read to the end by a reader of its own, each batch stored; returns the position there."""
        with closing(world.source.open(position, world.schema)) as reader:
            for batch in batches(reader):
                model.take(batch)
                reader.stored(batch)
                position = batch.position
        return position


def _need(able: bool, otherwise: str) -> None:
    if not able:
        pytest.skip(otherwise)
