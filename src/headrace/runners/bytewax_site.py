"""What one process of a Bytewax dataflow has: its workers' engines, its lanes, and what they share."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from headrace.app import WallClock
from headrace.errors import StorageError
from headrace.features.combine import ShardedMachine
from headrace.runners.bytewax_engine import ShardEngine
from headrace.runners.bytewax_front import Front
from headrace.runners.bytewax_keepers import Divided
from headrace.runners.bytewax_lineage import Lineage
from headrace.runners.bytewax_tracker import Tracker
from headrace.runners.inbox import Inbox
from headrace.runners.online import online_store
from headrace.runners.setaside import SetAside
from headrace.stores.log import PushLog
from headrace.stores.online.base import OnlineStore, Progress, RemoteStore

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.runners.bytewax_lane import Lane


class Worker:
    """One worker: what combines its arrivals, and what keeps its shards.

    Attributes:
        index: Which one, of all in the cluster.
        count: How many there are.
        counts: Whether it is the one that hears of every batch, and so says how far all have come.
    """

    def __init__(self, site: Site, index: int, count: int) -> None:
        lineage = site.lineage
        self.index = index
        self.count = count
        self.counts = False
        self.front = Front(site.app, count, lineage.shards, lineage.key, site.setaside)
        self.engine = ShardEngine(
            site.app,
            lineage.lines,
            lineage.shards,
            lambda engine, run: site.store_of(self, engine, run),
            lambda: site.progress(self),
            count == 1,
        )


class Site:
    """A process's part of the dataflow.

    Args:
        app: What runs.
        lineage: What its state depends on.
        setaside: Where rows go that cannot be used.
        saves: Whether there are checkpoints.
    """

    def __init__(self, app: App, lineage: Lineage, setaside: SetAside, *, saves: bool = True) -> None:
        self.app = app
        self.lineage = lineage
        self.setaside = setaside
        self.saves = saves
        self.tracker = Tracker(app)
        self.inbox = Inbox()
        self.log: PushLog | None = None
        self.lanes: dict[str, Lane] = {}
        # The lanes that there will be, in this process or in others, and the names of what they read.
        self.expected: list[str] = []
        self.sources: list[str] = []
        self.epochs = 0
        self.saved = 0.0
        self.error: BaseException | None = None
        self.problem: str | None = None
        self.store = online_store(app)
        self._wall = WallClock().now
        self._workers: dict[int, Worker] = {}
        if not self.store.remote:
            self.store.bind(
                {name: Divided(view, lineage.shards, self) for name, view in app.views.items()}, lineage.lines
            )

    def arrive(self, index: int, count: int) -> None:
        """Takes note of the worker whose thread this is, before anything else is asked of it."""
        # Bytewax's threads keep nothing of their own between calls but their id.
        self._workers[threading.get_ident()] = Worker(self, index, count)

    def here(self) -> Worker:
        """The worker whose thread this is."""
        return self._workers[threading.get_ident()]

    def engines(self) -> list[ShardEngine]:
        """The engines of this process's workers."""
        return [worker.engine for worker in tuple(self._workers.values())]

    def machines(self, view: str) -> list[ShardedMachine]:
        """The machines of a view, a worker's each."""
        return [engine.machines[view] for engine in self.engines() if view in engine.machines]

    def store_of(self, worker: Worker, engine: ShardEngine, run: str) -> OnlineStore:
        """The store that an engine writes to: one in this process is for all, of another each worker is a client."""
        if not self.store.remote:
            return self.store
        store = self.store if worker.count == 1 else online_store(self.app, writer=worker.index, writers=worker.count)
        # The run, too, so that what a killed one has written is not taken for what this one writes.
        store.bind(engine.machines, {**self.lineage.lines, "": run})
        return store

    def progress(self, worker: Worker) -> Progress:
        """What a worker may say: how far all have come, if it is the one that counts, else only that it lives."""
        if worker.counts or worker.count == 1:
            return Progress(self.tracker.seen, self.tracker.newest(), self._wall(), self.behind())
        return Progress({}, {}, self._wall(), self.behind())

    def behind(self) -> float:
        """Seconds that the views are behind the input of this process's lanes."""
        oldest = [since for lane in tuple(self.lanes.values()) if (since := lane.oldest()) is not None]
        return max(0.0, (self.app.clock.now() - min(oldest)) / 1e6) if oldest else 0.0

    def published(self) -> bool:
        """Makes known to readers how far all workers have come; called on the one that counts.

        Returns:
            Whether they know; if not, the next beat says it again.
        """
        worker = self.here()
        worker.counts = True
        newest = self.tracker.newest()
        if isinstance(worker.engine.store, RemoteStore):
            return worker.engine.store.beat(self.progress(worker))
        if not self.store.remote and self.app.event_time:
            self.store.write([lambda: self._see(newest)], lambda: (), Progress())
        return True

    def _see(self, newest: dict[str, int | None]) -> None:
        """Moves machines on that had no row of a batch: a stream's newest event time is `now` for all its keys."""
        for engine in self.engines():
            for machine in engine.machines.values():
                moment = newest[machine.view.stream]
                if moment is not None and (machine.newest is None or machine.newest < moment):
                    machine.newest = moment

    def log_done(self, position: int) -> None:
        """What was pushed up to a position is not needed for recovery any more."""
        assert self.log is not None
        try:
            self.log.truncate(position)
            self.problem = None
        except StorageError as error:
            self.problem = f"the push log could not be shortened: {error}"

    def epoch(self) -> None:
        """Takes note of a checkpoint."""
        self.epochs += 1
        self.saved = time.monotonic()

    def close(self) -> None:
        """Lets go of the stores."""
        for engine in self.engines():
            if engine.store is not None and engine.store is not self.store:
                engine.store.close()
        self.store.close()

    def end(self) -> None:
        """Ends the input: what was taken in is finished, and the dataflow ends with a last checkpoint."""
        for engine in self.engines():
            if isinstance(engine.store, RemoteStore):
                # It no longer waits for a server that is away; the next start writes everything again.
                engine.store.give_up()
        for lane in tuple(self.lanes.values()):
            if lane.feeder is not None:
                lane.feeder.close()
                lane.inbox.close()

    def explained(self) -> Explained:
        """Keeps what a step raises, for whoever asks why the dataflow has ended."""
        return Explained(self)


class Explained:
    """A `with` block whose error is kept: Bytewax wraps it in others of its own."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, StopIteration) and self._site.error is None:
            self._site.error = error
