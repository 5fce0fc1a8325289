"""The contract of a view's machine as a test suite: subclass it, and say which view.

    class TestSpending(MachineContract):
        view = Spending                                     # what `@app.features` returned
        keys = {"user_id": ["u1", "u2", "u3"]}              # few values, so that keys meet again

Hypothesis makes the events, cuts and moments, from the view's own columns. What the suite says of every machine:

- cutting the input into other batches changes no answer, and no refusal;
- going on from a snapshot, at any point, changes none;
- changed rows laid over an older snapshot are the newer snapshot;
- letting go of what is too old changes no answer that can still be asked for;
- a prepared batch is invisible until it is committed;
- reading keys together is reading them one by one;
- every answer is the oracle's.

The number of examples is that of the Hypothesis profile in force.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, DrawFn, SearchStrategy

from headrace.features.layout import TILE
from headrace.features.machine import Batch, Refused, ViewMachine, build
from headrace.features.view import View
from headrace.testing import strategies
from headrace.testing.oracle import Expected, disagreements, event_times, expected, leaves
from headrace.units import DAY, HOUR, MINUTE, SECOND

# The suite is inherited by many classes, and a view of many features is slow to declare right; both are meant.
relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))


# A key that no event has, of any type.
_NEVER = "\0never"


@dataclass(frozen=True)
class Run:
    """Events in order of arrival, when each arrived, and how they are cut.

    Attributes:
        now: The time at which each row arrived, in microseconds, never falling.
        slack: How much longer than its windows the machine keeps tiles, and how far back reads may go.
        reads: The moments to read at, from the last arrival less `slack` on.
    """

    events: pl.DataFrame
    now: tuple[int, ...]
    slack: int
    places: tuple[int, ...]
    reads: tuple[int, ...]

    @property
    def batches(self) -> Iterator[Batch]:
        """The run as it is cut."""
        return self.cut(self.places)

    def cut(self, places: Sequence[int]) -> Iterator[Batch]:
        """The run in other batches."""
        now = np.array(self.now, np.int64)
        first = 0
        for frame in strategies.cut(self.events, places):
            yield Batch(frame, first, now[first : first + frame.height], self.slack)
            first += frame.height

    def at(self, row: int) -> int:
        """When the row before `row` arrived."""
        return self.now[row - 1] if row else self.now[0] if self.now else strategies.START


@st.composite
def runs(draw: DrawFn, view: View, events: SearchStrategy[pl.DataFrame]) -> Run:
    """A run of a view's events, by a clock that follows the events or one of its own."""
    frame = draw(events)
    at = event_times(frame, view.time).to_list()
    delays = [0] * len(at)
    if draw(st.booleans(), "a clock of its own"):
        delay = st.sampled_from((0, SECOND, -SECOND, -2 * MINUTE, HOUR, -2 * HOUR))
        delays = draw(st.lists(delay, min_size=len(at), max_size=len(at)))
    arrived = [moment + delay for moment, delay in zip(at, delays, strict=True)]
    now = np.maximum.accumulate(np.array(arrived, np.int64)).tolist()
    slack = draw(st.sampled_from((0, 10 * SECOND, HOUR)))
    end = now[-1] if now else strategies.START
    reads = draw(st.lists(_moments(view, at, end, slack), min_size=1, max_size=3))
    return Run(frame, tuple(now), slack, tuple(draw(strategies.cuts(frame.height))), tuple(reads))


