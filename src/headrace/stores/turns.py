"""A table of turns: the newest of a session, those of a subject and those before a time are each a short range scan.

The rows are those of any table, and whoever follows the table sees nothing special. Beside the key there are indexes
over columns of the rows themselves, which SQLite keeps as it writes a row; a deleted row is in none of them. What is
erased is overwritten in the file (`secure_delete`), and `scrub` empties the write-ahead log, which holds copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from headrace.stores.tables import Revision, TableStore

_INDEXES = """
CREATE INDEX IF NOT EXISTS turns_by_session ON rows
    (json_extract(CAST(body AS TEXT), '$.group'), json_extract(CAST(body AS TEXT), '$.number'));
CREATE INDEX IF NOT EXISTS turns_by_subject ON rows (json_extract(CAST(body AS TEXT), '$.about'));
CREATE INDEX IF NOT EXISTS turns_by_time ON rows (json_extract(CAST(body AS TEXT), '$.at'))"""
_GROUP = "json_extract(CAST(body AS TEXT), '$.group')"
_NUMBER = "json_extract(CAST(body AS TEXT), '$.number')"
_ABOUT = "json_extract(CAST(body AS TEXT), '$.about')"
_AT = "json_extract(CAST(body AS TEXT), '$.at')"
_ROW = "key, seq, kind, body, at, source, trusted"
_GATHERED = "key, seq, kind, CAST(body AS TEXT), at, source, trusted"


class ErasingStore(TableStore):
    """A table of which what is erased is gone from the disk, too; see `TableStore`."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        super().__init__(path, durable=durable)
        self._database.overwrite_deleted()

    def forget_replaced(self, key: str) -> None:
        """Forgets what a row was before."""
        with self._database.write() as run:
            run.execute(
                "DELETE FROM history WHERE key = ?1 AND seq < (SELECT max(seq) FROM history WHERE key = ?1)", (key,)
            )

    def scrub(self) -> bool:
        """Empties the write-ahead log; False if a long read was in the way."""
        return self._database.scrub()


class TurnStore(ErasingStore):
    """The turns of a memory; for any number of threads.

    Args:
        path: The database's file, made if it is not there.
        durable: Whether what is written is on the disk when `apply` returns.

    Raises:
        StorageError: The file cannot be opened.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        super().__init__(path, durable=durable)
        with self._database.write() as run:
            for statement in _INDEXES.split(";\n"):
                run.execute(statement)
        self.looked_at = 0

    def newest(
        self, group: str, limit: int, *, since: int = 0, before: int | None = None, upto: int | None = None
    ) -> list[Revision]:
        """A session's newest turns, oldest first.

        Args:
            group: The session's.
            limit: At most this many.
            since: Only turns said at this time or later, in microseconds since the Unix epoch.
            before: Only turns whose number is smaller.
            upto: As the table was after this change; what was taken away since is not there any more.
        """
        most = 1 << 62
        # A number is never smaller than its time: the range ends where no turn can be young enough any more.
        query = (
            f"SELECT {_ROW} FROM rows WHERE {_GROUP} = ? AND {_NUMBER} < ? AND {_NUMBER} >= ? AND +{_AT} >= ? "
            f"AND +seq <= ? ORDER BY {_NUMBER} DESC LIMIT ?"
        )
        bounds = (most if before is None else before, since, since, most if upto is None else upto)
        return self._rows(query, (group, *bounds, limit))[::-1]

    def after(self, group: str, number: int, limit: int, *, before: int | None = None) -> list[Revision]:
        """A session's turns past a number, oldest first, at most `limit` of them."""
        query = (
            f"SELECT {_ROW} FROM rows WHERE {_GROUP} = ? AND {_NUMBER} > ? AND {_NUMBER} < ? ORDER BY {_NUMBER} LIMIT ?"
        )
        return self._rows(query, (group, number, (1 << 62) if before is None else before, limit))

    def numbers(self, group: str, first: int, limit: int) -> list[int]:
        """The numbers that are taken in a session, from one on."""
        query = f"SELECT {_NUMBER} FROM rows WHERE {_GROUP} = ? AND {_NUMBER} >= ? ORDER BY {_NUMBER} LIMIT ?"
        with self._database.read() as run:
            return [number for (number,) in run.execute(query, (group, first, limit))]

    def last_number(self, group: str) -> int:
        """The number of a session's newest turn; -1 if it has none."""
        query = f"SELECT {_NUMBER} FROM rows WHERE {_GROUP} = ? ORDER BY {_NUMBER} DESC LIMIT 1"
        found = self._database.row(query, (group,))
        return -1 if found is None else int(found[0])

    def of_subject(self, about: str, limit: int) -> list[Revision]:
        """Turns about somebody, by the digest of their name: SQLite would cut a name at a NUL."""
        return self._rows(f"SELECT {_ROW} FROM rows WHERE {_ABOUT} = ? LIMIT ?", (about, limit))

    def said_before(self, at: int, limit: int) -> list[Revision]:
        """The oldest turns that were said before a time."""
        return self._rows(f"SELECT {_ROW} FROM rows WHERE {_AT} < ? ORDER BY {_AT} LIMIT ?", (at, limit))

    def _rows(self, query: str, values: Sequence[object]) -> list[Revision]:
        gathered = self._database.row(f"SELECT json_group_array(json_array({_GATHERED})) FROM ({query})", values)
        found = msgspec.json.decode(gathered[0]) if gathered is not None else []
        self.looked_at += len(found)  # for tests and figures: of a long session, a few are looked at
        return [
            Revision(key, seq, kind, body.encode(), at, source, bool(trusted))
            for key, seq, kind, body, at, source, trusted in found
        ]
