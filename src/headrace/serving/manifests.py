"""The packs that were given out, kept: to show later what a model saw, and to say when it no longer holds.

Who makes a pack hands it over and goes on; a thread writes what has gathered, in one transaction. Until then it is
found here, in memory, and a crash loses it: never more than the queue holds, and a pack that `flush` has waited for is
on the disk. The queue is bounded: past it, whoever makes packs waits until there is room.

Erasing is not put off. Rows are erased while their packs are held here (`erasing`): those that are kept are changed
first, and a pack that was read before the erasure and is handed over after it is changed as it comes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.assembly.pack import Pack
from headrace.assembly.plain import plain, revive
from headrace.documents.identity import content_hash
from headrace.errors import ClosedError, HeadraceError, StaleError
from headrace.serving.documents import position_of
from headrace.serving.pack_erasure import redacted, ref, refs
from headrace.stores.packs import Manifest, PackStore
from headrace.units import to_micros

logger = logging.getLogger("headrace")
# Without a data directory, as many are kept.
MOST_IN_MEMORY = 10_000
# How many wait to be written at most: what a crash may lose.
MOST_WAITING = 1_000
_AT_ONCE = 100
_LONGEST_WAIT = 5.0
# For how long a pack may be on its way from being read to being kept, and how many erasures are remembered for it.
_ON_ITS_WAY = 600.0
_MOST_ERASURES = 1_000
_LONGEST_ERASURE = 60.0


@dataclass(eq=False)
class _Erasure:
    """Rows of a table that were erased, or are being: packs that had not seen the deletion may hold them.

    Attributes:
        seq: The table's number after the deletion; None while it goes on.
    """

    table: str
    refs: frozenset[bytes]
    seq: int | None
    at: float

    def concerns(self, pack: Pack) -> bool:
        """Whether the pack may have been read before the rows were gone."""
        seen = pack.point.positions.get(position_of(self.table))
        return self.seq is None or not isinstance(seen, int) or seen < self.seq


class Manifests:
    """The packs of an app; for any number of threads.

    Args:
        path: The database's file; None keeps them in memory, the newest `MOST_IN_MEMORY`.
        now: The time, in microseconds since the Unix epoch.
    """

    def __init__(self, path: Path | None, now: Callable[[], int]) -> None:
        self._path = path
        self._now = now
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, Pack] = OrderedDict()
        self._memory: OrderedDict[str, Pack] = OrderedDict()
        self._erasures: deque[_Erasure] = deque(maxlen=_MOST_ERASURES)
        self._writing = False
        self._store: PackStore | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self.lost = 0

    def keep(self, pack: Pack) -> None:
        """Takes a pack; it is written soon, and at the latest when the app is closed.

        Raises:
            ClosedError: The app is closed.
        """
        with self._changed:
            if self._closed:
                raise ClosedError("the app is closed: open it again to make packs")
            if self._path is None:
                pack = self._without_erased(pack)
                self._memory[pack.id] = pack
                if len(self._memory) > MOST_IN_MEMORY:
                    self._memory.popitem(last=False)
                return
            room = self._changed.wait_for(lambda: len(self._waiting) < MOST_WAITING or self._closed, _LONGEST_WAIT)
            if not room:
                self._lose(1, "the disk does not keep up")
                return
            self._waiting[pack.id] = self._without_erased(pack)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headrace-packs", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def get(self, id: str) -> Pack | None:
        """A pack that was given out; None if it never was, or is no longer kept.

        Raises:
            StorageError: It could not be read.
        """
        with self._changed:
            held = self._memory.get(id) or self._waiting.get(id)
        if held is not None or self._path is None:
            return held
        store = self._opened(create=False)
        found = None if store is None else store.get(id)
        return None if found is None else revive(found.pack)

    def flush(self, timeout: float = 10.0) -> bool:
        """Waits until all that was taken is on the disk; False if it was not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout)

    # -- erasing ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def erasing(self, table: str, keys: Sequence[str]) -> Iterator[Callable[[int], None]]:
        """Takes what came from these rows out of all packs; the block erases the rows themselves.

        Yields:
            What the block calls when they are gone, with the table's number then.

        Raises:
            StorageError: The packs could not be written; no row is erased. Ask again.
            StaleError: Packs that are being written were not in time; no row is erased. Ask again.
        """
        made = _Erasure(table, frozenset(ref(table, key) for key in keys), None, time.monotonic())
        try:
            self._begin(made)
            store = self._opened(create=False)
            if store is not None:
                store.change(made.refs, lambda one: manifest(redacted(revive(one.pack), made.refs)))

            def done(seq: int) -> None:
                made.seq, made.at = seq, time.monotonic()

            yield done
        finally:
            if made.seq is None:  # nothing was erased
                # So many others may have come since that it has gone.
                with self._changed, contextlib.suppress(ValueError):
                    self._erasures.remove(made)

    def _begin(self, made: _Erasure) -> None:
        """From here on no pack comes in with these rows, and none that is held here has them."""
        with self._changed:
            while self._erasures and self._erasures[0].at < made.at - _ON_ITS_WAY:
                self._erasures.popleft()
            self._erasures.append(made)
            for kept in (self._memory, self._waiting):
                for id, pack in kept.items():
                    kept[id] = redacted(pack, made.refs)
            if self._closed and self._path is not None:
                raise ClosedError("the app is closed: open it again to erase")
            # What is being written was taken as it was: it is changed where it then stands.
            if not self._changed.wait_for(lambda: not self._writing, _LONGEST_ERASURE):
                raise StaleError(f"expected the packs to be written within {_LONGEST_ERASURE:g} s; erase again")

    def _without_erased(self, pack: Pack) -> Pack:
        """A pack on its way in, without what was erased meanwhile; the lock is held."""
        if not self._erasures or not refs(pack):
            return pack
        for one in self._erasures:
            if one.concerns(pack):
                pack = redacted(pack, one.refs)
        return pack

    def _opened(self, *, create: bool) -> PackStore | None:
        with self._changed:
            if self._store is None and self._path is not None and (create or self._path.exists()) and not self._closed:
                self._store = PackStore(self._path)
            return self._store

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                taken = list(self._waiting.values())[:_AT_ONCE]
                self._writing = bool(taken)
            if not taken:
                return
            self._write(taken)
            with self._changed:
                self._writing = False
                for pack in taken:
                    self._waiting.pop(pack.id, None)
                self._changed.notify_all()

    def _write(self, packs: list[Pack]) -> None:
        try:
            if self._store is None and self._path is not None:
                self._store = PackStore(self._path)
            assert self._store is not None
            self._store.add([manifest(pack) for pack in packs], self._now())
        except HeadraceError as error:
            self._lose(len(packs), str(error))
        except Exception as error:  # noqa: BLE001 - what one pack holds must not stop the others from being kept
            self._lose(len(packs), f"{type(error).__name__}: {error}")

    def _lose(self, count: int, why: str) -> None:
        self.lost += count
        logger.warning("%d packs are not kept (%d in all): %s", count, self.lost, why)

    def close(self) -> None:
        """Writes what is waiting and lets go of the file; again does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        if self._store is not None:
            self._store.close()


def manifest(pack: Pack) -> Manifest:
    """What is kept of a pack."""
    hashes = [[(one.item.id, content_hash(one.text)) for one in section.items] for section in pack.sections]
    return Manifest(pack.id, pack.context, to_micros(pack.point.now), plain(pack), hashes, refs(pack))
