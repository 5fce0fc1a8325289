"""The Bytewax runner: the app as a Bytewax dataflow, in this process or in a cluster of them.

    app.open(path) with runner="bytewax"             pushes, reads and the dataflow in one process
    headrace run … --runner bytewax --process I …    one process of a cluster: the engine alone
    python -m bytewax.run "headrace.runners.bytewax:flow_of('myapp:app', './data')" …

Lanes read, shards keep state, and Bytewax's recovery partitions hold both as of the end of an epoch, so that after a
crash, or with another number of workers, each event is counted once. Only the files `bytewax*.py` know that engine.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import headrace.runners.bytewax_available  # noqa: F401 - before all that needs it
from headrace.errors import ClosedError, ConfigError
from headrace.runners.base import Figures, StreamFigures, ViewFigures
from headrace.runners.bytewax_cluster import flow, flow_of, run_cluster
from headrace.runners.bytewax_flow import dataflow
from headrace.runners.bytewax_lineage import Lineage, prepare, recovery_folder
from headrace.runners.bytewax_push import PUSH, PushLane
from headrace.runners.bytewax_site import Site
from headrace.runners.bytewax_start import execute
from headrace.runners.inbox import Work
from headrace.runners.setaside import SetAside
from headrace.schema import Reject
from headrace.stores.datadir import DataDir
from headrace.stores.dead_letters import DeadLetters
from headrace.stores.log import FileLog, MemoryLog, Record
from headrace.stores.online.base import OnlineStore, RemoteStore

if TYPE_CHECKING:
    from headrace.app import App, Stream

__all__ = ["BytewaxRunner", "flow", "flow_of", "run_cluster"]

logger = logging.getLogger("headrace")

_LETTERS_IN_MEMORY = 64 << 20
# Readers in other threads wait this long at most for the interpreter while a worker computes.
_SWITCH = 0.0005


class BytewaxRunner:
    """Runs an app's dataflow in this process, beside pushes and reads.

    Args:
        app: What to run.
        path: The data directory; None keeps nothing on disk.
        workers: Threads that share the work. A batch becomes visible as a whole only where there is one; with more, the
            parts of it that different workers keep show one after another, and positions when all do.
    """

    def __init__(self, app: App, path: str | Path | None = None, *, workers: int | None = None) -> None:
        self.app = app
        self.workers = _workers() if workers is None else workers
        self.failure: str | None = None
        self._pushed: Counter[str] = Counter()
        self._closed = False
        self._ended = False
        self._close_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="headrace-bytewax", daemon=True)
        self._dir = None if path is None else DataDir(path)
        try:
            self._open()
        except BaseException:
            if self._dir is not None:
                self._dir.close()
            raise

    def _open(self) -> None:
        lineage = Lineage.fresh(self.app) if self._dir is None else prepare(self.app, self._dir.path)
        self.dead_letters = (
            DeadLetters(None, keep_bytes=_LETTERS_IN_MEMORY)
            if self._dir is None
            else DeadLetters(self._dir.dead_letters)
        )
        self.setaside = SetAside(self.dead_letters, self.app.clock.now, self.app.streams)
        self.site = Site(self.app, lineage, self.setaside, saves=self._dir is not None)
        self.site.log = MemoryLog(self._deliver) if self._dir is None else FileLog(self._dir.log, self._deliver)
        self.log = self.site.log
        self.tracker = self.site.tracker

    @property
    def store(self) -> OnlineStore:
        return self.site.store

    def start(self) -> None:
        """Starts the dataflow; where reads are of this process, waits until they see what was there before."""
        if sys.getswitchinterval() > _SWITCH:
            sys.setswitchinterval(_SWITCH)
        self._thread.start()
        self.tracker.wait_until(lambda: self._ended or self._opened(), None)
        if self.site.error is not None and not self._opened():
            error = self.site.error
            self.close()
            raise error

    def _opened(self) -> bool:
        if self.store.remote:
            # Its server may be away for now.
            return bool(self.site.expected)
        push = self.site.lanes.get(PUSH)
        heard = all(self.tracker.done(name) is not None for name in self.site.expected)
        return self._begun() and heard and isinstance(push, PushLane) and push.caught_up()

    def _begun(self) -> bool:
        """Whether all lanes read."""
        lanes = [self.site.lanes.get(name) for name in self.site.expected]
        return bool(lanes) and all(lane is not None and lane.begun() for lane in lanes)

    # -- the dataflow ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            recovery = None if self._dir is None else recovery_folder(self._dir.path)
            execute(dataflow(self.site), self.app, recovery, workers=self.workers)
            if not self._closed:
                self._fail(RuntimeError("the dataflow has ended by itself"))
        except BaseException as error:  # noqa: BLE001 - an interrupt too: a dataflow must not end unnoticed
            self._fail(self.site.error or error)
        finally:
            self._ended = True
            self.tracker.notify()

    def _fail(self, error: BaseException) -> None:
        logger.error("the dataflow has stopped", exc_info=error)
        self.site.error = self.site.error or error
        self.failure = f"{type(error).__name__}: {error}"
        for lane in tuple(self.site.lanes.values()):
            lane.inbox.close(f"the engine has stopped: {self.failure}")
        self.site.inbox.close(f"the engine has stopped: {self.failure}")

    # -- in --------------------------------------------------------------------------------------------------------

    def submit(self, stream: Stream, frame: pl.DataFrame) -> dict[str, Any]:
        self.alive()
        position = self.log.append(stream.name, frame, self.app.clock.now())
        self._pushed[stream.name] += frame.height
        return {PUSH: position}

    def _deliver(self, record: Record) -> None:
        received = record.received
        self.site.inbox.put(Work(record.stream, record.frame, PUSH, record.position, received, received))

    def set_aside(self, stream: Stream, rejects: Sequence[Reject]) -> None:
        self.setaside.rejected(stream.name, PUSH, rejects)

    def alive(self) -> None:
        if self.failure is not None:
            raise ClosedError(f"the engine has stopped: {self.failure}; see the log, and start the app again")
        if self._closed:
            raise ClosedError(f"the app {self.app.name!r} is closed; open it again")

    # -- out -------------------------------------------------------------------------------------------------------

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        if done():
            return True
        self.tracker.wait_until(lambda: done() or self.failure is not None or self._ended, timeout)
        held = done()
        if not held:
            self.alive()
        return held

    def drain(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - time.monotonic())

        if not self.wait_until(self._begun, left()):
            return False
        lanes = tuple(self.site.lanes.items())
        for _, lane in lanes:
            feeder = lane.feeder
            if feeder is not None and not feeder.caught_up(left()):
                if feeder.failure is not None:
                    raise ClosedError(f"{feeder.source.name} has stopped: {feeder.failure}")
                return False
        wanted = {name: lane.inbox.put_count for name, lane in lanes}
        return self.wait_until(lambda: all(self._works(name) >= count for name, count in wanted.items()), left())

    def _works(self, lane: str) -> int:
        done = self.tracker.done(lane)
        return 0 if done is None else done.works

    def positions(self) -> list[str]:
        return list(dict.fromkeys([PUSH, *self.site.sources]))

    def seen(self) -> tuple[int, Mapping[str, Any]]:
        return self.tracker.version, self.tracker.told

    def newest(self, stream: str) -> int | None:
        return self.tracker.streams[stream].newest

    def behind(self) -> float:
        return self.site.behind()

    def figures(self) -> Figures:
        return Figures(
            {name: self._stream_figures(name) for name in self.app.streams},
            {name: _view_figures(self.site, name) for name in self.app.views},
            self.behind(),
            sum(lane.inbox.rows for lane in tuple(self.site.lanes.values())),
            self.tracker.version,
            self.site.epochs if self.site.saves else 0,
            sum(engine.saved_rows for engine in self.site.engines()),
            time.monotonic() - self.site.saved if self.site.epochs and self.site.saves else None,
            self.setaside.lost,
        )

    def _stream_figures(self, name: str) -> StreamFigures:
        state = self.tracker.streams[name]
        lag: dict[str, int] = {}
        problem = None
        fed = 0
        for lane in tuple(self.site.lanes.values()):
            if lane.feeder is not None and lane.feeder.stream == name:
                lag |= lane.feeder.lag()
                problem = problem or lane.feeder.failure or lane.feeder.problem
                fed += lane.feeder.rows
        return StreamFigures(
            accepted=self._pushed[name] + fed,
            processed=state.rows,
            rejected=self.setaside.rejected_rows[name],
            late=state.late,
            expired=self.setaside.expired[name],
            batches=state.batches,
            newest=state.newest,
            problem=problem,
            lag=lag,
            freshness=None if self.app.event_time else self.tracker.freshness[name].histogram(),
            batch_rows=self.tracker.batch_rows[name].histogram(),
        )

    def problem(self) -> str | None:
        if self.failure is not None:
            return f"the engine has stopped: {self.failure}"
        if self._closed:
            return "closed"
        for lane in tuple(self.site.lanes.values()):
            if lane.feeder is not None and lane.feeder.failure is not None:
                return f"the source {lane.source} has stopped: {lane.feeder.failure}"
        if isinstance(self.store, RemoteStore) and (problem := self.store.problem()) is not None:
            return problem
        return self.site.problem

    def close(self) -> None:
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self.site.end()
        for writer in self.setaside.writers.values():
            writer.close()
        self.log.close()
        self.site.inbox.close()
        if self._thread.ident is not None:
            self._thread.join()
        self.site.close()
        self.dead_letters.close()
        if self._dir is not None:
            self._dir.close()


def _workers() -> int:
    given = os.environ.get("HEADRACE_WORKERS", "1")
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"HEADRACE_WORKERS: expected a whole number from 1, found {given!r}")
    return int(given)


def _view_figures(site: Site, view: str) -> ViewFigures:
    parts = [ViewFigures.of(machine) for machine in site.machines(view)]
    return ViewFigures(sum(p.keys for p in parts), sum(p.tiles for p in parts), sum(p.bytes for p in parts))
