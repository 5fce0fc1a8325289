"""The local runner: one process, one engine thread between the sources and the online store.

    sources ─► read ─► decode ─┐
    pushes ─► push log ────────┴─► inbox ─► engine ─► online store ─► reads
                                              └─► journal (changed rows and positions, every few seconds)

Only the engine changes state, one batch at a time, and a batch's changes to all views become visible together with the
positions it stands for. A checkpoint holds the rows changed since the last one with the positions they stand for; after
a crash the state is loaded, and the push log and the sources are read on from there: each event is counted once.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.app import WallClock
from headrace.errors import ClosedError, ConfigError
from headrace.runners.base import PUSH, Figures, StreamFigures, ViewFigures
from headrace.runners.checkpoint import Checkpointer, restore
from headrace.runners.engine import Engine
from headrace.runners.feeder import Feeder
from headrace.runners.history import History
from headrace.runners.inbox import Inbox, Work
from headrace.runners.intake import Intake
from headrace.runners.order import WriteOrder
from headrace.runners.progress import StreamState
from headrace.runners.publisher import publishers
from headrace.runners.setaside import SetAside
from headrace.schema import Reject
from headrace.sources.base import Source, Writable
from headrace.stores.datadir import DataDir
from headrace.stores.dead_letters import DeadLetters
from headrace.stores.journal import Journal
from headrace.stores.log import Record
from headrace.stores.online.base import OnlineStore, RemoteStore
from headrace.stores.published import Published
from headrace.stores.tail import push_log
from headrace.units import SECOND

if TYPE_CHECKING:
    from headrace.app import App, Stream

logger = logging.getLogger("headrace")

# The engine rests as long as it worked, and no longer than this: under a steady trickle, batches of a few milliseconds
# cost far less than one batch an event, and reads find the interpreter free half of the time.
_LONGEST_REST = 0.005
_ENOUGH_ROWS = 16_384
_REPLAY_ROWS = 131_072
_LETTERS_IN_MEMORY = 64 << 20
_SWEEP = 0.1
# How often other processes are told that the engine lives, when there is nothing else to tell.
_BEAT = 1.0
# Readers in other threads wait this long at most for the interpreter while the engine computes.
_SWITCH = 0.0005


class LocalRunner:
    """Runs an app in this process.

    Args:
        app: What to run.
        path: The data directory; None keeps nothing on disk.
    """

    def __init__(self, app: App, path: str | Path | None = None) -> None:
        self.app = app
        self.inbox = Inbox()
        self.failure: str | None = None
        self._pushed: Counter[str] = Counter()
        self._order: WriteOrder | None = None
        self._progress = threading.Condition()
        self._taken = 0
        self._working: int | None = None  # when the oldest work of the batch in hand was written
        self._feeders: list[Feeder] = []
        self._closed = False
        self._ended = False
        self._close_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="headrace-engine", daemon=True)
        self._dir = None if path is None else DataDir(path)
        try:
            self._open()
        except BaseException:
            if self._dir is not None:
                self._dir.close()
            raise

    def _open(self) -> None:
        if self._dir is not None and self._dir.recovery.is_dir():
            raise ConfigError(
                f"{self._dir.path} holds the recovery data of the runner 'bytewax', which 'local' cannot go on from: "
                "name another directory with --data, or run it with runner='bytewax'"
            )
        self.dead_letters = (
            DeadLetters(None, keep_bytes=_LETTERS_IN_MEMORY)
            if self._dir is None
            else DeadLetters(self._dir.dead_letters)
        )
        self.setaside = SetAside(self.dead_letters, self.app.clock.now, self.app.streams)
        self.log = push_log(self._dir, self._deliver, kept=bool(self.app.enrichments))
        journal = None if self._dir is None else Journal(self._dir.journal)
        restored = restore(self.app, journal, self.log)
        self.engine = Engine(self.app, restored, self.setaside, WallClock().now)
        self.engine.behind = self.behind
        self.checkpointer = Checkpointer(journal, self.app, self.log, self.engine.lineage, restored.dropped)
        self._published = Published(None if self._dir is None else self._dir.published)
        self._publishers = publishers(self.app, self.engine, self._published)
        self._restored = restored
        if not self.store.remote:
            self._replay()

    @property
    def store(self) -> OnlineStore:
        return self.engine.store

    def start(self) -> None:
        """Starts the engine and the sources."""
        if sys.getswitchinterval() > _SWITCH:
            sys.setswitchinterval(_SWITCH)
        for publisher in self._publishers:
            publisher.start(list(self.engine.machines[publisher.view.name].index.slot_of))
        self._thread.start()
        for stream in self.app.streams.values():
            if stream.url is not None:
                source: Source = stream.source()
                if isinstance(source, Writable):
                    self.setaside.writers[stream.name] = source.writer(stream.schema)
                intake = Intake(stream.name, stream.schema, source, self.setaside, self.app.clock.now)
                feeder = Feeder(stream.name, source, intake, self.inbox)
                self._feeders.append(feeder)
                feeder.start(self.engine.seen.get(source.name))

    # -- in --------------------------------------------------------------------------------------------------------

    def submit(self, stream: Stream, frame: pl.DataFrame) -> dict[str, Any]:
        self.alive()
        position = self.log.append(stream.name, frame, self.app.clock.now())
        self._pushed[stream.name] += frame.height
        return {PUSH: position}

    def set_aside(self, stream: Stream, rejects: Sequence[Reject]) -> None:
        self.setaside.rejected(stream.name, PUSH, rejects)

    def alive(self) -> None:
        if self.failure is not None:
            raise ClosedError(f"the engine has stopped: {self.failure}; see the log, and start the app again")
        if self._closed:
            raise ClosedError(f"the app {self.app.name!r} is closed; open it again")

    def follow_order(self, order: WriteOrder) -> None:
        """From now on pushes are noted in an order of all writes; to be called before the start."""
        order.begin(self.log.position, lambda: self.engine.applied.get(PUSH, 0), self.engine.versions)
        self._order = order

    def keep_history(self) -> None:
        """From now on features can be read as they were at the oldest cut that the write order still needs."""
        if self._order is not None and self.engine.history is None:
            with self.engine.lock:
                self.engine.history = self.engine.history or History(self._order)

    def _deliver(self, record: Record) -> None:
        if self._order is not None:
            self._order.pushed = record.position
        self.inbox.put(Work(record.stream, record.frame, PUSH, record.position, record.received, record.received))

    def _replay(self) -> None:
        """Takes in what the log holds past the checkpoint, before anything new; for changed views all that it holds."""
        end, upto = self.log.position, self._restored.positions.get(PUSH, 0)
        if self._restored.backfill:
            self._replay_range(0, upto, self._restored.backfill)
        self._replay_range(upto, end, None)

    def _replay_range(self, after: int, upto: int, only: set[str] | None) -> None:
        states = None
        if only is not None:
            # Arrival numbers before all others, since these rows came before all that is still to come.
            states = {name: StreamState(-(1 << 40)) for name in self.app.streams}
        works: list[Work] = []
        rows = 0
        for record in self.log.replay(after):
            if record.position > upto:
                break
            stream = self.app.streams.get(record.stream)
            if stream is None:
                logger.warning("the push log holds rows of %r, which the app no longer has", record.stream)
                continue
            frame = stream.schema.align(record.frame)
            works.append(Work(record.stream, frame, PUSH, record.position, record.received, record.received))
            rows += frame.height
            if rows >= _REPLAY_ROWS:
                self.engine.cycle(works, only, states)
                works, rows = [], 0
        if works:
            self.engine.cycle(works, only, states)

    # -- the engine ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # an interrupt too: an engine must not end unnoticed
            logger.exception("the engine has stopped")
            self._fail(f"{type(error).__name__}: {error}")

    def _loop(self) -> None:
        if isinstance(self.store, RemoteStore):
            # Here rather than before: it may have to wait for the store's server.
            self._replay()
            self.store.beat(self.engine.progress())
        swept = saved = beat = time.monotonic()
        while True:
            works = self.inbox.take(_SWEEP)
            started = time.monotonic()
            if works:
                self._working = works[0].created
                for part in self._parts(works):
                    self._uninterrupted(part)
                    self._count(len(part))  # who waits for a part of it need not wait for all
                self._working = None
                if not self.inbox.closed:
                    self.inbox.rest(min(time.monotonic() - started, _LONGEST_REST), _ENOUGH_ROWS)
            elif self.inbox.closed:
                return
            if started - swept >= _SWEEP:
                swept = started
                self.engine.sweep()
            if isinstance(self.store, RemoteStore) and started - beat >= _BEAT:
                beat = started
                self.store.beat(self.engine.progress())
            if (started - saved) * 1e6 >= self.app.checkpoint:
                saved = started
                self._checkpoint(self.checkpointer.begin)

    def _checkpoint(self, write: Callable[..., None]) -> None:
        write(self.engine.machines, self.engine.seen, self.engine.streams)

    def _parts(self, works: list[Work]) -> list[list[Work]]:
        """A batch, parted where a version may be read that ends there."""
        if self._order is None or self.engine.history is None:
            return [works]
        pushed = [work.position for work in works if work.source == PUSH]
        parts: list[list[Work]] = [[]]
        ends = self._order.parts(pushed[0] - 1, pushed[-1]) if pushed else []
        for work in works:
            if ends and work.source == PUSH and work.position > ends[0]:
                ends = [one for one in ends if one >= work.position]
                parts.append([])
            parts[-1].append(work)
        return parts

    def _uninterrupted(self, works: list[Work]) -> None:
        """A cycle, begun again if Ctrl-C hits it.

        Polars raises KeyboardInterrupt in whichever thread waits for it. The interrupt is for the main thread, which
        has its own; here nothing of the batch is visible yet, so it is simply computed again.
        """
        for _ in range(3):
            try:
                return self.engine.cycle(works)
            except KeyboardInterrupt:
                continue
        return self.engine.cycle(works)

    def _fail(self, reason: str) -> None:
        with self._progress:
            self.failure = reason
            self._progress.notify_all()
        self.inbox.close(f"the engine has stopped: {reason}")

    def _count(self, works: int) -> None:
        with self._progress:
            self._taken += works
            self._progress.notify_all()

    # -- out -------------------------------------------------------------------------------------------------------

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        if done():
            return True
        with self._progress:
            self._progress.wait_for(lambda: done() or self.failure is not None or self._ended, timeout)
            held = done()
        if not held:
            self.alive()
        return held

    def drain(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        for feeder in self._feeders:
            if not feeder.caught_up(None if deadline is None else max(0.0, deadline - time.monotonic())):
                if feeder.failure is not None:
                    raise ClosedError(f"{feeder.source.name} has stopped: {feeder.failure}")
                return False
        wanted = self.inbox.put_count
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return self.wait_until(lambda: self._taken >= wanted, left)

    def positions(self) -> list[str]:
        return [PUSH, *(feeder.source.name for feeder in self._feeders)]

    def seen(self) -> tuple[int, Mapping[str, Any]]:
        return self.engine.cycles, self.engine.seen

    def newest(self, stream: str) -> int | None:
        return self.engine.streams[stream].newest

    def behind(self) -> float:
        working, waiting = self._working, self.inbox.oldest() if self.inbox.rows else None
        since = [feeder.behind_since() for feeder in self._feeders]
        late = [one for one in (working, waiting, *since) if one is not None]
        return max(0.0, (self.app.clock.now() - min(late)) / SECOND) if late else 0.0

    def figures(self) -> Figures:
        writer = self.checkpointer
        return Figures(
            {name: self._stream_figures(name) for name in self.app.streams},
            {name: ViewFigures.of(machine) for name, machine in self.engine.machines.items()},
            self.behind(),
            self.inbox.rows,
            self.engine.cycles,
            writer.written,
            writer.rows,
            time.monotonic() - writer.last if writer.written else None,
            self.setaside.lost,
        )

    def _stream_figures(self, name: str) -> StreamFigures:
        state, engine = self.engine.streams[name], self.engine
        lag, fed = dict[str, int](), 0
        problem = None
        for feeder in self._feeders:
            if feeder.stream == name:
                lag |= feeder.lag()
                problem = feeder.failure or feeder.problem
                fed += feeder.rows
        return StreamFigures(
            accepted=self._pushed[name] + fed,
            processed=state.rows,
            rejected=self.setaside.rejected_rows[name],
            late=state.late,
            expired=self.setaside.expired[name],
            batches=state.batches,
            newest=state.newest,
            lag=lag,
            problem=problem,
            freshness=None if self.app.event_time else engine.freshness[name].histogram(),
            batch_rows=engine.batch_rows[name].histogram(),
        )

    def problem(self) -> str | None:
        if self.failure is not None:
            return f"the engine has stopped: {self.failure}"
        if self._closed:
            return "closed"
        for feeder in self._feeders:
            if feeder.failure is not None:
                return f"the source {feeder.source.name} has stopped: {feeder.failure}"
        if isinstance(self.store, RemoteStore) and (problem := self.store.problem()) is not None:
            return problem
        return self.checkpointer.problem

    def close(self) -> None:
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        for feeder in self._feeders:
            feeder.close()
        for writer in self.setaside.writers.values():
            writer.close()
        self.log.close()
        self.inbox.close()
        if isinstance(self.store, RemoteStore):
            self.store.give_up()
        if self._thread.ident is not None:
            self._thread.join()
        for publisher in self._publishers:
            publisher.close()
        self._published.close()
        with self._progress:
            self._ended = True
            self._progress.notify_all()
        try:
            if self.failure is None:
                self._checkpoint(self.checkpointer.finish)
        finally:
            self.checkpointer.close()
            self.store.close()
            self.dead_letters.close()
            if self._dir is not None:
                self._dir.close()
