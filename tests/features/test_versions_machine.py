"""A view read as it was some commits ago is what was read then, whatever came since."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from payment_views import LARGE, SCHEMA, USERS, declare, fed, one_of_each, payments

import headrace as hr
from headrace.features import table, versions
from headrace.features.machine import Batch, ViewMachine, build
from headrace.features.versions import Undo, freeze
from headrace.features.view import View
from headrace.testing import strategies
from headrace.testing.machines import relaxed
from headrace.testing.oracle import event_times
from headrace.units import MINUTE

EVERYTHING = declare(
    **{f"{label}_hour": feature for label, feature in one_of_each("1h", "1m").items()},
    **{f"{label}_large": feature for label, feature in one_of_each("10m", "1m", LARGE).items()},
)
SOME = declare(
    total=hr.sum("amount", over="10m", every="1m"),
    shops=hr.distinct("merchant", over="10m", every="1m"),
    best=hr.top(2, "merchant", over="10m", every="1m"),
    middle=hr.quantile("amount", 0.5, over="10m", every="1m"),
    recent=hr.latest(2, "merchant", "at", over="10m", every="1m"),
)
FOREVER = declare(
    earliest=hr.first("merchant"), events=hr.count(over="10m", every="1m"), newest=hr.latest(2, "n", "at")
)
KEYS = (*USERS, "never")


class Past:
    """A machine with all that undoes its commits, and what was read after each."""

    def __init__(self, view: View) -> None:
        self.machine: ViewMachine = build(view)
        self.undos: list[Undo] = []
        self.read: list[dict[Any, str]] = [self.now()]

    def now(self) -> dict[Any, str]:
        return {key: repr(self.machine.read(key, None)) for key in KEYS}

    def commit(self, batch: Batch) -> None:
        prepared = self.machine.prepare(batch)
        self.undos.append(versions.before_commit(self.machine, prepared))
        self.machine.commit(prepared)
        self.read.append(self.now())

    def expire(self, now: int, slack: int) -> None:
        expired = self.machine.expire(now, slack)
        undo = versions.before_retire(self.machine, expired)
        self.machine.retire(expired)
        versions.retired(self.machine, undo)
        self.undos.append(undo)
        self.read.append(self.now())

    def at(self, version: int) -> dict[Any, str]:
        back = list(reversed(self.undos[version:]))
        return {key: repr(freeze(self.machine, key, back, None).finish()) for key in KEYS}


@pytest.mark.parametrize("view", [EVERYTHING, SOME, FOREVER], ids=["everything", "some", "forever"])
@pytest.mark.parametrize("room", [1, 64])
@relaxed
@given(data=st.data())
def test_every_version_reads_as_it_was_read_then(view: View, room: int, data: st.DataObject) -> None:
    events = data.draw(strategies.events(SCHEMA, keys={"user_id": USERS}, min_rows=1, max_rows=40))
    at = event_times(events, view.time).to_numpy()
    places = data.draw(strategies.cuts(events.height))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "ROOM", room)
        past = Past(view)
        first = 0
        for frame in strategies.cut(events, places):
            now = np.maximum.accumulate(at[: first + frame.height])[first:]
            past.commit(Batch(frame, first, now, 0))
            first += frame.height
            if past.machine.newest is not None and data.draw(st.booleans(), "a sweep"):
                past.expire(past.machine.newest, 0)
    assert [past.at(version) for version in range(len(past.read))] == past.read


def test_a_slot_that_was_another_keys_reads_empty_before() -> None:
    past = Past(SOME)

    def one(user: str, minute: int) -> Batch:
        frame = payments([{"user_id": user, "amount": 1.0, "at": minute * MINUTE}])
        return Batch(frame, minute, np.array([minute * MINUTE]), 0)

    past.commit(one("u1", 0))
    past.commit(one("u1", 1))
    past.commit(one("u2", 50))
    past.expire(50 * MINUTE, 0)
    past.commit(one("ü", 51))
    assert past.machine.index.slot_of["ü"] == 0
    assert [past.at(version) for version in range(len(past.read))] == past.read


def test_going_back_over_arrays_that_were_rebuilt() -> None:
    past = Past(SOME)
    for number in range(400):
        rows = [{"user_id": user, "amount": number, "merchant": f"m{number}", "at": number * MINUTE} for user in USERS]
        past.commit(Batch(payments(rows), 3 * number, np.array([number * MINUTE] * 3), 0))
    assert any(one.after is not one.before for undo in past.undos for one in undo.tables.values())
    assert past.at(380) == past.read[380]
    assert past.at(5) == past.read[5]


def test_an_undo_holds_what_a_batch_overwrites_and_no_more() -> None:
    machine = fed(SOME, payments([{"user_id": "u1", "amount": 1.0, "at": 0}]))
    frame = pl.concat([payments([{"user_id": user, "amount": 1.0, "at": 1}]) for user in ("u1", "u2")])
    undo = versions.before_commit(machine, machine.prepare(Batch(frame, 1, np.array([1, 1]), 0)))
    assert [len(one.rows) for one in undo.tables.values()] == [1]
