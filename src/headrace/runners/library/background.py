"""What a changed pipeline asks for, done beside the live edits: documents cut anew, and new indexes filled.

The slow part is embedding, and it must not hold up an edit. So it runs ahead in a thread of its own, with less right to
the embedder than what is live, and only fills the cache; when a batch's vectors are there, the collection's own thread
makes the batch like any other, at once.

An edit that comes while a new index is filled is written to the index that is searched; in the new one the document is
taken away, and so found missing and filled in again before searches switch to it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.documents.states import Chunk
from headrace.errors import ClosedError, StorageError
from headrace.runners.embedding.queue import EmbedQueue
from headrace.runners.library.prepare import Preparer
from headrace.runners.library.spaces import Spaces
from headrace.stores.records import Records
from headrace.stores.tables import Revision, TableStore

logger = logging.getLogger("headrace")
# Documents a batch: a live edit waits for one to be made, with all vectors there.
_MOST_DOCUMENTS = 16


class Warmer:
    """Embeds a batch ahead, into the cache.

    Args:
        done: Called, from another thread, when a batch is embedded or cannot be.
    """

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._running = False
        self._error: Exception | None = None
        self._batch: tuple[str, ...] = ()

    def warm(self, keys: Sequence[str], texts: Sequence[tuple[EmbedQueue, list[tuple[bytes, str]]]]) -> bool:
        """Whether these documents' texts are embedded; begins it if they are not.

        Raises:
            StorageError: They could not be; the next call begins again.
        """
        if self._running:
            return False
        error, self._error = self._error, None
        if error is not None:
            self._batch = ()
            raise error
        if self._batch == tuple(keys) or not any(some for _, some in texts):
            return True
        self._batch = tuple(keys)
        self._running = True
        threading.Thread(target=self._run, args=(texts,), name="headrace-warm", daemon=True).start()
        return False

    def _run(self, texts: Sequence[tuple[EmbedQueue, list[tuple[bytes, str]]]]) -> None:
        try:
            for queue, some in texts:
                queue.embed(some, lane="backfill")
        except (StorageError, ClosedError) as error:
            self._error = error
        self._running = False
        self._done()

    @property
    def busy(self) -> bool:
        """Whether a batch is being embedded."""
        return self._running


class Background:
    """The documents of one collection that are not as they should be yet.

    Args:
        name: The collection's.
        table: What it follows.
        pipelines: How documents of each type are made now.
        process: Makes a batch of documents in the given spaces, and shows it.
        switch: Shows a type of documents in a space, and takes it out of another.
        done: Called when there may be something to do again.
    """

    def __init__(
        self,
        name: str,
        table: TableStore,
        records: Records,
        spaces: Spaces,
        preparer: Preparer,
        pipelines: Mapping[str, str],
        process: Callable[[Sequence[Revision]], None],
        switch: Callable[[str, int, int | None], None],
        done: Callable[[], None],
    ) -> None:
        self._name = name
        self._table = table
        self._records = records
        self._spaces = spaces
        self._preparer = preparer
        self._pipelines = pipelines
        self._process = process
        self._switch = switch
        self._warmer = Warmer(done)
        self._cursor: dict[tuple[str, int], str] = {}

    @property
    def busy(self) -> bool:
        """Whether something is being embedded ahead."""
        return self._warmer.busy

    def edited(self) -> None:
        """Documents changed: those that are missing from a new index may stand before where the filling is."""
        self._cursor.clear()

    def step(self) -> bool | None:
        """One batch: True if it was made, False if it is being embedded, None if there is nothing left to do.

        Raises:
            StorageError: An embedder or an index is out of reach.
        """
        if self._spaces.deferred:
            self._spaces.start()
        with self._records.moment() as moment:
            keys = moment.outdated(self._pipelines, _MOST_DOCUMENTS)
        if keys:
            return self._made(keys)
        for kind, number in self._spaces.filling():
            return self._fill(kind, number)
        return None

    def _fill(self, kind: str, number: int) -> bool:
        """One batch into a space that is not searched yet; when it is full, searches switch to it."""
        after = self._cursor.get((kind, number), "")
        with self._records.moment() as moment:
            keys = moment.missing(number, kind, after, _MOST_DOCUMENTS)
            old = next((one.number for one in moment.spaces() if one.uses.get(kind)), None)
        if not keys:
            self._switch(kind, number, old)
            logger.info("the collection %s: %s documents are searched in their new index", self._name, kind)
            return True
        made = self._made(keys)
        if made:
            self._cursor[kind, number] = keys[-1]
        return made

    def _made(self, keys: Sequence[str]) -> bool:
        # A row that has gone meanwhile is taken away when its deletion is followed.
        revisions = list(self._table.get(keys).values())
        if not self._warmer.warm(keys, self._texts(revisions)):
            return False
        self._process(revisions)
        return True

    def _texts(self, revisions: Sequence[Revision]) -> list[tuple[EmbedQueue, list[tuple[bytes, str]]]]:
        """What has to be embedded for these documents, by embedder."""
        embedders: dict[str, dict[int, Any]] = {
            kind: {number: space.embedder for number, space in self._spaces.of_kind(kind).items()}
            for kind in self._pipelines
        }
        with self._records.moment() as moment:
            fresh = self._preparer.prepare(revisions, embedders, moment).fresh
        return [(self._spaces.open[number].queue, _hashed(chunks)) for number, chunks in fresh.items()]


def _hashed(chunks: Sequence[Chunk]) -> list[tuple[bytes, str]]:
    return [(bytes.fromhex(chunk.hash), chunk.embedded) for chunk in chunks]
