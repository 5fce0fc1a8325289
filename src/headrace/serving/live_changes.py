"""What `Live` offers of changes: subscriptions, and the packs that were given out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headrace.errors import UnknownNameError
from headrace.serving.change_sources import Sources, wanted
from headrace.serving.changes_hub import Hub, Subscription
from headrace.serving.documents import position_of
from headrace.serving.manifests import Manifests
from headrace.serving.pack_memory import without_forgotten
from headrace.serving.token import token_text
from headrace.stores.datadir import Layout

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.assembly.pack import Pack
    from headrace.declarations import Collection, Table
    from headrace.document import Document
    from headrace.features.view import View
    from headrace.runners.base import Runner
    from headrace.serving.live import Live


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was subscribed to has changed.

    Attributes:
        event: "features", "document", "row" or "pack"; or "lost": more changed than is kept for a slow subscriber, and
            everything subscribed to should be read again.
        data: What it is, and of features the row as it reads now; see the page on changes.
        id: Where it stands among all changes of this process.
    """

    event: str
    data: Mapping[str, Any]
    id: str


class Changes:
    """A subscription: an iterator of `Change`, closed by leaving its `with` block.

    Iterating waits for the next change, and ends when none comes within `timeout` seconds, or when this or the app is
    closed. For one thread at a time; `close` may be called from any.
    """

    def __init__(self, sources: Sources, hub: Hub, wants: list[tuple[str, str, Any]], timeout: float | None) -> None:
        self._sources = sources
        self._hub = hub
        self._timeout = timeout
        self._news = threading.Event()
        self._ready: deque[Change] = deque()
        self._ended = False
        self._subscription: Subscription = hub.subscribe(wants, self._news.set)

    def next(self, timeout: float | None = None) -> Change | None:
        """The next change; None if none came within `timeout` seconds (None: however long it takes), or never will."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            if self._ended:
                return None
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._news.wait(left):
                return None
            self._news.clear()
            self._take()
        return self._ready.popleft()

    def _take(self) -> None:
        while True:
            taken = self._subscription.take()
            if taken.gap:
                self._ready.append(Change(taken.gap, {}, f"{self._hub.name}-{taken.number}"))
            for one in taken.changes:
                data = self._sources.told(one)
                self._ready.append(Change(one.subject[0], data, f"{self._hub.name}-{one.number}"))
            self._ended = self._ended or taken.closed
            if not (taken.gap or taken.changes):
                return
            if self._ready:
                self._news.set()  # there may be more to take, once this is told
                return

    def __iter__(self) -> Iterator[Change]:
        while (change := self.next(self._timeout)) is not None:
            yield change

    def close(self) -> None:
        """Ends the subscription; again does nothing."""
        self._ended = True
        self._subscription.close()
        self._news.set()

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LiveChanges:
    """The part of `Live` that is about changes."""

    app: App
    _runner: Runner
    _packs: Manifests
    _sources: Sources
    _hub: Hub

    def _open_changes(self, path: str | Path | None) -> None:
        self._packs = Manifests(None if path is None else Layout(path).packs, self.app.clock.now)
        self._sources = Sources(cast("Live", self))
        self._hub = Hub(self._sources)
        self._sources.hub = self._hub

    def _close_changes(self) -> None:
        self._hub.close()
        self._sources.packs.close()
        self._packs.close()

    @property
    def packs(self) -> Manifests:
        """The packs that were given out, as long as they are kept."""
        return self._packs

    @property
    def hub(self) -> Hub:
        """Where changes are handed out."""
        return self._hub

    @property
    def sources(self) -> Sources:
        """Where changes come from."""
        return self._sources

    def pack(self, id: str) -> Pack:
        """A pack that was given out, as it was; without what was forgotten or erased since then.

        Raises:
            UnknownNameError: There is no such pack, or it is no longer kept.
            StorageError: It could not be read.
        """
        found = self._packs.get(id)
        if found is None:
            raise UnknownNameError(f"there is no pack {id!r}: it was never made here, or is no longer kept")
        return without_forgotten(cast("Live", self), found)

    def replay(self, id: str) -> dict[str, Any]:
        """A pack that was given out, made again as of then, and what of it differs now; as plain values.

        Returns:
            `pack`: it, as `Pack.to_dict()` gives it. `rebuilt`: the ids of the items that came out the `same`, those
            that came out `other`, and why those that are `unknown` cannot be made again. `now`: what has `changed`
            since then, and what was `not_compared`.

        Raises:
            UnknownNameError: There is no such pack, or it is no longer kept.
            StorageError: What is kept cannot be read.
        """
        from headrace.serving.replay import replayed

        return replayed(cast("Live", self), id)

    def changes(
        self,
        *,
        view: View | str | None = None,
        keys: Sequence[Any] | None = None,
        collection: Collection | str | None = None,
        table: Table | type[Document] | str | None = None,
        pack: str | Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Changes:
        """Subscribes to changes; read what you need after this returns, and no change after that is missed.

        A subject that changes often is told as often as you ask: each time as it is then.

        Args:
            view: A view or its name: rows that have changed.
            keys: Of these keys only.
            collection: A collection or its name: documents that can be searched as they are now, or are gone.
            table: A table, its model or its name: rows that were written or deleted.
            pack: The id of a pack, or several: what in it no longer holds.
            timeout: How many seconds iterating waits for a change before it ends; None for ever.

        Raises:
            UnknownNameError: There is no such view, collection, table or pack.
            InputError: A key is not one of the view's, or nothing is subscribed to.
            TooLargeError: There are too many subscribers, or one asks for too much.
        """
        wants = wanted(cast("Live", self), view, keys, collection, table, pack)
        return Changes(self._sources, self._hub, wants, timeout)

    def view_listeners(self) -> dict[str, list[Any]] | None:
        """Who is told of the keys that the engine changes, by view; None if the engine runs elsewhere."""
        engine = getattr(self._runner, "engine", None)
        found: dict[str, list[Any]] | None = getattr(engine, "listeners", None)
        return found

    def seen_token(self) -> str:
        """What reads and searches see now, as a token."""
        positions = dict(self._runner.seen()[1])
        library = cast("Live", self)._library
        followed: dict[str, int] = {}
        for one in () if library is None else library.collections.values():
            table = position_of(one.collection.table.name)
            followed[table] = min(one.position, followed.get(table, one.position))
        return token_text(positions | followed)
