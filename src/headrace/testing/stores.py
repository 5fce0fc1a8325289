"""The contract of an online store as a test suite: subclass it, and say how one is made.

    class TestMine(OnlineStoreContract):
        def make(self, app, codecs):
            return MyStore("mine://localhost", app=app, codecs=codecs)

What the suite says of every store:

- what is written is read as the machine itself answers, of one key and of many, at any moment, whatever was let go of;
- writing again what is there, or everything, changes nothing;
- keys of any characters are told apart, and so are views and apps of other names;
- state that begins anew never meets rows of before.

And of one outside the process (`remote`): another process reads the same, learns how far the engine has come, is
refused where it runs another declaration, and the engine that started last is the one whose rows count.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any, ClassVar

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from headrace.errors import LockedError, StorageError
from headrace.features import spec
from headrace.features.codec import RowCodec
from headrace.features.machine import Batch, ViewMachine, build
from headrace.features.view import View
from headrace.schema import Event, Schema, event_time
from headrace.stores.online.base import Codec, OnlineStore, Progress, RemoteStore
from headrace.testing import strategies
from headrace.testing.machines import Run, relaxed, runs
from headrace.units import MINUTE, from_micros

START = strategies.START // MINUTE * MINUTE
_PATIENCE = 10.0
# Of which a store could take one for another, or for a part of its own names.
ODD_KEYS = (
    "",
    " ",
    "a:b",
    "a",
    "b:c",
    "{x}",
    "}{",
    "*?[a-z]\\",
    "\n\r\n",
    "\0",
    "ü",
    "😀",
    '"',
    "[1]",
    "1",
    "None",
    "ä:ö:",
)


class _Sale(Event):
    shop: str
    till: int
    amount: float | None = None
    what: str | None = None
    at: datetime = event_time()


_SCHEMA = Schema.of(_Sale)


def declared(name: str, keys: Sequence[str] = ("shop",), **features: spec.Feature) -> View:
    """A view of sales, which are by shop and till."""
    return View.declare(name, "", "sale", keys, features, _SCHEMA.columns, _SCHEMA.time)


SALES = declared(
    "sales",
    total=spec.sum("amount", over="10m", every="1m"),
    count=spec.count(over="1h", every="10m"),
    most=spec.max("amount", over="1h", every="10m"),
    spread=spec.std("amount", over="10m", every="1m"),
    often=spec.top(2, "what", over="10m", every="1m"),
    last=spec.last("what"),
)
TILLS = declared("tills", ("shop", "till"), total=spec.sum("amount", over="10m", every="1m"))
OTHER_SALES = declared("sales", total=spec.sum("amount", over="10m", every="2m"))


def sales(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Events with `at` in microseconds; what is not named is one till of shop "a"."""
    blank = {"shop": "a", "till": 1, "amount": 1.0, "what": None}
    return pl.DataFrame([{**blank, **row, "at": from_micros(row["at"])} for row in rows], schema=_SCHEMA.columns)


