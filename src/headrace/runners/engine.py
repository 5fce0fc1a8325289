"""The engine: batches in, the changes of all views out, made visible together with the positions they stand for.

It has no threads and opens no source: a runner hands it one batch after another, from one thread.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from headrace.changes import Rows
from headrace.features import versions
from headrace.features.machine import Batch, Prepared, Refused, ViewMachine, build
from headrace.runners.base import PUSH
from headrace.runners.checkpoint import Restored
from headrace.runners.history import History
from headrace.runners.inbox import Work
from headrace.runners.online import online_store
from headrace.runners.progress import StreamState
from headrace.runners.setaside import SetAside
from headrace.runners.tally import FRESHNESS, ROWS, Tally
from headrace.stores.online.base import Progress
from headrace.units import SECOND

if TYPE_CHECKING:
    from headrace.app import App, Stream

# Keys looked at a sweep: well under a millisecond.
_SWEEP_KEYS = 32_768
# Events of a batch whose freshness is measured, evenly spread over it.
_SAMPLE = 512


class Engine:
    """Keeps an app's views.

    Args:
        app: What to keep.
        restored: Where to go on from.
        setaside: Where rows go that views cannot use.
        wall: The wall clock, for saying when progress was written.
    """

    def __init__(self, app: App, restored: Restored, setaside: SetAside, wall: Callable[[], int]) -> None:
        self.app = app
        self.setaside = setaside
        self._wall = wall
        self.seen: dict[str, Any] = dict(restored.positions)
        self.cycles = 0
        self.behind: Callable[[], float] = lambda: 0.0
        # By view: who is told which keys have changed, once reads see it.
        self.listeners: dict[str, list[Callable[[list[Any]], None]]] = {}
        self.streams = {name: StreamState(*restored.streams.get(name, (0, None))) for name in app.streams}
        self.machines = {
            name: build(view, restored.parts, self.streams[view.stream].newest) for name, view in app.views.items()
        }
        self.lineage = {name: restored.lineage.get(name) or uuid.uuid4().hex[:16] for name in app.views}
        self.freshness = {name: Tally(FRESHNESS) for name in app.streams}
        self.batch_rows = {name: Tally(ROWS) for name in app.streams}
        self.store = online_store(app)
        self.store.bind(self.machines, self.lineage)
        # Who holds it sees the machines between two commits: those that have seen the positions `applied`.
        self.lock: threading.Lock = getattr(self.store, "lock", None) or threading.Lock()
        self.applied: dict[str, Any] = self.seen
        self.history: History | None = None

    def progress(self, seen: dict[str, Any] | None = None) -> Progress:
        """How far the engine has come."""
        newest = {name: state.newest for name, state in self.streams.items()}
        return Progress(self.seen if seen is None else seen, newest, self._wall(), self.behind())

    def cycle(
        self, works: list[Work], only: set[str] | None = None, states: Mapping[str, StreamState] | None = None
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
        changed: list[tuple[ViewMachine, Prepared]] = []
        after: list[Callable[[], object]] = []
        for name, of_stream in by_stream.items():
            machines = [
                machine
                for view, machine in self.machines.items()
                if machine.view.stream == name and (only is None or view in only)
            ]
            self._prepare(self.app.streams[name], of_stream, machines, states, commits, changed, after)
        seen = dict(self.seen)
        if only is None:
            for work in works:
                seen[work.source] = work.position
        if (history := self._remembering(seen)) is not None:
            undos = {machine.view.name: versions.before_commit(machine, one) for machine, one in changed}
            commits.insert(0, partial(history.add, self.applied, seen, undos))
        self._write(commits, lambda: [rows for machine, one in changed for rows in machine.rows(one)], seen)
        for call in after:
            call()
        for machine, one in changed:
            for listener in self.listeners.get(machine.view.name, ()):
                listener(_keys(machine, one))
        self.cycles += 1

    def _write(
        self, commits: list[Callable[[], object]], rows: Callable[[], Iterable[Rows]], seen: dict[str, Any]
    ) -> None:
        visible = partial(setattr, self, "seen", seen)
        commits = [*commits, partial(setattr, self, "applied", seen)]
        if self.store.remote:
            with self.lock:
                for commit in commits:
                    commit()
            # What readers are told goes with the rows: the newest event time is that of these commits.
            self.store.write([], rows, self.progress(seen))
            visible()
        else:
            self.store.write([*commits, visible], rows, Progress())

    def _remembering(self, seen: Mapping[str, Any]) -> History | None:
        """The history, if a commit after which `seen` holds may have to be undone; what nobody needs of it goes."""
        history = self.history
        if history is None:
            return None
        floor = history.order.floor()
        if len(history):
            with self.lock:
                history.trim(floor)
        return history if floor is not None and seen.get(PUSH, 0) > floor else None

    def versions(self) -> list[int]:
        """The pushes behind which features can be read, in their order."""
        with self.lock:
            return [*(self.history.pushes() if self.history else ()), self.applied.get(PUSH, 0)]

    def _prepare(
        self,
        stream: Stream,
        works: list[Work],
        machines: list[ViewMachine],
        states: Mapping[str, StreamState] | None,
        commits: list[Callable[[], object]],
        changed: list[tuple[ViewMachine, Prepared]],
        after: list[Callable[[], object]],
    ) -> None:
        """Adds what makes a stream's batch visible, what changes, and what is to be done then."""
        held = [work for work in works if work.frame.height]
        if not held:
            return
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
        prepared = [(machine, machine.prepare(batch)) for machine in machines]
        changed += prepared
        commits += [partial(machine.commit, one) for machine, one in prepared]
        commits.append(partial(state.advance, frame.height, newest))
        if states is None:
            after.append(partial(self._tally, stream.name, at))
            refused = [one.refused for _, one in prepared]
            if any(refused):
                after.append(partial(self._set_aside, stream.name, held, frame, refused))

    def _tally(self, stream: str, at: np.ndarray[Any, Any]) -> None:
        self.batch_rows[stream].add(np.array([float(len(at))]))
        if not self.app.event_time:
            sample = at[:: 1 + (len(at) - 1) // _SAMPLE]
            self.freshness[stream].add(np.maximum(0.0, (self.app.clock.now() - sample) / SECOND))

    def _set_aside(self, stream: str, works: list[Work], frame: pl.DataFrame, refused: list[list[Refused]]) -> None:
        self.streams[stream].late += self.setaside.refused(stream, works, frame, refused)

    def sweep(self) -> None:
        """Lets go of a share of what has become too old to be read."""
        wall = None if self.app.event_time else self.app.clock.now()
        retire: list[Callable[[], object]] = []
        gone: list[Rows] = []
        history, undos = self._remembering(self.applied), {}
        for machine in self.machines.values():
            stream = self.app.streams[machine.view.stream]
            now = self.streams[stream.name].newest if wall is None else wall
            if now is not None:
                expired = machine.expire(now, stream.lateness, _SWEEP_KEYS)
                if any(len(run) for _, (run, _, _) in expired):
                    if self.store.remote:
                        gone += machine.gone(expired)
                    retire.append(partial(machine.retire, expired))
                    if history is not None:
                        undo = undos[machine.view.name] = versions.before_retire(machine, expired)
                        retire.append(partial(versions.retired, machine, undo))
        if retire:
            if history is not None:
                retire.insert(0, partial(history.add, self.applied, self.applied, undos))
            self._write(retire, lambda: gone, self.seen)


def _keys(machine: ViewMachine, prepared: Prepared) -> list[Any]:
    """The keys that a batch has changed, right after its commit."""
    owners = [change.segments.owner[change.rows] for _, change in prepared.changes]
    slots = np.unique(np.concatenate(owners)).tolist() if owners else []
    return [machine.index.key_of[slot] for slot in slots]
