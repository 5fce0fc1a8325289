"""The packs that were given out, kept: to show later what a model saw, and to say when it no longer holds.

Who makes a pack hands it over and goes on; a thread writes what has gathered, in one transaction. Until then it is
found here, in memory. The queue is bounded: past it, whoever makes packs waits until there is room.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from headrace.assembly.pack import Pack
from headrace.assembly.plain import plain, revive
from headrace.documents.identity import content_hash
from headrace.errors import ClosedError, HeadraceError
from headrace.stores.packs import Manifest, PackStore
from headrace.units import to_micros

logger = logging.getLogger("headrace")
# Without a data directory, as many are kept.
MOST_IN_MEMORY = 10_000
_MOST_WAITING = 1_000
_AT_ONCE = 100
_LONGEST_WAIT = 5.0


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
                self._memory[pack.id] = pack
                if len(self._memory) > MOST_IN_MEMORY:
                    self._memory.popitem(last=False)
                return
            room = self._changed.wait_for(lambda: len(self._waiting) < _MOST_WAITING or self._closed, _LONGEST_WAIT)
            if not room:
                self._lose(1, "the disk does not keep up")
                return
            self._waiting[pack.id] = pack
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
            if not taken:
                return
            self._write(taken)
            with self._changed:
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
    return Manifest(pack.id, pack.context, to_micros(pack.point.now), plain(pack), hashes)
