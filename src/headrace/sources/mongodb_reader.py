"""One reading of a collection, as `MongoSource.open` gives it out: batches of what its thread has read."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from headrace.errors import ClosedError, StorageError
from headrace.sources.handover import Handover
from headrace.sources.mongodb_feed import Client, Feed, Place
from headrace.sources.mongodb_rows import Rows
from headrace.sources.mongodb_url import MongoUrl
from headrace.sources.tables import Changes
from headrace.units import SECOND

_PATIENCE = 5.0


class MongoReader:
    """See `TableReader`.

    Args:
        place: Where to begin.
        client: One that is connected already; it is closed with the reader.
    """

    def __init__(self, url: MongoUrl, rows: Rows, place: Place, client: Client | None = None) -> None:
        self._url, self._rows, self._place = url, rows, place
        self._handover: Handover[Changes] = Handover()
        self._lock = threading.Lock()
        self._held: list[Changes] = []  # taken, and not given out yet
        self._created = 0
        self._closed = False
        self._feed: Feed | None = Feed(url, rows, place, self._handover, client) if client is not None else None

    def read(self, timeout: float) -> Changes | None:
        """The next batch; see `TableReader.read`. An error is told once, and the next call connects again."""
        self._start()
        if not self._held:
            try:
                self._held = self._handover.take(timeout)
            except StorageError:
                self._ended()
                raise
        self._check_open()
        if not self._held:
            return None
        batch, self._held = _merged(self._held)
        if batch.created is not None:
            self._created = batch.created
        return batch

    def stored(self, changes: Changes) -> None:
        """Nothing is to be done: the server does not wait for its readers."""

    def lag(self) -> Mapping[str, int]:
        """Whole seconds between the newest time that the cluster told and the last change that was read."""
        feed = self._feed
        if feed is None or not feed.cluster_time:
            return {}
        behind = bool(self._held) or self._handover.bytes > 0
        return {"seconds": max(0, feed.cluster_time - self._created // SECOND) if behind and self._created else 0}

    def at_end(self) -> bool:
        """Whether the server, asked from now on, has nothing that was not read."""
        self._check_open()
        if self._held or self._feed is None:
            return False
        return self._handover.is_quiet(_PATIENCE)

    def close(self) -> None:
        """Ends a read that waits, and the thread; waits for the request that is under way."""
        with self._lock:
            self._closed = True
            self._handover.close()
            feed = self._feed
        if feed is not None:
            feed.join()

    def _start(self) -> None:
        with self._lock:
            self._check_open()
            if self._feed is None:
                self._feed = Feed(self._url, self._rows, self._place, self._handover)

    def _ended(self) -> None:
        """The thread has failed; the next one goes on where it stood."""
        with self._lock:
            feed, self._feed = self._feed, None
        if feed is not None:
            feed.join()
            self._place = feed.place

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the reader of {self._url.name} is closed; open the source again")


def _merged(pieces: list[Changes]) -> tuple[Changes, list[Changes]]:
    """One batch of the pieces that go together, and the others: a snapshot and a stream are told apart."""
    first = pieces[0]
    count = 1
    while count < len(pieces) and not pieces[count - 1].complete:
        following = pieces[count]
        if following.begins or following.snapshot != first.snapshot:
            break
        count += 1
    taken, last = pieces[:count], pieces[count - 1]
    created: list[Any] = [piece.created for piece in taken if piece.created is not None]
    merged = Changes(
        [change for piece in taken for change in piece.changes],
        last.position,
        snapshot=first.snapshot,
        complete=last.complete,
        begins=first.begins,
        letters=[letter for piece in taken for letter in piece.letters],
        created=max(created, default=None),
    )
    return merged, pieces[count:]