class Engine:
    """What writes: a machine for each view, and a store that they are bound to."""

    def __init__(self, store: OnlineStore, views: Sequence[View], lineage: str) -> None:
        self.store = store
        self.machines: dict[str, ViewMachine] = {view.name: build(view) for view in views}
        self.rows = 0
        self.newest: int | None = None
        store.bind(self.machines, dict.fromkeys(self.machines, lineage))

    def take(self, frame: pl.DataFrame, now: int | None = None) -> None:
        """A batch of sales, arrived at `now` or, each, at its own time."""
        moments = frame["at"].to_physical().to_numpy()
        arrived = moments if now is None else moments * 0 + now
        self.process(Batch(frame, self.rows, arrived))

    def process(self, batch: Batch) -> None:
        prepared = [(machine, machine.prepare(batch)) for machine in self.machines.values()]
        moments = [one.newest for _, one in prepared if one.newest is not None]
        self.newest = max([*moments, *([] if self.newest is None else [self.newest])], default=None)
        self.rows += batch.frame.height
        self.store.write(
            [lambda machine=machine, one=one: machine.commit(one) for machine, one in prepared],  # type: ignore[misc]
            lambda: [rows for machine, one in prepared for rows in machine.rows(one)],
            self.progress(),
        )

    def let_go(self, now: int, slack: int = 0) -> None:
        """Removes what `now` makes too old to be read."""
        expired = [(machine, machine.expire(now, slack)) for machine in self.machines.values()]
        gone = [rows for machine, one in expired for rows in machine.gone(one)]
        self.store.write(
            [lambda machine=machine, one=one: machine.retire(one) for machine, one in expired],  # type: ignore[misc]
            lambda: gone,
            self.progress(),
        )

    def write_all(self) -> None:
        """Writes every live row once more."""
        self.store.write(
            [], lambda: [rows for machine in self.machines.values() for rows in machine.all_rows()], self.progress()
        )

    def progress(self) -> Progress:
        return Progress({"push": self.rows}, {"sale": self.newest}, time.time_ns() // 1000, 0.0)


class OnlineStoreContract:
    """What every online store promises; see the module for how to use it."""

    # How many keys one read of many asks for in the test of that.
    many: ClassVar[int] = 300

    def make(self, app: str, codecs: Mapping[str, Codec]) -> OnlineStore:
        """A store of an app; called again for the same app, another client of what it holds."""
        raise NotImplementedError

    @contextmanager
    def engine(self, *views: View, app: str | None = None) -> Iterator[Engine]:
        """An engine of an app, of a new one unless it is named, with a store that is closed in the end."""
        with self.reader(app or _new_app(), *views) as store:
            yield Engine(store, views or (SALES,), uuid.uuid4().hex)

    @contextmanager
    def reader(self, app: str, *views: View) -> Iterator[OnlineStore]:
        """A store that nothing is bound to."""
        with closing(self.make(app, {view.name: RowCodec(view) for view in views or (SALES,)})) as store:
            yield store

    # -- answers ---------------------------------------------------------------------------------------------------

    @given(data=st.data())
    @settings(relaxed)
    def test_answers_are_the_machines(self, data: DataObject) -> None:
        """After every batch and at any moment, whatever is let go of or written again in between."""
        run: Run = data.draw(runs(SALES, _events()))
        with self.engine(SALES) as engine:
            done = 0
            for batch in run.batches:
                engine.process(batch)
                done += batch.frame.height
                if data.draw(st.booleans(), "let go"):
                    engine.let_go(run.at(done), run.slack)
                if data.draw(st.booleans(), "write all again"):
                    engine.write_all()
                self._assert_like_machine(engine, [run.at(done)])
            self._assert_like_machine(engine, run.reads)

    def _assert_like_machine(self, engine: Engine, moments: Sequence[int]) -> None:
        machine, store = engine.machines["sales"], engine.store
        keys = ["never", *machine.index.slot_of]
        for now in moments:
            # As text, which tells -0.0 from 0.0 and takes a NaN for a NaN.
            assert [repr(store.read("sales", key, now)) for key in keys] == [
                repr(machine.read(key, now)) for key in keys
            ]
            together = machine.finish(machine.gather(keys, now))
            assert list(map(repr, store.read_many("sales", keys, now))) == list(map(repr, together))

    def test_many_keys_come_in_the_order_asked_for(self) -> None:
        """Some twice, some unknown."""
        with self.engine() as engine:
            engine.take(sales([{"shop": f"s{n}", "amount": float(n), "at": START} for n in range(self.many)]))
            keys = [f"s{n}" for n in reversed(range(self.many))] + ["s1", "never", "s1"]
            totals = [one.features[0] for one in engine.store.read_many("sales", keys, START)]
            assert totals == [float(n) for n in reversed(range(self.many))] + [1.0, 0.0, 1.0]
            assert engine.store.read_many("sales", [], START) == []

    def test_a_window_empties_without_any_event(self) -> None:
        """The total of ten minutes is that of fewer tiles each minute, and nothing after ten."""
        with self.engine() as engine:
            engine.take(sales([{"at": START + minute * MINUTE} for minute in range(10)]))
            now = START + 9 * MINUTE
            totals = [engine.store.read("sales", "a", now + minute * MINUTE).features[0] for minute in range(12)]
            assert totals == [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0]

    def test_now_is_the_newest_event_where_none_is_given(self) -> None:
        """Also of a key that has only older ones."""
        with self.engine() as engine:
            engine.take(sales([{"shop": "a", "at": START}, {"shop": "b", "at": START + 10 * MINUTE}]))
            read = engine.store.read("sales", "a", None)
            assert (read.features[0], read.newest, read.now) == (0.0, START, START + 10 * MINUTE)

    # -- names -----------------------------------------------------------------------------------------------------

    def test_keys_of_any_characters_are_told_apart(self) -> None:
        """Alone, and as parts of a key of several columns."""
        with self.engine(SALES, TILLS) as engine:
            rows = [{"shop": key, "till": n % 2, "amount": float(n + 1)} for n, key in enumerate(ODD_KEYS)]
            engine.take(sales([{**row, "at": START} for row in rows]))
            found = [engine.store.read("sales", row["shop"], START).features[0] for row in rows]
            pairs = [(row["shop"], row["till"]) for row in rows]
            both = [one.features[0] for one in engine.store.read_many("tills", pairs, START)]
            assert (found, both) == ([row["amount"] for row in rows],) * 2
            assert engine.store.read("tills", (ODD_KEYS[0], 1), START).features == [0.0]

    def test_what_cannot_be_a_key_reads_as_empty(self) -> None:
        """Half of a surrogate pair is in no event."""
        with self.engine(SALES, TILLS) as engine:
            engine.take(sales([{"at": START}]))
            assert engine.store.read("sales", "\ud800", START).features[0] == 0.0
            assert engine.store.read("tills", ("\ud800", 1), START).features[0] == 0.0

    def test_apps_do_not_meet(self) -> None:
        """Not even when one's name begins like the other's."""
        name = _new_app()
        with self.engine(app=name) as one, self.engine(app=f"{name}.b") as other:
            one.take(sales([{"at": START}]))
            other.take(sales([{"at": START, "amount": 5.0}]))
            assert one.store.read("sales", "a", START).features[0] == 1.0
            assert other.store.read("sales", "a", START).features[0] == 5.0

    def test_state_that_begins_anew_does_not_meet_rows_of_before(self) -> None:
        """An engine that has lost its state starts again: what it does not know is not there."""
        name = _new_app()
        with self.engine(app=name) as engine:
            engine.take(sales([{"shop": "old", "at": START}, {"shop": "both", "at": START}]))
        with self.engine(app=name) as engine:
            engine.take(sales([{"shop": "both", "amount": 3.0, "at": START + MINUTE}]))
            found = [engine.store.read("sales", key, START + MINUTE).features[0] for key in ("old", "both")]
            assert found == [0.0, 3.0]

    # -- other processes -------------------------------------------------------------------------------------------

    def test_another_client_reads_the_same(self) -> None:
        """Of a store outside the process, at once."""
        name = _new_app()
        with self.engine(app=name) as engine:
            if not engine.store.remote:
                return
            with self.reader(name) as reader:
                for n in range(3):
                    engine.take(sales([{"amount": 2.0, "at": START + n}]))
                    assert reader.read("sales", "a", START + n).features[0] == 2.0 * (n + 1)

    def test_a_client_learns_how_far_the_engine_has_come(self) -> None:
        """With the first word at once, and later ones when they come."""
        name = _new_app()
        with self.engine(app=name) as engine, self.reader(name) as reader:
            if not isinstance(engine.store, RemoteStore) or not isinstance(reader, RemoteStore):
                return
            with pytest.raises(StorageError, match="no engine has written"):
                reader.progress()
            engine.take(sales([{"at": START}]))
            first = reader.progress()
            assert (first.seen, first.newest) == ({"push": 1}, {"sale": START})
            engine.take(sales([{"at": START + 5}]))
            assert reader.progress(_PATIENCE).seen == {"push": 2}
            engine.store.beat(Progress({"push": 2}, {"sale": START + 5}, first.at + 10, 1.5))
            assert (reader.progress(_PATIENCE).at, reader.progress().behind) == (first.at + 10, 1.5)
            assert reader.problem() is None

    def test_a_client_of_another_declaration_is_refused(self) -> None:
        """Rather than answered with what the bytes might mean."""
        name = _new_app()
        with self.engine(app=name) as engine:
            if not engine.store.remote:
                return
            engine.take(sales([{"at": START}]))
            refused = pytest.raises(StorageError, match="another declaration of 'sales'")
            with self.reader(name, OTHER_SALES) as reader, refused:
                reader.read("sales", "a", START)
            refused = pytest.raises(StorageError, match="no view 'tills'")
            with self.reader(name, SALES, TILLS) as reader, refused:
                reader.read("sales", "a", START)

    def test_the_engine_that_started_last_is_the_one_that_counts(self) -> None:
        """The other one stops, and nothing that it still writes is seen."""
        name = _new_app()
        with self.engine(app=name) as old, self.engine(app=name) as new, self.reader(name) as reader:
            if not old.store.remote:
                return
            old.take(sales([{"at": START}]))
            assert reader.read("sales", "a", START).features[0] == 1.0
            new.take(sales([{"amount": 7.0, "at": START}]))
            assert reader.read("sales", "a", START).features[0] == 7.0
            with pytest.raises(LockedError, match="another engine has taken over"):
                old.take(sales([{"amount": 100.0, "at": START}]))
            assert reader.read("sales", "a", START).features[0] == 7.0
            new.take(sales([{"at": START}]))
            assert reader.read("sales", "a", START).features[0] == 8.0

    def test_closing_twice_is_closing_once(self) -> None:
        """Also of a store that was never used."""
        store = self.make(_new_app(), {"sales": RowCodec(SALES)})
        store.close()
        store.close()


_COUNT = itertools.count()


def _new_app() -> str:
    return f"contract-{uuid.uuid4().hex[:8]}-{next(_COUNT)}"


def _events() -> Any:
    at = strategies.times(START, spread=90 * MINUTE, tiles=(MINUTE, 10 * MINUTE))
    keys = {"shop": ("a", "b", "ü:"), "till": (1, 2)}
    return strategies.events(_SCHEMA, at=at, keys=keys)
