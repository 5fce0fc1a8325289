"""One table while it runs: pushes and its source are validated, stored, and then acknowledged.

The order is what makes it safe: what cannot be used becomes a dead letter, the rest is written with the source's
position in one transaction, and only then is the source told that it may let go. Whatever is interrupted is read again,
and rows are absolute, so reading again changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.cdc import Change
from headrace.document import Document, TableSchema
from headrace.errors import ClosedError, InputError, StorageError
from headrace.runners.base import PUSH
from headrace.runners.library.figures import TableFigures
from headrace.runners.order import WriteOrder
from headrace.runners.setaside import SetAside
from headrace.schema import Reject
from headrace.sources.base import EndOfSource, Letter, Trace
from headrace.sources.tables import Changes, TableReader, TableSource
from headrace.stores.tables import Applied, Feed, TableStore, Write

if TYPE_CHECKING:
    from headrace.declarations import Table

logger = logging.getLogger("headrace")
_POLL = 0.2
_FIRST_BACKOFF = 0.05
_LONGEST_BACKOFF = 10.0
# Of a row that cannot be used, as much is kept in a dead letter.
_MOST_RAW = 1 << 20


class LiveTable:
    """A table that takes input.

    Args:
        table: What was declared.
        store: Where its rows are.
        setaside: Where goes what cannot be used.
        now: The time, in microseconds since the Unix epoch.
    """

    def __init__(self, table: Table, store: TableStore, setaside: SetAside, now: Callable[[], int]) -> None:
        self.table = table
        self.schema: TableSchema = table.schema
        self.store = store
        self.changed = threading.Condition()
        self.listeners: list[Callable[[], None]] = []  # told that rows have changed, by whoever changed them
        self.order: WriteOrder | None = None
        self._writing = threading.Lock()
        self._setaside = setaside
        self._now = now
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._source: TableSource | None = None
        self._reader: TableReader | None = None
        self._asked = self._answered = 0
        self._totals = [0, 0, 0]
        self.failure: str | None = None
        self.problem: str | None = None

    def start(self) -> None:
        """Begins to read the source, if there is one."""
        if self.table.url is None:
            return
        self._source = self.table.source()
        self._thread = threading.Thread(target=self._run, name=f"headrace-table-{self.table.name}", daemon=True)
        self._thread.start()

    # -- pushes ----------------------------------------------------------------------------------------------------

    def push(self, rows: Iterable[Mapping[str, Any] | Document | bytes]) -> tuple[int, int, list[Reject]]:
        """Takes rows in, durably: the table's number after them, how many were taken, and those that were not.

        Raises:
            StorageError: They could not be stored; none is taken.
        """
        writes: list[Write] = []
        rejects: list[Reject] = []
        for number, row in enumerate(rows):
            try:
                writes.append(self._upsert(row, self._now()))
            except InputError as error:
                rejects.append(Reject(number, str(error), _raw(row)))
        applied = self._apply(writes, Feed(PUSH)) if writes else None
        if rejects:
            self._setaside.rejected(self.table.name, PUSH, rejects)
        return (applied.seq if applied else self.store.seq), len(writes), rejects

    def once_more(self, raw: bytes, *, trusted: bool) -> None:
        """Writes a row that is given as JSON, and has followers make it anew even if it is the same.

        Raises:
            InputError: It is not valid.
            StorageError: It could not be stored.
        """
        write = replace(self._upsert(raw, self._now()), trusted=trusted)
        if not self._apply([write], Feed(PUSH)).changed:
            with self._noted():
                self.store.touch(write.key)
            with self.changed:
                self.changed.notify_all()

    def delete(self, keys: Iterable[Any], *, erase: bool = False) -> int:
        """Takes rows away, durably; a key that is not there is passed over. Returns the table's number after it.

        Args:
            erase: Whether their earlier revisions are forgotten, too.

        Raises:
            InputError: A key is none of this table's; nothing is deleted.
            StorageError: They could not be deleted; none is.
        """
        now = self._now()
        writes = [Write(self.schema.key_text(key), "", None, now) for key in keys]
        seq = self._apply(writes, Feed(PUSH)).seq if writes else self.store.seq
        if erase:
            self.store.erase(write.key for write in writes)
        return seq

    def _upsert(self, row: Any, at: int, change: Change | None = None) -> Write:
        valid = self.schema.row(row)
        version = None if change is None else change.version
        if version is None and self.schema.version is not None:
            version = _version(getattr(valid.document, self.schema.version))
        source = "" if change is None else change.source
        trusted = True if change is None else change.trusted
        return Write(valid.key, valid.kind, valid.to_json(), at, version, source, trusted)

    def _apply(self, writes: Sequence[Write | None], feed: Feed) -> Applied:
        with self._noted():
            applied = self.store.apply(writes, feed, self._now())
        with self.changed:
            for place, count in enumerate((applied.changed, applied.same, applied.older)):
                self._totals[place] += count
            self.changed.notify_all()
        if applied.changed:
            for listener in self.listeners:
                listener()
        return applied

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """One write at a time, so that they are noted in the order of their numbers."""
        with self._writing:
            if self.order is None:
                yield
                return
            with self.order.writing(self.table.name, lambda: self.store.seq):
                yield

    # -- the source ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = _FIRST_BACKOFF
        held: Changes | None = None
        while not self._closing.is_set():
            try:
                if self._reader is None:
                    self._open()
                assert self._reader is not None
                asked = self._asked
                held = held or self._reader.read(_POLL)
                if held is not None:
                    self._take(held)
                    self._reader.stored(held)
                    held = None
                elif asked > self._answered and self._reader.at_end():
                    self._answer(asked)
                self.problem = None
                backoff = _FIRST_BACKOFF
            except EndOfSource:
                self._answer(1 << 62)
                return
            except ClosedError:
                return
            except StorageError as error:
                self.problem = str(error)
                logger.warning("the table %s: %s; trying again in %.1f s", self.table.name, error, backoff)
                self._closing.wait(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF)
            except Exception as error:
                logger.exception("the table %s: reading stopped", self.table.name)
                self._fail(f"{type(error).__name__}: {error}")
                return

    def _open(self) -> None:
        assert self._source is not None
        reader = self._source.open(self.store.position(self._source.name), self.schema)
        self._reader = reader
        if self._closing.is_set():
            reader.close()

    def _take(self, changes: Changes) -> None:
        assert self._source is not None
        letters = list(changes.letters)
        writes: list[Write | None] = []
        for change in changes.changes:
            try:
                writes += self._writes(change)
            except InputError as error:
                raw = change.raw or (_raw(change.row) if change.row is not None else b"")
                letters.append(Letter(str(error), Trace(change.origin, raw)))
                writes += self._withdrawn(change)
        if letters:
            self._setaside.traced(self.table.name, letters, "rejected")
        feed = Feed(self._source.name, changes.position, changes.begins, changes.complete)
        self._apply(writes, feed)

    def _writes(self, change: Change) -> list[Write | None]:
        at = self._now() if change.at is None else change.at
        if change.op == "truncate":
            return [None]
        old = None if change.key is None else self.schema.key_text(change.key)
        if change.op == "delete":
            if old is None:
                raise InputError(f"{self.table.name}: expected a deletion to say of which key, found none")
            return [Write(old, "", None, at, change.version, change.source, change.trusted)]
        if change.row is None:
            raise InputError(f"{self.table.name}: expected an upsert to bring its row, found none")
        new = self._upsert(change.row, at, change)
        gone = [] if old in (None, new.key) else [Write(str(old), "", None, at, change.version)]
        return [*gone, new]

    def _withdrawn(self, change: Change) -> list[Write | None]:
        """What an upsert that cannot be used takes away: the source no longer says what the row here says."""
        found: list[Write | None] = []
        for key in (change.key, change.row if isinstance(change.row, Mapping) else None):
            with contextlib.suppress(InputError):
                if key is not None:
                    found.append(Write(self.schema.key_text(key), "", None, self._now(), change.version))
        return found

    def _answer(self, asked: int) -> None:
        with self.changed:
            self._answered = max(self._answered, asked)
            self.changed.notify_all()

    def _fail(self, reason: str) -> None:
        with self.changed:
            self.failure = reason
            self.changed.notify_all()

    # -- looking after it ------------------------------------------------------------------------------------------

    def caught_up(self, timeout: float | None) -> bool:
        """Waits until all that the source held when this was called is stored.

        Raises:
            ClosedError: The source has stopped.
        """
        if self._thread is None:
            return True
        with self.changed:
            self._asked += 1
            wanted = self._asked
            done = self.changed.wait_for(lambda: self._answered >= wanted or self.failure is not None, timeout)
        if self.failure is not None:
            raise ClosedError(f"the source of the table {self.table.name!r} has stopped: {self.failure}")
        return done

    def figures(self) -> TableFigures:
        """The counters."""
        changed, same, older = self._totals
        lag = dict(self._reader.lag()) if self._reader is not None else {}
        rejected = self._setaside.rejected_rows[self.table.name]
        problem = self.failure or self.problem
        return TableFigures(self.store.seq, self.store.count(), changed, same, older, rejected, lag, problem)

    def stop(self) -> None:
        """Stops reading; what was read and not stored is read again at the next start."""
        self._closing.set()
        if self._reader is not None:
            self._reader.close()
        if self._thread is not None:
            self._thread.join()


def _version(value: Any) -> int | None:
    """What orders revisions, as a whole number: a time counts in microseconds."""
    if value is None or isinstance(value, int):
        return value
    moment = getattr(value, "timestamp", None)
    return int(moment() * 1e6) if callable(moment) else int(float(value) * 1e6)


def _raw(row: Any) -> bytes:
    """An input's bytes, for a dead letter: at most `_MOST_RAW` of them."""
    if isinstance(row, Document):
        return row.model_dump_json().encode()[:_MOST_RAW]
    if isinstance(row, bytes | bytearray | memoryview):
        return bytes(row[:_MOST_RAW])
    try:
        return msgspec.json.encode(row, enc_hook=repr)[:_MOST_RAW]
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return repr(row)[:_MOST_RAW].encode(errors="replace")
