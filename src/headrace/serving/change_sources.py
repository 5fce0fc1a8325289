"""Where changes come from: listeners at views, at collections' flips and at tables, while they are watched.

Each is called on the thread that makes the change, and only says which keys it was; a table says no more than that
there is something, and the hub's own thread asks it what.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError, InputError, UnknownNameError
from headrace.serving.changes_hub import ALL, Hub, Told
from headrace.serving.pack_watch import PackWatch

if TYPE_CHECKING:
    from headrace.runners.library.memory import LiveMemory
    from headrace.runners.library.table import LiveTable
    from headrace.serving.live import Live

FEATURES, DOCUMENT, ROW, PACK = "features", "document", "row", "pack"
MEMORY = "memory"
_ROWS_AT_ONCE = 1_000
_BYTES_AT_ONCE = 4 << 20


class Sources:
    """An open app as the hub's feed."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.hub: Hub | None = None
        self.packs = PackWatch(live, self.listen, lambda ids: self._report(PACK, "", ids))
        self._lock = threading.Lock()
        # By kind and name: how many keys of it are watched, and how to stop listening.
        self._listening: dict[tuple[str, str], tuple[set[Any], Callable[[], None]]] = {}

    def attach(self, kind: str, name: str, key: Any) -> None:
        """Listens, if nobody does yet.

        Raises:
            InputError: The engine runs elsewhere, and what changes is not known here.
        """
        if kind == PACK:
            self.packs.watch(key)
            return
        with self._lock:
            if (kind, name) in self._listening:
                self._listening[kind, name][0].add(key)
                return
            start = {FEATURES: self._view, DOCUMENT: self._documents, ROW: self._table}[kind]
            self._listening[kind, name] = ({key}, start(name))

    def detach(self, kind: str, name: str, key: Any) -> None:
        """Listens no longer, if this was the last key."""
        if kind == PACK:
            self.packs.unwatch(key)
            return
        with self._lock:
            keys, stop = self._listening.get((kind, name), (set(), _nothing))
            keys.discard(key)
            if not keys:
                self._listening.pop((kind, name), None)
                stop()

    @property
    def listening(self) -> int:
        """At how many views, collections and tables."""
        return len(self._listening)

    def _report(self, kind: str, name: str, keys: Sequence[Any], details: Sequence[Any] | None = None) -> None:
        if self.hub is not None:
            self.hub.report(kind, name, keys, details)

    def listen(self, kind: str, name: str, call: Callable[[Sequence[Any]], None]) -> Callable[[], None] | None:
        """Calls back with the keys of a view, the documents of a collection or the sessions of a memory that changed.

        Returns:
            How to stop it; None if the engine runs elsewhere, and what changes is not known here.
        """
        if kind == FEATURES:
            listeners = self._live.view_listeners()
            return None if listeners is None else _listen_view(listeners, name, call)
        if kind == MEMORY:
            return _listen_memory(self._live.library.memories[name], call)
        return self._collection(name, lambda written, gone, _: call([*written, *gone]))

    def _view(self, name: str) -> Callable[[], None]:
        stop = self.listen(FEATURES, name, lambda keys: self._report(FEATURES, name, keys))
        if stop is None:
            raise InputError(
                f"the changes of {name!r} are told where its engine runs, in one process (runner 'local'), "
                f"and this app runs with {self._live.app.runner!r}; ask there, or read again from time to time"
            )
        return stop

    def _documents(self, name: str) -> Callable[[], None]:
        def flipped(written: Sequence[str], gone: Sequence[str], position: int) -> None:
            details = [("written", position)] * len(written) + [("gone", position)] * len(gone)
            self._report(DOCUMENT, name, [*written, *gone], details)

        return self._collection(name, flipped)

    def _collection(
        self, name: str, flipped: Callable[[Sequence[str], Sequence[str], int], None]
    ) -> Callable[[], None]:
        live = self._live.library.collections[name]
        live.listeners = [*live.listeners, flipped]

        def stop() -> None:
            live.listeners = [one for one in live.listeners if one is not flipped]

        return stop

    def _table(self, name: str) -> Callable[[], None]:
        table = self._live.library.tables[name]
        follower = _Follower(name, table, self._report, self._soon)
        changed = follower.changed
        table.listeners = [*table.listeners, changed]

        def stop() -> None:
            follower.stop()
            table.listeners = [one for one in table.listeners if one is not changed]

        return stop

    def _soon(self, work: Callable[[], None]) -> None:
        if self.hub is not None:
            self.hub.soon(work)

    # -- what is told ----------------------------------------------------------------------------------------------

    def told(self, change: Told) -> Mapping[str, Any]:
        """A change as plain values: a row as it reads at this moment, and of a document only what happened to it."""
        kind, name, key = change.subject
        if kind == FEATURES:
            view = self._live.app.views[name]
            shown = dict(zip(view.keys, key if len(view.keys) > 1 else (key,), strict=True))
            return {"view": name, "key": shown, "row": self._live.read(view, key)}
        if kind == PACK:
            return self.packs.state(key)
        what, number = change.detail
        if kind == DOCUMENT:
            return {"collection": name, "document": key, "what": what, "position": number}
        return {"table": name, "key": key, "what": what, "position": number}


