"""Packs that somebody wants to know the end of: what in them no longer holds, told as it happens.

A pack is looked at again when a key that it read has changed, when its collections have, when something was said or
forgotten in a session that it recalled, and every second, because a window moves on though nothing happens. Its
searches are run again after a collection's flip, once a second at most: they cost more than all the rest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.assembly.pack import Pack
from headrace.errors import HeadraceError, TooLargeError, UnknownNameError
from headrace.serving import pack_changes, pack_memory
from headrace.serving.pack_memory import Difference

if TYPE_CHECKING:
    from headrace.serving.live import Live

logger = logging.getLogger("headrace")
MOST_WATCHED = 1_000
TICK = 1.0


@dataclass
class _Watched:
    """A pack, and what was last found."""

    pack: Pack
    keys: list[tuple[str, Any]]
    collections: list[str]
    sessions: list[tuple[str, str]]
    look: bool = True
    flipped: bool = True
    search: bool = True
    next_tick: float = 0.0
    next_search: float = 0.0
    parts: dict[str, list[Difference]] = field(default_factory=dict)
    token: str = ""
    trouble: str = ""

    @property
    def changed(self) -> list[Difference]:
        return [one for name in ("values", "passages", "memory", "news") for one in self.parts.get(name, ())]


class PackWatch:
    """Watches packs, in a thread of its own that runs while there are any.

    Args:
        live: The app, running.
        listen: Calls back with the keys of a view, or the documents of a collection, that have changed; returns how to
            stop it. None where changes are not known here, and only time tells.
        report: Told the packs of which something else no longer holds.
    """

    def __init__(
        self,
        live: Live,
        listen: Callable[[str, str, Callable[[Sequence[Any]], None]], Callable[[], None] | None],
        report: Callable[[Sequence[str]], None],
    ) -> None:
        self._live = live
        self._listen = listen
        self._report = report
        self._lock = threading.Lock()
        self._packs: dict[str, _Watched] = {}
        self._by: dict[tuple[str, str], dict[Any, set[str]]] = {}
        self._stops: dict[tuple[str, str], Callable[[], None]] = {}
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    # -- who is watched --------------------------------------------------------------------------------------------

    def watch(self, id: str) -> None:
        """Begins to watch a pack.

        Raises:
            UnknownNameError: There is no such pack, or it is no longer kept.
            TooLargeError: Too many are watched.
        """
        pack = self._live.packs.get(id)
        if pack is None:
            raise UnknownNameError(f"there is no pack {id!r}: it was never made here, or is no longer kept")
        keys = [(view.name, key) for _, _, view, key in pack_changes.lookups(self._live, pack)]
        names = list(pack_changes.collections(self._live, pack))
        try:
            names += [part.collection.name for part in pack_changes.searches(self._live, pack)]
        except HeadraceError as error:
            logger.info("the pack %s: its searches cannot be asked again: %s", id, error)
        watched = _Watched(pack, keys, list(dict.fromkeys(names)), pack_memory.sessions(self._live, pack))
        with self._lock:
            if len(self._packs) >= MOST_WATCHED:
                raise TooLargeError(f"expected at most {MOST_WATCHED:,} packs to be watched at once; come back later")
            self._packs[id] = watched
            for kind, name, key in _subjects(watched):
                self._by.setdefault((kind, name), {}).setdefault(key, set()).add(id)
                if (kind, name) not in self._stops:
                    stop = self._listen(kind, name, self._listener(kind, name))
                    if stop is not None:
                        self._stops[kind, name] = stop
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headrace-pack-watch", daemon=True)
                self._thread.start()
        self._news.set()

    def unwatch(self, id: str) -> None:
        """Stops to watch it."""
        with self._lock:
            watched = self._packs.pop(id, None)
            for kind, name, key in () if watched is None else _subjects(watched):
                keys = self._by.get((kind, name), {})
                keys.get(key, set()).discard(id)
                if not keys.get(key):
                    keys.pop(key, None)
                if not keys:
                    self._by.pop((kind, name), None)
                    self._stops.pop((kind, name), _nothing)()
        self._news.set()

    @property
    def watched(self) -> int:
        """How many packs are watched."""
        return len(self._packs)

    def state(self, id: str) -> Mapping[str, Any]:
        """What no longer holds in a pack, as plain values."""
        with self._lock:
            watched = self._packs.get(id)
            changed = [] if watched is None else watched.changed
            token = "" if watched is None else watched.token
            context = "" if watched is None else watched.pack.context
        return {"pack": id, "context": context, "changed": [one.plain() for one in changed], "token": token}

    def _listener(self, kind: str, name: str) -> Callable[[Sequence[Any]], None]:
        """Called on the thread of the engine, or of a collection: it only notes who is to be looked at."""

        def changed(keys: Sequence[Any]) -> None:
            wanted = self._by.get((kind, name))
            if not wanted:
                return
            hit = {id for key in keys if key in wanted for id in tuple(wanted[key])} if None not in wanted else None
            ids = list(wanted[None]) if hit is None else hit
            for id in ids:
                watched = self._packs.get(id)
                if watched is not None:
                    watched.look = True
                    if kind == "document":
                        watched.flipped = watched.search = True
            if ids:
                self._news.set()

        return changed

    # -- looking ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            self._news.wait(TICK if self._packs else None)
            self._news.clear()
            for id, watched in list(self._packs.items()):
                now = time.monotonic()
                if self._closing.is_set():
                    return
                if watched.look or now >= watched.next_tick:
                    self._look(id, watched, now)

    def _look(self, id: str, watched: _Watched, now: float) -> None:
        watched.look = False
        watched.next_tick = now + TICK
        token = self._live.seen_token()
        found: dict[str, list[Difference]] = {}
        try:
            found["values"] = pack_changes.values(self._live, watched.pack)
            found["memory"] = [
                *pack_changes.forgotten(watched.pack),
                *pack_memory.differences(self._live, watched.pack, watched.sessions),
            ]
            if watched.flipped:
                watched.flipped = False
                found["passages"] = pack_changes.passages(self._live, watched.pack)
            if watched.search and now >= watched.next_search:
                watched.search = False
                watched.next_search = now + TICK
                found["news"] = pack_changes.news(self._live, watched.pack)
            watched.trouble = ""
        except Exception as error:  # a fault in one comparison must not end the watch over all packs
            # Looked at again with the next tick: what is out of reach now may come back.
            said, fault = f"{type(error).__name__}: {error}", None if isinstance(error, HeadraceError) else error
            if said != watched.trouble and not self._closing.is_set():
                logger.warning("the pack %s cannot be compared now: %s", id, error or said, exc_info=fault)
            watched.trouble = said
            watched.flipped = watched.flipped or "passages" not in found
            watched.search = True
        with self._lock:
            before = watched.changed
            watched.parts |= found
            watched.token = token
            told = watched.changed != before
        if told:
            self._report([id])

    def close(self) -> None:
        """Stops watching; again does nothing."""
        self._closing.set()
        for id in list(self._packs):
            self.unwatch(id)
        self._news.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


def _subjects(watched: _Watched) -> list[tuple[str, str, Any]]:
    """What a pack depends on; of a collection, any document: one that is new may fit better."""
    found: list[tuple[str, str, Any]] = [("features", *one) for one in watched.keys]
    found += [("document", name, None) for name in watched.collections]
    return found + [("memory", *one) for one in watched.sessions]


def _nothing() -> None:
    pass
