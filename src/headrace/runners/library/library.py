"""All tables and collections of an app while it runs.

What they share is here: the embedders (a model is loaded once a process), the cache of embeddings, the vector stores,
and where things are on the disk. Without a data directory they live in a temporary one, which goes when the app is
closed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.documents.embed.base import Embedder
from headrace.errors import ClosedError, HeadraceError
from headrace.registry import DEFAULT as CONNECTORS
from headrace.runners.embedding.load import embedder
from headrace.runners.embedding.queue import EmbedQueue
from headrace.runners.library.collection import LiveCollection
from headrace.runners.library.figures import LibraryFigures, MemoryFigures
from headrace.runners.library.memory import LiveMemory
from headrace.runners.library.memory_model import ModelSummary
from headrace.runners.library.search import Held
from headrace.runners.library.spaces import Spaces
from headrace.runners.library.table import LiveTable
from headrace.runners.meetings import Meetings
from headrace.runners.order import WriteOrder
from headrace.runners.setaside import SetAside
from headrace.stores import disk
from headrace.stores.datadir import Layout
from headrace.stores.dead_letters import DeadLetters
from headrace.stores.embeddings import EmbeddingCache
from headrace.stores.records import Records
from headrace.stores.tables import TableStore
from headrace.stores.turns import ErasingStore, TurnStore
from headrace.stores.vectors.base import VectorIndex, VectorStore

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Collection, Table

_PRUNE = 3600.0


class Library:
    """Runs an app's tables and collections.

    Args:
        app: What was declared.
        path: The data directory; None keeps nothing once it is closed.
        letters: Where goes what cannot be used.

    Raises:
        ConfigError: A source, a store or an embedder cannot be had as it was asked for.
        StorageError: What is on the disk cannot be read.
    """

    def __init__(self, app: App, path: Path | None, letters: DeadLetters) -> None:
        self._app = app
        folder = Path(tempfile.mkdtemp(prefix="headrace-")) if path is None else path
        self._temporary = folder if path is None else None
        self._layout = Layout(folder)
        self._setaside = SetAside(letters, app.clock.now)
        self._queues: dict[Any, EmbedQueue] = {}
        self._stores: dict[str, VectorStore] = {}
        self._cache: EmbeddingCache | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._pruner = threading.Event()
        self.tables: dict[str, LiveTable] = {}
        self.collections: dict[str, LiveCollection] = {}
        self.memories: dict[str, LiveMemory] = {}
        self._meetings: Meetings[Held] | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        for table in self._app.tables.values():
            self._open_table(table, TableStore)
        for collection in self._app.collections.values():
            self._open_collection(collection, self._queue)
        for memory in self._app.memories.values():
            turns = self._open_table(memory.table, TurnStore)
            summaries = self._open_table(memory.summaries, ErasingStore)
            found = self._open_collection(memory.collection, self._private_queue)
            found.records.overwrite_deleted()
            self.memories[memory.name] = LiveMemory(memory, turns, summaries, found, self._app.clock.now)
            if memory.summary is not None and not callable(memory.summary):
                self.memories[memory.name].keeper.function = ModelSummary(self._app, memory.summary)
        self.order = self._keep_order()
        tables = {name: one.collection.table.name for name, one in self.collections.items()}
        self._meetings = Meetings(self.order, tables, lambda name: self.collections[name].wake())
        for one in self.collections.values():
            one.meetings = self._meetings

    def _open_table(self, table: Table, kind: type[TableStore]) -> LiveTable:
        disk.make_directory(self._layout.tables)
        store = kind(self._layout.tables / f"{table.name}.db", durable=self._temporary is None)
        self.tables[table.name] = LiveTable(table, store, self._setaside, self._app.clock.now)
        return self.tables[table.name]

    def _open_collection(self, collection: Collection, queue: Callable[[str | Embedder], EmbedQueue]) -> LiveCollection:
        self._check(collection)
        disk.make_directory(self._layout.collections)
        records = Records(self._layout.collections / f"{collection.name}.db", durable=self._temporary is None)
        spaces = Spaces(records, collection.embedders(), queue, self._indexer(collection))
        followed = self.tables[collection.table.name]
        made = LiveCollection(collection, followed, records, spaces, self._setaside)
        self.collections[collection.name] = made
        return made

    def _keep_order(self) -> WriteOrder:
        """The order of all writes to the tables, and of pushes if the runner notes them."""
        order = WriteOrder({name: table.store.seq for name, table in self.tables.items()})
        for table in self.tables.values():
            table.order = order
        for one in self.collections.values():
            order.follow(one.collection.table.name, one)
        return order

    def _check(self, collection: Collection) -> None:
        """Finds what is not installed before anything starts."""
        CONNECTORS.find("vectors", collection.index).load()
        for spec in collection.embedders().values():
            if isinstance(spec, str):
                CONNECTORS.find("embed", spec).load()

    def start(self) -> None:
        """Begins to take input and to follow it."""
        for collection in self.collections.values():
            collection.start()
        for table in self.tables.values():
            table.start()
        for memory in self.memories.values():
            memory.start()
        if self.tables:
            threading.Thread(target=self._prune, name="headrace-prune", daemon=True).start()

    def _queue(self, spec: str | Embedder) -> EmbedQueue:
        """The queue in front of an embedder: one for each, shared by all collections."""
        with self._lock:
            if self._closed:
                raise ClosedError(f"the app {self._app.name!r} is closed; open it again")
            if self._cache is None:
                self._cache = EmbeddingCache(self._layout.embeddings)
            key = spec if isinstance(spec, str) else id(spec)
            if key not in self._queues:
                self._queues[key] = EmbedQueue(embedder(spec), self._cache)
            return self._queues[key]

    def _private_queue(self, spec: str | Embedder) -> EmbedQueue:
        """As `_queue`, for what is to be forgotten: its vectors are kept in no cache."""
        with self._lock:
            if self._closed:
                raise ClosedError(f"the app {self._app.name!r} is closed; open it again")
            key = ("private", spec if isinstance(spec, str) else id(spec))
            if key not in self._queues:
                self._queues[key] = EmbedQueue(embedder(spec))
            return self._queues[key]

    def _indexer(self, collection: Collection) -> Callable[[int, int], VectorIndex]:
        def open_index(number: int, dimension: int) -> VectorIndex:
            with self._lock:
                if collection.index not in self._stores:
                    options = {"path": self._layout.indexes} if collection.index in ("edge:", "local:") else {}
                    self._stores[collection.index] = CONNECTORS.create("vectors", collection.index, **options)
                store = self._stores[collection.index]
            # A memory's ends otherwise than a collection's, whatever that is called.
            mark = "m" if "." in collection.name else ""
            name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{self._app.name}-{collection.name}-{number}{mark}")
            return store.open(name, dimension, collection.columns)

        return open_index

    def _prune(self) -> None:
        """Forgets old revisions, once an hour."""
        while not self._pruner.wait(_PRUNE):
            for name, table in self.tables.items():
                passed = [one.position for one in self.collections.values() if one.collection.table.name == name]
                before = self._app.clock.now() - table.table.history
                try:
                    table.store.prune(before, min(passed, default=table.store.seq))
                except HeadraceError:
                    if self._closed:
                        return
                    table.problem = "old revisions could not be forgotten; see the log"

    @property
    def meetings(self) -> Meetings[Held]:
        """Where readers meet the collections."""
        assert self._meetings is not None
        return self._meetings

    @property
    def path(self) -> Path:
        """Where tables, records and the embeddings are."""
        return self._layout.path

    def now(self) -> int:
        """What ages are counted from, in microseconds since the Unix epoch."""
        return self._app.clock.now()

    # -- waiting ---------------------------------------------------------------------------------------------------

    def followed(self, name: str, seq: int, timeout: float | None) -> bool:
        """Waits until a collection has followed its table up to a change; False if it had not in time."""
        live = self.collections[name]
        return live.wait(lambda: live.ready and live.position >= seq, timeout)

    def drain(self, timeout: float | None) -> bool:
        """Waits until all input that is there now can be searched; False if it could not in time."""
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - time.monotonic())

        for table in self.tables.values():
            if not table.caught_up(left()):
                return False
        return all(
            self.followed(name, self.tables[one.collection.table.name].store.seq, left())
            for name, one in self.collections.items()
        ) and all(one.keeper.settled(left()) for one in self.memories.values())

    def settled(self, timeout: float | None) -> bool:
        """Waits until no index is being filled anew and every document is made as its pipeline now says."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for one in self.collections.values():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not one.wait(one.is_settled, left):
                return False
        return True

    # -- looking after it ------------------------------------------------------------------------------------------

    def figures(self) -> LibraryFigures:
        """The counters."""
        return LibraryFigures(
            {name: one.figures() for name, one in self.tables.items()},
            {name: one.figures() for name, one in self.collections.items()},
            {name: MemoryFigures(dict(one.keeper.made), one.keeper.failed) for name, one in self.memories.items()},
        )

    def problem(self) -> str | None:
        """What has stopped for good, or None; what is tried again does not count."""
        failures: Iterable[tuple[str, str | None]] = (
            *((f"the table {name}", one.failure) for name, one in self.tables.items()),
            *((f"the collection {name}", one.failure) for name, one in self.collections.items()),
        )
        return next((f"{what} has stopped: {why}" for what, why in failures if why is not None), None)

    def close(self) -> None:
        """Stops everything and lets go of it; again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._pruner.set()
        if self._meetings is not None:
            self._meetings.close()
        for memory in self.memories.values():
            memory.keeper.stop()
        for table in self.tables.values():
            table.stop()
        for queue in self._queues.values():
            queue.close()
        for collection in self.collections.values():
            collection.stop()
        for collection in self.collections.values():
            collection.close()
        for table in self.tables.values():
            table.store.close()
        if self._cache is not None:
            self._cache.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
