"""One collection while it runs: it follows its table, and keeps index and records in step with it.

A batch is made in this order, so that a reader never sees half a revision and a crash loses nothing:

    clean, chunk ─► embed what is new ─► note what will be written ─► write it to the index ─► flip the records
                                                                       (nobody sees it yet)      (all see it)
    ... and once no search is left that began before the flip: drop the old points from the index.

The position in the table moves with the flip. What must wait (an embedder or an index that is out of reach) waits here,
in this collection's own thread: features and other collections go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from headrace.documents.states import Chunk, EmbeddedChunk
from headrace.documents.terms import terms
from headrace.errors import ClosedError, InputError, StorageError
from headrace.runners.embedding.lanes import Lane
from headrace.runners.library.background import Background
from headrace.runners.library.figures import CollectionFigures
from headrace.runners.library.prepare import Prepared, Preparer, difference
from headrace.runners.library.readers import Readers
from headrace.runners.library.repair import repair
from headrace.runners.library.search import Held, held
from headrace.runners.library.spaces import LiveSpace, Spaces
from headrace.runners.library.table import LiveTable
from headrace.runners.meetings import Meetings
from headrace.runners.setaside import SetAside
from headrace.sources.base import Letter, Trace
from headrace.stores.records import Flip, Records
from headrace.stores.tables import Revision
from headrace.stores.vectors.base import Point, Terms

if TYPE_CHECKING:
    from headrace.declarations import Collection

logger = logging.getLogger("headrace")
# A batch: small enough that an edit does not wait long behind it, large enough to embed by length.
_MOST_DOCUMENTS = 64
_MOST_BYTES = 4 << 20
_POLL = 0.2
_SWEEP = 0.005
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 10.0


class LiveCollection:
    """A collection that is kept in step.

    Args:
        collection: What was declared.
        table: The table that it follows.
        records: Its records.
        spaces: Its indexes.
        setaside: Where goes what cannot be used.
    """

    def __init__(
        self, collection: Collection, table: LiveTable, records: Records, spaces: Spaces, setaside: SetAside
    ) -> None:
        self.collection = collection
        self.records = records
        self.spaces = spaces
        self.readers = Readers()
        self.changed = threading.Condition()
        self.failure: str | None = None
        self.problem: str | None = None
        self.ready = False
        # Told after each flip, on this collection's thread: documents written, documents gone, the table's number.
        self.listeners: list[Callable[[Sequence[str], Sequence[str], int], None]] = []
        self._table = table
        self._setaside = setaside
        self._preparer = Preparer(collection)
        self._pipelines = {kind: collection.pipeline(kind) for kind in table.schema.models}
        self._counts: Counter[str] = Counter()
        self._garbage: list[tuple[int, list[tuple[str, int]]]] = []
        self._idle_since: float | None = None
        self.settled = False  # whether all documents are made as they should be now
        self._closing = threading.Event()
        self._background = Background(
            collection.name,
            table.store,
            records,
            spaces,
            self._preparer,
            self._pipelines,
            self._again,
            self._switch,
            self.wake,
        )
        with records.moment() as moment:
            self.position = moment.position
        self.aimed = self.position  # what is being made now brings it here
        self.ahead = 0  # moments before this may show rows newer than they say
        self.meetings: Meetings[Held] | None = None
        self._thread = threading.Thread(target=self._run, name=f"headrace-collection-{collection.name}", daemon=True)

    def start(self) -> None:
        """Begins to follow the table."""
        self._thread.start()

    # -- following -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = _FIRST_BACKOFF
        while not self._closing.is_set():
            try:
                if not self.ready:
                    self._open()
                self._step()
                self.problem = None
                backoff = _FIRST_BACKOFF
            except ClosedError:
                return
            except StorageError as error:
                if self._closing.is_set():
                    return
                self.problem = str(error)
                logger.warning("the collection %s: %s; trying again in %.1f s", self.collection.name, error, backoff)
                self._closing.wait(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF)
            except Exception as error:
                logger.exception("the collection %s has stopped", self.collection.name)
                self._fail(f"{type(error).__name__}: {error}")
                return

    def _open(self) -> None:
        self.spaces.start()
        self.records.recover()
        self._garbage = [(self.readers.epoch, self.records.garbage())]
        self._sweep()
        for space in self.spaces.open.values():
            repair(space, self.records, self._closing)
        with self.changed:
            self.ready = True
            self.changed.notify_all()

    def _step(self) -> None:
        revisions, upto = self._table.store.since(self.position, _MOST_DOCUMENTS, _MOST_BYTES, self._meet())
        self.aimed = upto
        self._meetings().aim(self.collection.name, upto)
        if revisions or upto > self.position:
            self._process(revisions, upto)
            self._background.edited()
        elif not self._catch_up():
            self._wait_for_table()
        self._sweep()

    def _meet(self) -> int:
        """Lets readers have a look who wait for it here; how far to follow now, to pass none of them."""
        meetings, name = self._meetings(), self.collection.name
        if meetings.due(name, self.position):
            if self.position < self.ahead:
                meetings.spoil(name, self.position, f"{name} is between two changes of one document")
            else:
                meetings.arrive(name, self.position, lambda: held(self, 0.0))
        return meetings.upto(name, self.position)

    def _meetings(self) -> Meetings[Held]:
        assert self.meetings is not None, "the library sets it before the start"
        return self.meetings

    def _wait_for_table(self) -> None:
        warming, meetings = self._background.busy, self._meetings()

        def news() -> bool:
            newer = meetings.wanted(self.collection.name, self.position)
            return newer or self._closing.is_set() or (warming and not self._background.busy)

        with self._table.changed:
            self._table.changed.wait_for(news, _SWEEP if self._garbage else _POLL)

    def wake(self) -> None:
        """Somebody waits for this collection."""
        with self._table.changed:
            self._table.changed.notify_all()

    def _catch_up(self) -> bool:
        """One batch of what a changed pipeline asks for, when there is nothing newer; False if there is none now."""
        if self.settled:
            return False
        made = self._background.step()
        if made is None:
            with self.changed:
                self.settled = True
                self.changed.notify_all()
        return bool(made)

    def _again(self, revisions: Sequence[Revision]) -> None:
        self._process(revisions, None)

    def _switch(self, kind: str, number: int, old: int | None) -> None:
        """Shows a type of documents in its new space; once nobody reads the old one, it is taken out of that."""
        self.records.use(kind, number, live=True)
        self.spaces.refresh_uses()
        epoch = self.readers.flipped()
        while not self.readers.gone_before(epoch) and not self._closing.is_set():
            self._closing.wait(_SWEEP)
        while old is not None and self.records.remove_of_kind(old, kind, 1000):
            pass
        self._garbage.append((self.readers.flipped(), self.records.garbage()))
        self.spaces.refresh()

    def _process(self, revisions: Sequence[Revision], position: int | None) -> None:
        # What is being filled is not written to by edits: a new embedder that is slow, or away, must not hold them up.
        live = position is not None
        newest = max((one.seq for one in revisions), default=0)
        if newest > (self.position if position is None else position):
            self.ahead = max(self.ahead, newest)
        spaces = {kind: self.spaces.of_kind(kind, live=live) for kind in self._table.schema.models}
        embedders = {kind: {n: one.embedder for n, one in found.items()} for kind, found in spaces.items()}
        with self.records.moment() as moment:
            made = self._preparer.prepare(revisions, embedders, moment)
        # Edits, here and in other collections, go before a load of many documents.
        lane: Lane = "live" if live and len(revisions) < _MOST_DOCUMENTS else "backfill"
        embedded = self._embed(made, {one.key: one for one in revisions}, lane)
        points = self._points(made, embedded)
        self.records.intend((point.id, number) for number, found in points.items() for point in found)
        if made.rewritten:
            with self.readers.changing():
                self._publish(made, points, position)
        else:
            self._publish(made, points, position)

    def _embed(self, made: Prepared, revisions: dict[str, Revision], lane: Lane) -> dict[str, EmbeddedChunk]:
        """The vectors of what is new; a document of which a chunk cannot be embedded becomes a problem."""
        embedded: dict[str, EmbeddedChunk] = {}
        for number in list(made.fresh):
            again = [chunk for key in made.rewritten for chunk in made.chunks.get((key, number), ())]
            chunks = list({chunk.id: chunk for chunk in (*made.fresh[number], *again)}.values())
            texts = [(bytes.fromhex(one.hash), one.embedded) for one in chunks]
            found = self.spaces.open[number].queue.embed(texts, lane=lane)
            for chunk, vector in zip(chunks, found, strict=True):
                if isinstance(vector, InputError):
                    if chunk.document not in made.problems:
                        self._preparer.fail(made, revisions[chunk.document], str(vector))
                else:
                    embedded[chunk.id] = EmbeddedChunk(chunk, vector)
            self._counts["embedded"] += len(made.fresh[number])
        return embedded

    def _points(self, made: Prepared, embedded: dict[str, EmbeddedChunk]) -> dict[int, list[Point]]:
        points: dict[int, list[Point]] = {}
        for (key, number), chunks in made.chunks.items():
            wanted = chunks if key in made.rewritten else self._fresh(made, number, key)
            words = terms([chunk.embedded for chunk in wanted])
            columns = made.documents[key].columns
            points.setdefault(number, []).extend(
                Point(chunk.id, embedded[chunk.id].vector, Terms(*of), {**columns, "document": key, "text": chunk.text})
                for chunk, of in zip(wanted, words, strict=True)
            )
        return points

    @staticmethod
    def _fresh(made: Prepared, number: int, key: str) -> list[Chunk]:
        return [chunk for chunk in made.fresh.get(number, ()) if chunk.document == key]

    def _publish(self, made: Prepared, points: dict[int, list[Point]], position: int | None) -> None:
        for number, found in points.items():
            if found:
                self.spaces.open[number].index.write(found, [])
                self._counts["written"] += len(found)
        written, removed, kept = difference(made)
        self._counts["kept"] += kept
        self.records.flip(Flip(list(made.documents.values()), made.gone, written, removed, position))
        if made.problems:
            self._set_aside(made)
        with self.changed:
            if position is not None:
                self.position = position
            self._garbage.append((self.readers.flipped(), removed))
            self.changed.notify_all()
        for listener in self.listeners:
            listener(list(made.documents), made.gone, self.position)

    def _set_aside(self, made: Prepared) -> None:
        letters = [
            Letter(reason, Trace(f"{self.collection.name}/{key}@{revision.seq}", revision.body or b""))
            for key, (reason, revision) in made.problems.items()
        ]
        self._setaside.traced(self._table.table.name, letters, "rejected")

    def _sweep(self) -> None:
        """Drops points that nobody can be given any more."""
        while self._garbage and self.readers.gone_before(self._garbage[0][0]):
            _, points = self._garbage[0]
            for number, space in self.spaces.open.items():
                ids = [one for one, of in points if of == number]
                if ids:
                    self._forget(space, ids)
            with self.changed:
                self._garbage.pop(0)
                self.changed.notify_all()

    def _forget(self, space: LiveSpace, ids: list[str]) -> None:
        with self.records.moment() as moment:
            # A chunk may have come back since.
            alive = moment.alive(ids)
        gone = [one for one in ids if one not in alive]
        space.index.write([], gone)
        self.records.dropped(ids)
        self._counts["removed"] += len(gone)

    def _fail(self, reason: str) -> None:
        with self.changed:
            self.failure = reason
            self.changed.notify_all()
        self._meetings().spoil(self.collection.name, None, self.stopped or reason)

    @property
    def stopped(self) -> str | None:
        """That it has stopped, and why."""
        return None if self.failure is None else f"the collection {self.collection.name!r} has stopped: {self.failure}"

    def is_settled(self) -> bool:
        """Whether every document is made as it should be now, and no index is being filled anew."""
        return self.settled

    def sweeping(self) -> bool:
        """Whether an index still holds points that nobody can find any more."""
        return bool(self._garbage)

    # -- looking after it ------------------------------------------------------------------------------------------

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Waits until `done`, asked after every flip; False if it did not hold within `timeout` seconds.

        Raises:
            ClosedError: The collection has stopped.
        """
        with self.changed:
            held = self.changed.wait_for(lambda: done() or self.failure is not None or self._closing.is_set(), timeout)
            if not done() and self.failure is not None:
                raise ClosedError(self.stopped)
            if not done() and self._closing.is_set():
                raise ClosedError(f"the collection {self.collection.name!r} is closed; open the app again")
        return held

    def trouble(self) -> str | None:
        """What is in the way: why it has stopped, or what is tried again."""
        waited = (space.queue.problem for space in list(self.spaces.open.values()))
        return self.failure or self.problem or next((one for one in waited if one is not None), None)

    def figures(self) -> CollectionFigures:
        """The counters."""
        with self.records.moment() as moment:
            documents, chunks, failed = moment.counts()
        waiting = self._table.store.waiting(self.position)
        if not waiting:
            self._idle_since = time.monotonic()
        return CollectionFigures(
            self.position,
            documents,
            chunks,
            failed,
            waiting,
            0.0 if not waiting or self._idle_since is None else time.monotonic() - self._idle_since,
            self._counts["embedded"],
            self._counts["kept"],
            self._counts["written"],
            self._counts["removed"],
            len(self.spaces.filling()),
            self.trouble(),
        )

    def stop(self) -> None:
        """Stops following; a batch that is not flipped is made again at the next start."""
        self._closing.set()
        for condition in (self._table.changed, self.changed):
            with condition:
                condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def close(self) -> None:
        """Lets go of indexes and records, once it is stopped."""
        self.spaces.close()
        self.records.close()
