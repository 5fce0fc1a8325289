"""One reading of a Postgres table: a snapshot where there is no good position, then the log.

A position is a place in the log of one server: {"lsn", "slot", "system", "table"}, and in the middle of a snapshot the
key that it goes on after. Where the slot is gone, or has been let past the position, or server or table are others,
nobody can tell what was changed meanwhile: a new snapshot begins, which also finds what was deleted.

The slot is moved on when a batch was stored, and only then. While nothing happens to the table the log still grows, so
a batch without changes tells the new place now and then; when that is stored the server may let go of the log.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from dataclasses import replace
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_UNKNOWN

from headrace.document import TableSchema
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.sources.base import Letter, Trace
from headrace.sources.postgres_changes import Assembler, Taken
from headrace.sources.postgres_output import lsn_text
from headrace.sources.postgres_place import Place
from headrace.sources.postgres_server import Server, Table
from headrace.sources.postgres_snapshot import Snapshot
from headrace.sources.postgres_url import PostgresUrl
from headrace.sources.postgres_values import only, row_of
from headrace.sources.tables import Changes

IDLE = 5.0  # seconds between two positions without changes
CATCH_UP = 1.0  # seconds in which the server says how far it is, when it is asked whether this is the end

_log = logging.getLogger("headrace.postgres")


class PostgresReader:
    """Made by `PostgresSource.open`; see `TableReader` for what it promises.

    Args:
        url: What to read.
        schema: The table that it fills.
        place: Where to begin; None for the beginning.
    """

    def __init__(self, url: PostgresUrl, schema: TableSchema, place: Place | None) -> None:
        self._url, self._schema, self._place = url, schema, place
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._server = Server(url, self._stop)
        self._wake, self._woken = socket.socketpair()
        self._stream: Any = None  # the connection that replicates
        self._cursor: Any = None  # of it, once it streams
        self._snapshot: Snapshot | None = None
        self._begins = False
        self._assembler: Assembler | None = None
        self._letters: list[Letter] = []
        self._heard = self._seen = 0
        self._stored = 0 if place is None else place.lsn  # who opens at a place has stored all before it
        self._idle_at = 0.0

    def connect(self) -> None:
        """Find out where to go on; called by `open`, and again after the server was away."""
        with self._lock, self._explained():
            self._begin()

    def read(self, timeout: float) -> Changes | None:
        """The next batch; see `TableReader.read`."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._check_open()
            try:
                with self._explained():
                    if self._stream is None:
                        self._begin()
                    return self._next_page() if self._snapshot is not None else self._next(deadline)
            except ConfigError as error:
                raise StorageError(str(error)) from None  # it was good when it was opened; it may be mended

    def stored(self, changes: Changes) -> None:
        """Lets the server forget the log up to here; see `TableReader.stored`."""
        with self._lock:
            lsn = changes.receipt
            if isinstance(lsn, int) and lsn > self._stored:
                self._stored = lsn
                self._confirm()

    def lag(self) -> dict[str, int]:
        """Bytes of the log that were written and not stored here, which the server has to keep."""
        return {"bytes": max(0, self._heard - self._stored)}

    def at_end(self) -> bool:
        """Asks the server where its log ends, and whether that was reached; see `TableReader.at_end`."""
        with self._lock:
            self._check_open()
            if self._snapshot is not None or self._stream is None:
                return False
            with self._explained():
                end = self._server.end()
                self._heard = max(self._heard, end)
                deadline = time.monotonic() + CATCH_UP
                while not self._has_some() and self._seen < end and time.monotonic() < deadline:
                    self._pump()
                    if not self._has_some() and self._seen < end:
                        self._wait(deadline)
                return not self._has_some() and self._seen >= end

    def close(self) -> None:
        """See `TableReader.close`."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self._wake.send(b"!")
        self._server.abort()
        # Who reads notices at once, except while connecting: then it lets go of what it holds itself.
        if self._lock.acquire(timeout=1):
            try:
                self._let_go()
            finally:
                self._lock.release()

    def _let_go(self) -> None:
        self._disconnect()
        self._wake.close()
        self._woken.close()

    # Connecting.

    def _begin(self) -> None:
        url, server = self._url, self._server
        table = server.table()
        self._check(table)
        server.publish(table)
        self._stream = server.connect(replication=True)
        system = server.system(self._stream)
        place, why = self._good(table, system)
        exported = None
        if place is None:
            place, exported = self._fresh(table, system, why)
        self._place = place
        self._heard = max(self._heard, server.end())
        self._seen = place.lsn
        types = server.types()
        self._assembler = Assembler(table.oid, url.name, self._schema.key, url.columns, types)
        if place.snapshot:
            self._begins = place.after is None
            after = None if place.after is None else list(place.after)
            self._snapshot = Snapshot(server, table, url.name, exported=exported, after=after)
        else:
            self._start()

    def _check(self, table: Table) -> None:
        """Whether the table can be followed."""
        name, key = self._url.name, self._schema.key
        columns = {column for column, _ in table.columns}
        missing = [each for each in key if each not in columns or each not in (self._url.columns or columns)]
        if missing:
            raise ConfigError(f"{name}: expected the key's columns {', '.join(key)}, found no {', '.join(missing)}")
        shown = ".".join(self._url.table)
        if not table.identity:
            raise ConfigError(
                f"{name}: the table has no replica identity, so the server would refuse to update or delete its rows "
                f"once they are followed; give it a primary key, or: ALTER TABLE {shown} REPLICA IDENTITY FULL"
            )
        if not set(key) <= set(table.identity):
            raise ConfigError(
                f"{name}: of a deleted row the server would tell only {', '.join(table.identity)}, and the key is "
                f"{', '.join(key)}; ALTER TABLE {shown} REPLICA IDENTITY FULL, or declare another key"
            )

    def _good(self, table: Table, system: str) -> tuple[Place | None, str]:
        """Where to go on, or why that cannot be."""
        place, slot = self._place, self._server.slot()
        if place is None:
            if slot is not None and not slot.lost and not self._url.snapshot:
                self._stored = slot.confirmed
                return Place(slot.confirmed, self._url.slot, system, table.oid), ""
            return None, ""
        if place.system != system:
            return None, "the position is in the log of another server"
        if place.slot != self._url.slot:
            return None, f"the position is one of the slot {place.slot!r}"
        if place.table != table.oid:
            return None, "the table was dropped and created again"
        if slot is None or slot.lost:
            return None, f"the slot {self._url.slot!r} is {'gone' if slot is None else 'invalid'}"
        if place.lsn < slot.confirmed:
            return None, f"the slot was let past the position, to {lsn_text(slot.confirmed)}"
        return place, ""

    def _fresh(self, table: Table, system: str, why: str) -> tuple[Place, str | None]:
        """A new beginning: the slot made anew, and the name of its snapshot."""
        url, server = self._url, self._server
        if why and url.snapshot:
            _log.warning("%s: %s; a new snapshot begins", url.name, why)
        elif why:
            reason = f"{why}: what changed since was not read, and snapshot=never"
            self._letters.append(Letter(reason, Trace(f"{url.name}@{lsn_text(self._place.lsn) if self._place else 0}")))
        slot, exported = server.slot(), None
        if url.keep_slot and slot is not None and not slot.lost:
            begins = slot.confirmed
        else:
            server.drop_slot()
            begins, exported = server.make_slot(self._stream)
        self._stored = begins
        return Place(begins, url.slot, system, table.oid, snapshot=url.snapshot), exported

    def _start(self) -> None:
        assert self._place is not None
        self._cursor = self._server.start(self._stream, self._place.lsn)
        self._confirm()
        self._idle_at = time.monotonic() + IDLE

    def _disconnect(self) -> None:
        self._stream = self._cursor = self._snapshot = self._assembler = None
        self._server.disconnect()

    @contextlib.contextmanager
    def _explained(self) -> Any:
        """What the library raises becomes ours, and all connections are made anew."""
        try:
            yield
        except (psycopg2.Error, OSError, StorageError, ConfigError) as error:
            self._disconnect()
            self._check_open()
            if isinstance(error, StorageError | ConfigError):
                raise
            raise StorageError(
                f"{self._url.name}: cannot be read ({self._url.shown(error)}); the next read connects again"
            ) from None
        except ClosedError:
            self._let_go()
            raise

    def _check_open(self) -> None:
        if self._stop.is_set():
            self._let_go()
            raise ClosedError(f"the reader of {self._url.name} is closed; open the source again")

    # The snapshot.

    def _next_page(self) -> Changes:
        assert self._snapshot is not None
        assert self._place is not None
        page = self._snapshot.next(self._url.columns)
        if page.last:
            self._snapshot.close()
            self._snapshot = None
            self._place = replace(self._place, snapshot=False, after=None)
            self._start()
        else:
            self._place = replace(self._place, after=None if page.after is None else tuple(page.after))
        begins, self._begins = self._begins, False
        return Changes(
            page.changes, self._place.json(), True, page.last, begins, [*self._told_letters(), *page.letters],
            self._place.lsn,
        )  # fmt: skip

    def _told_letters(self) -> list[Letter]:
        letters, self._letters = self._letters, []
        return letters

    # The stream.

    def _next(self, deadline: float) -> Changes | None:
        assert self._assembler is not None
        while True:
            self._pump()
            taken = self._assembler.taken()
            if taken is not None and (taken.changes or taken.letters):
                return self._told(taken)
            if taken is not None and taken.end is not None:
                self._seen = max(self._seen, taken.end)
            if self._letters:
                return self._empty()
            if self._is_idle():
                return self._empty()
            if time.monotonic() >= deadline:
                return None
            self._wait(deadline)
            self._check_open()

    def _pump(self) -> None:
        """Take in what has come, up to a batch."""
        assert self._assembler is not None
        cursor = self._cursor
        while not self._assembler.full:
            before = cursor.wal_end
            message = cursor.read_message()
            if message is None:
                # A keep-alive: all that was committed before this place has been sent, and read.
                if cursor.wal_end != before and not self._assembler.in_transaction:
                    self._seen = max(self._seen, cursor.wal_end)
                self._heard = max(self._heard, cursor.wal_end)
                return
            self._heard = max(self._heard, message.wal_end)
            self._assembler.take(message.payload, message.data_start)
            if self._stop.is_set():
                return

    def _has_some(self) -> bool:
        assert self._assembler is not None
        return bool(self._letters) or self._assembler.waiting

    def _wait(self, deadline: float) -> None:
        """Until something comes, or the reader is closed, or the time is over."""
        until = min(deadline, self._idle_at) if self._moved() else deadline
        with selectors.DefaultSelector() as selector:
            selector.register(self._cursor.fileno(), selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            selector.select(max(0.0, until - time.monotonic()))

    def _moved(self) -> bool:
        """The log has grown by what is not the table's."""
        assert self._place is not None
        assert self._assembler is not None
        return self._seen > self._place.lsn and not self._assembler.in_transaction

    def _is_idle(self) -> bool:
        return self._moved() and time.monotonic() >= self._idle_at

    def _empty(self) -> Changes:
        assert self._place is not None
        return self._made([], max(self._seen, self._place.lsn), None)

    def _told(self, taken: Taken) -> Changes:
        assert self._place is not None
        if taken.wanted:
            self._look_up(taken)
        self._letters += taken.letters
        changes = [change for change in taken.changes if change is not None]
        return self._made(changes, self._place.lsn if taken.end is None else taken.end, taken.created)

    def _made(self, changes: list[Any], lsn: int, created: int | None) -> Changes:
        assert self._place is not None
        self._place = replace(self._place, lsn=lsn)
        self._seen = max(self._seen, lsn)
        self._idle_at = time.monotonic() + IDLE
        return Changes(changes, self._place.json(), letters=self._told_letters(), receipt=lsn, created=created)

    def _look_up(self, taken: Taken) -> None:
        """Whole rows, for updates that left a long text alone."""
        table, types = self._server.table(), self._server.types()
        types.learn(type_ for _, type_ in table.columns)
        names = [name for name, _ in table.columns]
        by = next(iter(taken.wanted.values())).by
        xids = {wanted.xid for wanted in taken.wanted.values()}
        found = {}
        for row in self._server.rows(table, by, {wanted.key for wanted in taken.wanted.values()}, xids):
            cells = dict(zip(names, row, strict=True))
            found[tuple((cells[name] or b"").decode() for name in by)] = row
        for number, wanted in taken.wanted.items():
            change = taken.changes[number]
            assert change is not None
            if wanted.key in found:
                whole = only(row_of(types, table.columns, found[wanted.key]), self._url.columns)
                taken.changes[number] = replace(change, row=whole)
            elif change.key is not None:
                taken.changes[number] = replace(change, op="delete", row=None)
            else:
                taken.changes[number] = None

    def _confirm(self) -> None:
        if self._cursor is None or self._stream.get_transaction_status() == TRANSACTION_STATUS_UNKNOWN:
            return  # it is told to the server when it is back
        try:
            self._cursor.send_feedback(
                write_lsn=self._stored, flush_lsn=self._stored, apply_lsn=self._stored, force=True
            )
        except psycopg2.Error as error:
            _log.debug("%s: %s", self._url.name, self._url.shown(error))
            self._disconnect()