class _Follower:
    """Asks a table what has changed, on the hub's thread, once for any number of changes."""

    def __init__(
        self,
        name: str,
        table: LiveTable,
        report: Callable[[str, str, Sequence[Any], Sequence[Any]], None],
        soon: Callable[[Callable[[], None]], None],
    ) -> None:
        self._name = name
        self._table = table
        self._report = report
        self._soon = soon
        self._seq = table.store.seq
        self._asked = False
        self._stopped = threading.Event()

    def changed(self) -> None:
        if not self._asked:
            self._asked = True
            self._soon(self._ask)

    def stop(self) -> None:
        self._stopped.set()

    def _ask(self) -> None:
        self._asked = False
        while not self._stopped.is_set() and self._table.store.seq > self._seq:
            try:
                found, upto = self._table.store.since(self._seq, _ROWS_AT_ONCE, _BYTES_AT_ONCE)
            except HeadraceError:
                if self._stopped.is_set():
                    return  # the table was closed meanwhile
                raise
            details = [("deleted" if one.body is None else "written", one.seq) for one in found]
            self._report(ROW, self._name, [one.key for one in found], details)
            self._seq = upto


def _listen_view(
    listeners: dict[str, list[Callable[[list[Any]], None]]], name: str, call: Callable[[Sequence[Any]], None]
) -> Callable[[], None]:
    # The engine walks these lists while we change them: each change is a new list.
    listeners[name] = [*listeners.get(name, ()), call]

    def stop() -> None:
        listeners[name] = [one for one in listeners.get(name, ()) if one is not call]

    return stop


def _listen_memory(memory: LiveMemory, call: Callable[[Sequence[Any]], None]) -> Callable[[], None]:
    memory.listeners = [*memory.listeners, call]

    def stop() -> None:
        memory.listeners = [one for one in memory.listeners if one is not call]

    return stop


def _nothing() -> None:
    pass


def wanted(
    live: Live,
    view: Any = None,
    keys: Sequence[Any] | None = None,
    collection: Any = None,
    table: Any = None,
    pack: str | Sequence[str] | None = None,
) -> list[tuple[str, str, Any]]:
    """What a program subscribes to, checked.

    Raises:
        UnknownNameError: There is no such view, collection, table or pack.
        InputError: A key is not one of the view's, or there are keys without a view, or nothing is subscribed to.
    """
    found: list[tuple[str, str, Any]] = []
    if view is not None:
        target = live.app.view_of(view)
        if isinstance(keys, str | bytes | Mapping):
            raise InputError(f"{target.name}: expected several keys, found {keys!r}; put it into a list")
        asked = [ALL] if keys is None else [target.key(key) for key in keys]
        found += [(FEATURES, target.name, key) for key in asked]
    elif keys is not None:
        raise InputError("expected the view that the keys are of, found none; name it with view=")
    if collection is not None:
        found.append((DOCUMENT, live.app.collection_of(collection).name, ALL))
    if table is not None:
        found.append((ROW, live.app.table_of(table).name, ALL))
    for one in [pack] if isinstance(pack, str) else pack or ():
        if live.packs.get(one) is None:
            raise UnknownNameError(f"there is no pack {one!r}: it was never made here, or is no longer kept")
        found.append((PACK, "", one))
    if not found:
        raise InputError("expected something to subscribe to: a view, a collection, a table or a pack; found nothing")
    return found
