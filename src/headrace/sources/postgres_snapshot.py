"""The rows that a table has already, read in one transaction and in the order of the primary key.

The first attempt sees exactly what the log's stream does not tell: the snapshot that the server took when it made the
slot. That is gone with its connection, so an attempt that is broken off goes on after the last key in a new
transaction, and sees rows that are newer than the slot. That does no harm: the stream tells every change since the slot
was made, as whole rows and in order, so each row ends as what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import sql

from headrace.cdc import Change
from headrace.sources import postgres_values
from headrace.sources.base import Letter, Trace
from headrace.sources.postgres_server import RawRow, Server, Table, raw_values

MOST_ROWS = 1_000
MOST_BYTES = 16 << 20


@dataclass
class Page:
    """Some rows of a snapshot.

    Attributes:
        after: The last one's primary key, as texts; None if there is no primary key.
        last: There are no more.
    """

    changes: list[Change]
    letters: list[Letter]
    after: list[str] | None
    last: bool


class Snapshot:
    """One attempt.

    Args:
        name: What rows come from.
        exported: The server's name for the snapshot; None for what is there now.
        after: The primary key to go on after.
    """

    def __init__(
        self, server: Server, table: Table, name: str, *, exported: str | None = None, after: list[str] | None = None
    ) -> None:
        self._table = table
        self._name = name
        self._columns = [name for name, _ in table.columns]
        self._types = server.types()
        self._types.learn(type_ for _, type_ in table.columns)
        self._slice = 16
        self._number = 0
        connection = server.connect()
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True, autocommit=False)
        with connection.cursor() as cursor:
            if exported is not None:
                cursor.execute("SET TRANSACTION SNAPSHOT %s", (exported,))
        raw_values(connection, table)
        query = server.select(table)
        if table.primary:
            key = sql.SQL(", ").join(map(sql.Identifier, table.primary))
            beyond = sql.SQL(" WHERE ({}) > %s") if len(table.primary) > 1 else sql.SQL(" WHERE {} > %s")
            query = sql.SQL("{}{} ORDER BY {}").format(query, beyond.format(key) if after else sql.SQL(""), key)
        self._connection = connection
        self._cursor = connection.cursor(name="headrace_snapshot")
        value: Any = tuple(after or ()) if len(table.primary) > 1 else (after[0] if after else None)
        self._cursor.execute(query, (value,) if after else None)

    def next(self, columns: tuple[str, ...] | None) -> Page:
        """The next rows, about as many as fit."""
        changes: list[Change] = []
        letters: list[Letter] = []
        size, after, last = 0, None, False
        while not last and len(changes) < MOST_ROWS and size < MOST_BYTES:
            rows = self._cursor.fetchmany(self._slice)
            last = len(rows) < self._slice
            got = sum(len(cell) for row in rows for cell in row if cell is not None)
            size += got
            for row in rows:
                after = self._told(row, columns, changes, letters)
            if rows:  # the next slice is about what is left, or a tenth of it if rows are large
                each = got // len(rows) + 1
                self._slice = max(
                    1, min(MOST_ROWS - len(changes), (MOST_BYTES - size) // each, MOST_BYTES // 10 // each)
                )
        return Page(changes, letters, after, last)

    def _told(
        self, row: RawRow, columns: tuple[str, ...] | None, changes: list[Change], letters: list[Letter]
    ) -> list[str] | None:
        self._number += 1
        cells: Mapping[str, bytes | None] = dict(zip(self._columns, row, strict=True))
        key = [(cells[name] or b"").decode(errors="replace") for name in self._table.primary]
        origin = f"{self._name}[{','.join(key) if key else self._number}]"
        try:
            whole = postgres_values.row_of(self._types, self._table.columns, row)
            changes.append(Change("upsert", postgres_values.only(whole, columns), origin=origin, source=self._name))
        except UnicodeDecodeError as error:
            letters.append(Letter(f"expected texts in UTF-8, found others ({error.reason})", Trace(origin)))
        return key or None

    def close(self) -> None:
        """Ends the transaction."""
        with suppress(psycopg2.Error):
            self._connection.close()