def _moments(view: View, at: Sequence[int], end: int, slack: int) -> SearchStrategy[int]:
    """When to read: now, at any time after, and most of all when an event's tile enters a window or leaves it."""
    spans = {(leaf.over, leaf.every) for feature in view.features.values() for leaf in leaves(feature) if leaf.over}
    edges = {moment // every * every + by for moment in at for over, every in spans for by in (0, over)}
    near = sorted(edge + by for edge in edges for by in (-1, 0, 1) if edge + by >= end - slack)
    anywhen = st.just(end) | st.integers(end - slack, end + 2 * (view.horizon or DAY))
    return st.sampled_from(near) | anywhen if near else anywhen


class MachineContract:
    """What every view's machine promises; see the module for how to use it."""

    view: ClassVar[View]
    # The values of the key columns.
    keys: ClassVar[Mapping[str, Sequence[Any]]] = {}
    # Columns that may be null; key columns among them make rows that have to be refused.
    nullable: ClassVar[Sequence[str]] = ()
    # Strategies for columns whose values the suite's own do not suit.
    values: ClassVar[Mapping[str, SearchStrategy[Any]]] = {}
    # Around which moment the events lie, in microseconds.
    start: ClassVar[int] = strategies.START
    # Whether answers are compared with the oracle: not where sketches are past their limit.
    exact: ClassVar[bool] = True

    def events(self) -> SearchStrategy[pl.DataFrame]:
        """The stream's events; override it for other ones."""
        view = self.view
        tiles = [table.every for table in view.tables if table.every]
        spread = min(view.horizon or DAY, DAY) * 3 // 2
        at = strategies.times(self.start, spread=spread, tiles=tiles or (MINUTE,), far=2 * (view.horizon or DAY))
        return strategies.events(
            view.schema, time=view.time, at=at, keys=self.keys, values_of=self.values, nullable=self.nullable
        )

    def runs(self) -> SearchStrategy[Run]:
        return runs(self.view, self.events())

    @given(data=st.data())
    @relaxed
    def test_every_answer_is_the_oracles(self, data: DataObject) -> None:
        """After each batch at the moment of its last arrival, and at the end at every moment."""
        if not self.exact:
            return
        run = data.draw(self.runs())
        machine = build(self.view)
        wrong: list[str] = []
        done = 0
        for batch in run.batches:
            machine.process(batch)
            done += batch.frame.height
            reads = run.reads if done == run.events.height else (run.at(done),)
            for now in reads:
                wrong += self._wrong(machine, run.events[:done], now)
        assert wrong == []

    @given(data=st.data())
    @relaxed
    def test_cutting_changes_nothing(self, data: DataObject) -> None:
        """Batches of one row, of all rows, and any others give the same answers and refuse the same rows."""
        run = data.draw(self.runs())
        whole, cut, single = build(self.view), build(self.view), build(self.view)
        refused = feed(whole, run.cut(()))
        assert feed(cut, run.batches) == refused
        assert feed(single, run.cut(range(1, run.events.height))) == refused
        self._assert_same(run, whole, cut)
        self._assert_same(run, whole, single)

    @given(data=st.data())
    @relaxed
    def test_going_on_from_snapshots_changes_nothing(self, data: DataObject) -> None:
        """At any points the machine is replaced by one built from its snapshot, as it comes back from a file."""
        run = data.draw(self.runs())
        batches = list(run.batches)
        crashes = data.draw(strategies.crashes(len(batches)))
        kept, machine = build(self.view), build(self.view)
        for step, batch in enumerate(batches):
            kept.process(batch)
            machine.process(batch)
            if step in crashes:
                machine = build(self.view, stored(machine.snapshot()), machine.newest)
        self._assert_same(run, kept, machine)

    @given(data=st.data())
    @relaxed
    def test_changes_over_a_snapshot_are_the_next_snapshot(self, data: DataObject) -> None:
        """Rows identified by key and tile; of those with the same identity the newest stays."""
        run = data.draw(self.runs())
        batches = list(run.batches)
        taken = data.draw(strategies.crashes(len(batches)))
        machine = build(self.view)
        journal = stored(machine.snapshot())
        for step, batch in enumerate(batches):
            machine.process(batch)
            if step in taken or step == len(batches) - 1:
                journal = overlay(journal, stored(machine.changed()), (*self.view.keys, TILE))
                assert_same_rows(journal, machine.snapshot(), (*self.view.keys, TILE))
        assert [frame.height for frame in machine.changed().values()] == [0] * len(self.view.tables)
        self._assert_same(run, machine, build(self.view, journal, machine.newest))

    @given(data=st.data())
    @relaxed
    def test_expiring_changes_no_answer(self, data: DataObject) -> None:
        """Of two machines one lets go after every batch, of all keys or a few at a time; slots are used again."""
        run = data.draw(self.runs())
        most = data.draw(st.sampled_from((None, 1, 2)))
        kept, machine = build(self.view), build(self.view)
        done = 0
        for batch in run.batches:
            kept.process(batch)
            machine.process(batch)
            done += batch.frame.height
            machine.retire(machine.expire(run.at(done), run.slack, most))
        self._assert_same(run, kept, machine)
        self._assert_same(run, kept, build(self.view, stored(machine.snapshot()), machine.newest))

    @given(data=st.data())
    @relaxed
    def test_a_prepared_batch_is_invisible(self, data: DataObject) -> None:
        """Answers stay as they were until `commit`, and then are those of `process`."""
        run = data.draw(self.runs())
        machine, other = build(self.view), build(self.view)
        for batch in run.batches:
            before = [self._answers(machine, run, now) for now in run.reads]
            prepared = machine.prepare(batch)
            assert [self._answers(machine, run, now) for now in run.reads] == before
            machine.commit(prepared)
            other.process(batch)
        assert [self._answers(machine, run, now) for now in run.reads] == [
            self._answers(other, run, now) for now in run.reads
        ]

    @given(data=st.data())
    @relaxed
    def test_reading_many_is_reading_each(self, data: DataObject) -> None:
        """Also after the machine has gone on: what was gathered is a copy."""
        run = data.draw(self.runs())
        batches = list(run.batches)
        early = data.draw(st.integers(0, len(batches)))
        machine = build(self.view)
        feed(machine, iter(batches[:early]))
        keys = _keys(self.view, run.events)
        one = [self._answers(machine, run, now) for now in run.reads]
        gathered = [machine.gather(keys, now) for now in run.reads]
        feed(machine, iter(batches[early:]))
        many = [
            {key: _named(self.view, values) for key, values in zip(keys, machine.finish(part), strict=True)}
            for part in gathered
        ]
        for now, singly, together in zip(run.reads, one, many, strict=True):
            _assert_answers(self.view, run.events, now, singly, together)

    # -- help ------------------------------------------------------------------------------------------------------

    def _answers(self, machine: ViewMachine, run: Run, now: int) -> dict[Any, dict[str, Any]]:
        return {key: _named(self.view, machine.read(key, now)) for key in _keys(self.view, run.events)}

    def _wrong(self, machine: ViewMachine, events: pl.DataFrame, now: int) -> list[str]:
        return [
            line
            for key in _keys(self.view, events)
            for line in disagreements(self.view, events, now, key, _named(self.view, machine.read(key, now)))
        ]

    def _assert_same(self, run: Run, left: ViewMachine, right: ViewMachine) -> None:
        assert left.newest == right.newest
        for now in run.reads:
            _assert_answers(self.view, run.events, now, self._answers(left, run, now), self._answers(right, run, now))


def feed(machine: ViewMachine, batches: Iterator[Batch]) -> set[tuple[int, str, bool]]:
    """Processes batches; returns the refused rows by arrival number, with the reason and whether they are late."""
    return {
        (batch.first + row, refused.reason, refused.late)
        for batch in batches
        for refused in machine.process(batch).refused
        for row in _rows(refused)
    }


def stored(parts: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Frames as they come back from a file."""
    back = {}
    for name, frame in parts.items():
        file = io.BytesIO()
        frame.write_ipc(file)
        file.seek(0)
        back[name] = pl.read_ipc(file)
    return back


def overlay(
    older: Mapping[str, pl.DataFrame], changes: Mapping[str, pl.DataFrame], by: Sequence[str]
) -> dict[str, pl.DataFrame]:
    """Changed rows laid over an older snapshot: what a journal does when it compacts."""
    return {
        name: pl.concat([frame, changes[name]]).unique(by, keep="last", maintain_order=True)
        for name, frame in older.items()
    }


def assert_same_rows(left: Mapping[str, pl.DataFrame], right: Mapping[str, pl.DataFrame], by: Sequence[str]) -> None:
    """Parts hold the same rows, in any order."""
    assert set(left) == set(right)
    for name, frame in left.items():
        # `equals`: a NaN, which stands for an empty slot, is the same as another.
        assert frame.sort(by).equals(right[name].sort(by)), f"{name}: {frame.rows()} and {right[name].rows()}"


def _assert_answers(
    view: View,
    events: pl.DataFrame,
    now: int,
    left: Mapping[Any, Mapping[str, Any]],
    right: Mapping[Any, Mapping[str, Any]],
) -> None:
    """Two machines' answers are the same; float sums to the rounding that another order of addition makes."""
    wrong = []
    for key, values in left.items():
        scales = expected(view, events, now, key)
        for label, value in values.items():
            if not Expected(value, scales[label].scale).agrees(right[key][label]):
                wrong.append(f"{label} of {key!r} at {now}: {value!r} and {right[key][label]!r}")
    assert wrong == []


def _keys(view: View, events: pl.DataFrame) -> list[Any]:
    """Every key of the events, and one that never occurs."""
    frame = events.select(view.keys).drop_nulls().unique(maintain_order=True)
    if len(view.keys) == 1:
        return [*frame.to_series().to_list(), _NEVER]
    return [*frame.rows(), tuple(_NEVER for _ in view.keys)]


def _named(view: View, values: Any) -> dict[str, Any]:
    return {**dict(zip(view.features, values.features, strict=True)), "as_of": values.newest}


def _rows(refused: Refused) -> list[int]:
    rows: list[int] = np.asarray(refused.rows).tolist()
    return rows
