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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from headrace.errors import ClosedError
from headrace.features.machine import Batch, Prepared, Refused, ViewMachine, build
from headrace.registry import DEFAULT as CONNECTORS
from headrace.runners.checkpoint import Checkpointer, Restored, restore
from headrace.runners.feeder import Feeder
from headrace.runners.inbox import Inbox, Work
from headrace.runners.progress import StreamState, reached
from headrace.runners.setaside import SetAside
from headrace.stores.datadir import DataDir
from headrace.stores.dead_letters import DeadLetters
from headrace.stores.journal import Journal
from headrace.stores.log import FileLog, MemoryLog, PushLog, Record

if TYPE_CHECKING:
    from headrace.app import App, Stream

logger = logging.getLogger("headrace")

PUSH = "push"
# The engine rests as long as it worked, and no longer than this: under a steady trickle, batches of a few milliseconds
# cost far less than one batch an event, and reads find the interpreter free half of the time.
_LONGEST_REST = 0.005
_ENOUGH_ROWS = 16_384
_REPLAY_ROWS = 131_072
_LETTERS_IN_MEMORY = 64 << 20
_SWEEP = 0.1
# Keys looked at a sweep: well under a millisecond.
_SWEEP_KEYS = 32_768
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
        self.seen: dict[str, Any] = {}
        self.cycles = 0
        self.failure: str | None = None
        self.pushed: Counter[str] = Counter()
        self._progress = threading.Condition()
        self._taken = 0
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
        self.dead_letters = (
            DeadLetters(None, keep_bytes=_LETTERS_IN_MEMORY)
            if self._dir is None
            else DeadLetters(self._dir.dead_letters)
        )
        self.setaside = SetAside(self.dead_letters, self.app.clock.now)
        self.log: PushLog = MemoryLog(self._deliver) if self._dir is None else FileLog(self._dir.log, self._deliver)
        journal = None if self._dir is None else Journal(self._dir.journal)
        restored = restore(self.app, journal, self.log)
        self.seen = dict(restored.positions)
        self.streams = {name: StreamState(*restored.streams.get(name, (0, None))) for name in self.app.streams}
        self.machines = {
            name: build(view, restored.parts, self.streams[view.stream].newest) for name, view in self.app.views.items()
        }
        self.store = CONNECTORS.create("online", self.app.online)
        self.store.bind(self.machines)
        self.checkpointer = Checkpointer(journal, self.app, self.log, restored.dropped)
        self._replay(restored)

    def start(self) -> None:
        """Starts the engine and the sources."""
        if sys.getswitchinterval() > _SWITCH:
            sys.setswitchinterval(_SWITCH)
        self._thread.start()
        for stream in self.app.streams.values():
            if stream.url is not None:
                source = CONNECTORS.create("source", stream.url)
                feeder = Feeder(
                    stream.name, stream.schema, source, self.inbox, self.app.clock.now, self.setaside.rejected
                )
                self._feeders.append(feeder)
                feeder.start(self.seen.get(source.name))

    # -- in --------------------------------------------------------------------------------------------------------

    def submit(self, stream: Stream, frame: pl.DataFrame) -> int:
        """Takes valid rows in, durably; returns their position in the push log.

        Raises:
            StorageError: They could not be stored, and are not taken.
            ClosedError: The engine has stopped.
        """
        self.alive()
        return self.log.append(stream.name, frame, self.app.clock.now())

    def alive(self) -> None:
        """Raises ClosedError unless the engine runs."""
        if self.failure is not None:
            raise ClosedError(f"the engine has stopped: {self.failure}; see the log, and start the app again")
        if self._closed:
            raise ClosedError(f"the app {self.app.name!r} is closed; open it again")

    def _deliver(self, record: Record) -> None:
        self.inbox.put(Work(record.stream, record.frame, PUSH, record.position, record.received))

    def _replay(self, restored: Restored) -> None:
        """Takes in what the log holds past the checkpoint, before anything new; for changed views all that it holds."""
        upto = restored.positions.get(PUSH, 0)
        if restored.backfill:
            self._replay_range(0, upto, restored.backfill)
        self._replay_range(upto, None, None)

    def _replay_range(self, after: int, upto: int | None, only: set[str] | None) -> None:
        states = None
        if only is not None:
            # Arrival numbers before all others, since these rows came before all that is still to come.
            states = {name: StreamState(-(1 << 40)) for name in self.app.streams}
        works: list[Work] = []
        rows = 0
        for record in self.log.replay(after):
            if upto is not None and record.position > upto:
                break
            stream = self.app.streams.get(record.stream)
            if stream is None:
                logger.warning("the push log holds rows of %r, which the app no longer has", record.stream)
                continue
            frame = stream.schema.align(record.frame)
            works.append(Work(record.stream, frame, PUSH, record.position, record.received))
            rows += frame.height
            if rows >= _REPLAY_ROWS:
                self._cycle(works, only, states)
                works, rows = [], 0
        if works:
            self._cycle(works, only, states)

    # -- the engine ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # an interrupt too: an engine must not end unnoticed
            logger.exception("the engine has stopped")
            self._fail(f"{type(error).__name__}: {error}")

    def _loop(self) -> None:
        swept = saved = time.monotonic()
        while True:
            works = self.inbox.take(_SWEEP)
            started = time.monotonic()
            if works:
                self._uninterrupted(works)
                self._count(len(works))
                if not self.inbox.closed:
                    self.inbox.rest(min(time.monotonic() - started, _LONGEST_REST), _ENOUGH_ROWS)
            elif self.inbox.closed:
                return
            if started - swept >= _SWEEP:
                swept = started
                self._sweep()
            if (started - saved) * 1e6 >= self.app.checkpoint:
                saved = started
                self.checkpointer.begin(self.machines, self.seen, self.streams)

    def _uninterrupted(self, works: list[Work]) -> None:
        """A cycle, begun again if Ctrl-C hits it.

        Polars raises KeyboardInterrupt in whichever thread waits for it. The interrupt is for the main thread, which
        has its own; here nothing of the batch is visible yet, so it is simply computed again.
        """
        for _ in range(3):
            try:
                return self._cycle(works)
            except KeyboardInterrupt:
                continue
        return self._cycle(works)

    def _fail(self, reason: str) -> None:
        with self._progress:
            self.failure = reason
            self._progress.notify_all()
        self.inbox.close(f"the engine has stopped: {reason}")

    def _count(self, works: int) -> None:
        with self._progress:
            self._taken += works
            self._progress.notify_all()

    def _cycle(
        self, works: list[Work], only: set[str] | None = None, states: dict[str, StreamState] | None = None
    ) -> None:
        """One batch: all views' changes computed, then made visible together.

        Args:
            works: What has come in, in order.
            only: The views to change, where what others have seen is replayed for them.
            states: How far streams have come in that replay.
        """
        by_stream: dict[str, list[Work]] = {}
        for work in works:
            by_stream.setdefault(work.stream, []).append(work)
        commits: list[Callable[[], object]] = []
        after: list[Callable[[], object]] = []
        for name, of_stream in by_stream.items():
            machines = [
                machine
                for view, machine in self.machines.items()
                if machine.view.stream == name and (only is None or view in only)
            ]
            commit, then = self._prepare(self.app.streams[name], of_stream, machines, states)
            commits += commit
            after += then
        seen = dict(self.seen)
        if only is None:
            for work in works:
                seen[work.source] = work.position
        self.store.write([*commits, partial(setattr, self, "seen", seen)])
        for call in after:
            call()
        self.cycles += 1

    def _prepare(
        self,
        stream: Stream,
        works: list[Work],
        machines: list[ViewMachine],
        states: dict[str, StreamState] | None,
    ) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
        """What makes a stream's batch visible, and what is to be done then."""
        held = [work for work in works if work.frame.height]
        if not held:
            return [], []
        frame = held[0].frame if len(held) == 1 else pl.concat([work.frame for work in held])
        state = (states or self.streams)[stream.name]
        at = frame[stream.schema.time].to_physical().to_numpy()
        newest = int(at.max()) if state.newest is None else max(state.newest, int(at.max()))
        if self.app.event_time:
            floor = at[0] if state.newest is None else state.newest
            now = np.maximum.accumulate(np.maximum(at, floor))
        else:
            now = np.repeat([work.received for work in held], [work.frame.height for work in held])
        batch = Batch(frame, state.seq, now, stream.lateness)
        prepared: list[tuple[ViewMachine, Prepared]] = [(machine, machine.prepare(batch)) for machine in machines]
        commits: list[Callable[[], object]] = [partial(machine.commit, one) for machine, one in prepared]
        commits.append(partial(state.advance, frame.height, newest))
        refused = [one.refused for _, one in prepared]
        if states is not None or not any(refused):
            return commits, []
        return commits, [partial(self._set_aside, stream.name, held, frame, refused)]

    def _set_aside(self, stream: str, works: list[Work], frame: pl.DataFrame, refused: list[list[Refused]]) -> None:
        self.streams[stream].late += self.setaside.refused(stream, works, frame, refused)

    def _sweep(self) -> None:
        """Lets go of a share of what has become too old to be read."""
        wall = None if self.app.event_time else self.app.clock.now()
        retire: list[Callable[[], object]] = []
        for machine in self.machines.values():
            stream = self.app.streams[machine.view.stream]
            now = self.streams[stream.name].newest if wall is None else wall
            if now is not None:
                expired = machine.expire(now, stream.lateness, _SWEEP_KEYS)
                if any(len(run) for _, (run, _, _) in expired):
                    retire.append(partial(machine.retire, expired))
        if retire:
            self.store.write(retire)

    # -- out -------------------------------------------------------------------------------------------------------

    def wait(self, positions: dict[str, Any], timeout: float | None) -> bool:
        """Waits until reads see these positions; False if they do not within `timeout` seconds."""
        return self.wait_until(lambda: reached(self.seen, positions), timeout)

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Waits until `done`, asked after every batch."""
        if done():
            return True
        with self._progress:
            self._progress.wait_for(lambda: done() or self.failure is not None or self._ended, timeout)
            held = done()
        if not held:
            self.alive()
        return held

    def drain(self, timeout: float | None) -> bool:
        """Waits until all input that is there now has been processed."""
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
        """The sources that positions may name."""
        return [PUSH, *(feeder.source.name for feeder in self._feeders)]

    def fed(self, stream: str) -> int:
        """Valid rows that a stream's source has brought."""
        return sum(feeder.rows for feeder in self._feeders if feeder.stream == stream)

    def problem(self) -> str | None:
        """Why the app is not ready, or None."""
        if self.failure is not None:
            return f"the engine has stopped: {self.failure}"
        if self._closed:
            return "closed"
        for feeder in self._feeders:
            if feeder.failure is not None:
                return f"the source {feeder.source.name} has stopped: {feeder.failure}"
        return self.checkpointer.problem

    def close(self) -> None:
        """Stops taking input, finishes what was taken, writes a last checkpoint and lets go of the directory."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        for feeder in self._feeders:
            feeder.close()
        self.log.close()
        self.inbox.close()
        if self._thread.ident is not None:
            self._thread.join()
        with self._progress:
            self._ended = True
            self._progress.notify_all()
        try:
            if self.failure is None:
                self.checkpointer.finish(self.machines, self.seen, self.streams)
        finally:
            self.checkpointer.close()
            self.store.close()
            self.dead_letters.close()
            if self._dir is not None:
                self._dir.close()
