"""A table as it was after any of its changes, read from its log of revisions.

Every change of a table has a number, its version. The state after version v is, of each key, the newest revision that
is not past v. Revisions never change, so the rows of a version can be read in pages, each in a transaction of its own:
however long an export takes, it never keeps the app from tidying its write-ahead log.

Revisions that were replaced long ago are forgotten (`history=` of a table). A version that was current before then may
lack rows, so it is refused rather than given with holes.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

from headrace.errors import InputError
from headrace.stores.history.reading import Reading
from headrace.stores.tables import Revision

_FORMAT = 1
_PAGE = 512
_MOST_BYTES = 8 << 20


class TableHistory:
    """The revisions of one table, to be read only.

    Args:
        path: The table's database.
        name: The table's name, for errors.

    Raises:
        InputError: There is no such database.
        StorageError: It cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._reading = Reading(path, _FORMAT, f"the table {name!r}")

    def seq(self) -> int:
        """The table's newest version."""
        with self._reading.moment() as run:
            number: int = run.execute("SELECT seq FROM last").fetchone()[0]
        return number

    def version_at(self, time: int) -> int:
        """The version that was current at a time, by when changes were stored; 0 before the first of them.

        Args:
            time: Microseconds since the Unix epoch.
        """
        with self._reading.moment() as run:
            (found,) = run.execute("SELECT max(seq) FROM history WHERE stored <= ?", (time,)).fetchone()
        return found or 0

    def stored(self, version: int) -> int | None:
        """When the last change up to a version was stored, microseconds since the Unix epoch; None before the first."""
        with self._reading.moment() as run:
            return _stored(run, version)

    def check(self, version: int, forgotten: int) -> None:
        """Holds that a version is there, and whole.

        Args:
            forgotten: Revisions that were replaced before this time may be gone; microseconds since the Unix epoch.

        Raises:
            InputError: There is no such version yet, or revisions that it needs may be gone.
        """
        with self._reading.moment() as run:
            (newest,) = run.execute("SELECT seq FROM last").fetchone()
            if not 0 <= version <= newest:
                raise InputError(
                    f"the table {self._name!r}: expected a version from 0 to {newest}, its newest, found {version}"
                )
            if version == newest or _whole(run, version, forgotten):
                return
            oldest = run.execute("SELECT min(seq) FROM history WHERE stored >= ?", (forgotten,)).fetchone()[0]
        raise InputError(
            f"the table {self._name!r}: version {version} is older than what its history keeps, so rows of it may be "
            f"gone; take version {newest if oldest is None else oldest} or a later one, and declare the table with a "
            "longer history= to keep more from now on"
        )

    def rows(self, version: int) -> Iterator[Revision]:
        """The rows as they were after a version, in the order of their keys; deleted ones are left out."""
        after: str | None = None
        while True:
            last, page = self._page(version, after)
            yield from page
            if last is None:
                return
            after = last

    def _page(self, version: int, after: str | None) -> tuple[str | None, list[Revision]]:
        """Some rows past a key, and the key to go on from; None at the end."""
        newest = "SELECT key, max(seq) FROM history WHERE seq <= ? AND key > ? GROUP BY key ORDER BY key LIMIT ?"
        one = "SELECT key, seq, kind, body, at, source, trusted FROM history WHERE seq = ?"
        if after is None:
            newest = newest.replace("key > ?", "key >= ?")
        found: list[Revision] = []
        size = 0
        with self._reading.moment() as run:
            heads = run.execute(newest, (version, after or "", _PAGE)).fetchall()
            for key, seq in heads:
                row = run.execute(one, (seq,)).fetchone()
                if row[3] is None:
                    continue
                key, seq, kind, packed, at, source, trusted = row
                body = zlib.decompress(packed)
                found.append(Revision(key, seq, kind, body, at, source, bool(trusted)))
                size += len(body)
                if size > _MOST_BYTES:
                    return key, found
        return (heads[-1][0] if len(heads) == _PAGE else None), found

    def close(self) -> None:
        """Lets go of the file; again does nothing."""
        self._reading.close()


def _stored(run: sqlite3.Connection, version: int) -> int | None:
    query = "SELECT stored FROM history WHERE seq <= ? ORDER BY seq DESC LIMIT 1"
    row = run.execute(query, (version,)).fetchone()
    return None if row is None else row[0]


def _whole(run: sqlite3.Connection, version: int, forgotten: int) -> bool:
    """Whether every revision that a version consists of is still there.

    A revision is forgotten only when what replaced it was stored before `forgotten` too. So a version is whole if it
    was still current then; or if nothing up to it has been forgotten at all, which shows in the numbers.
    """
    after = run.execute("SELECT stored FROM history WHERE seq = ?", (version + 1,)).fetchone()
    times = [_stored(run, version), None if after is None else after[0]]
    if any(time is not None and time >= forgotten for time in times):
        return True
    (count,) = run.execute("SELECT count(*) FROM history WHERE seq <= ?", (version,)).fetchone()
    return bool(count == version)
