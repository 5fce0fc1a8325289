"""Batches combined before they are routed, and divided by shard: the answers are those of one machine."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from payment_views import USERS, declare, fed, payments

import headrace as hr
from headrace.features.combine import Combiner, Partials, ShardedMachine, virtual_shards
from headrace.features.machine import Batch, build
from headrace.features.view import View
from headrace.testing.machines import MachineContract, Run
from headrace.units import HOUR, MINUTE

SHARDS = 7
START = 1_700_000_000_000_000


class Divided:
    """Several machines, each with some of the shards; asked as if they were one.

    Args:
        view: The view.
        machines: How many.
    """

    def __init__(self, view: View, machines: int) -> None:
        self.view = view
        self.combiner = Combiner(view, SHARDS)
        self.machines = [ShardedMachine(view, SHARDS) for _ in range(machines)]
        self.first = 0

    @property
    def newest(self) -> int | None:
        return max((machine.newest for machine in self.machines if machine.newest is not None), default=None)

    def process(self, batch: Batch, travels: bool) -> set[tuple[int, str, bool]]:
        """Takes a batch in; its parts may have travelled as bytes. Returns the refused rows as `feed` does."""
        combined = self.combiner.combine(Batch(batch.frame, 0, batch.now, batch.slack))
        for number, machine in enumerate(self.machines):
            mine = [shard for shard in range(SHARDS) if shard % len(self.machines) == number]
            if travels:
                tables = [_joined(table, mine) for table in combined.tables]
            else:
                tables = [table.of(mine) for table in combined.tables]
            machine.commit(machine.merge(tables, batch.first, combined.newest))
        return {
            (batch.first + row, refused.reason, refused.late)
            for refused in combined.refused
            for row in np.asarray(refused.rows).tolist()
        }

    def moved(self, machines: int) -> Divided:
        """The same shards among another number of machines."""
        shares = [machine.shares() for machine in self.machines]
        other = Divided(self.view, machines)
        for number in range(machines):
            mine = [shard for shard in range(SHARDS) if shard % machines == number]
            parts: dict[str, list[pl.DataFrame]] = {}
            for shard in mine:
                for part, frame in shares[shard % len(shares)](shard).items():
                    parts.setdefault(part, []).append(frame)
            snapshot = {part: pl.concat(frames) for part, frames in parts.items()}
            other.machines[number] = ShardedMachine(self.view, SHARDS, snapshot, self.newest)
        return other

    def read(self, key: Any, now: int) -> Any:
        parts = [key] if len(self.view.keys) == 1 else key
        if any(isinstance(part, str) != (self.view.schema[name] == pl.String) for name, part in self._named(parts)):
            return self.machines[0].read(key, now)  # the key of no event, and of another type
        columns = {name: pl.Series([part], dtype=self.view.schema[name]) for name, part in self._named(parts)}
        shard = int(virtual_shards(pl.DataFrame(columns), SHARDS)[0])
        return self.machines[shard % len(self.machines)].read(key, now)

    def _named(self, parts: Any) -> list[tuple[str, Any]]:
        return list(zip(self.view.keys, parts, strict=True))


def _joined(table: Partials, mine: list[int]) -> Partials:
    cut = dict(table.cut())
    parts = [pickle.loads(pickle.dumps(cut[shard])) for shard in mine if shard in cut]  # noqa: S301 - our own
    return Partials.joined(parts) if parts else table.of(())


class Kit(MachineContract):
    """Only its help is used: runs of events, and comparing answers."""

    __test__ = False
    nullable = ("user_id",)

    def __init__(self, view: View, **keys: Any) -> None:
        self.view = view  # type: ignore[misc]
        self.keys = keys  # type: ignore[misc]


SOME_OF_EACH = {
    "total": hr.sum("amount", over="10m", every="1m"),
    "spread": hr.std("n", over="10m", every="1m", where=pl.col("paid")),
    "least": hr.min("amount", over="10m", every="1m"),
    "first": hr.first("merchant", over="10m", every="1m"),
    "last": hr.last("n", over="10m", every="1m"),
    "latest": hr.latest(3, "merchant", "at", over="1h"),
    "shops": hr.distinct("merchant", over="10m", every="1m"),
    "middle": hr.quantile("amount", 0.5, over="10m", every="1m"),
    "favourites": hr.top(2, "merchant", over="1h"),
    "ever": hr.count(over=None),
}
KITS = {
    "one of each kind": Kit(declare(**SOME_OF_EACH), user_id=USERS),
    "two keys": Kit(
        declare(["user_id", "shop"], n=hr.sum("n", over="1h"), last=hr.latest(2, "n", over="10m")),
        user_id=USERS,
        shop=(0, 1),
    ),
}


@pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
@given(data=st.data())
@settings(suppress_health_check=list(HealthCheck), deadline=None)
def test_divided_is_as_one(kit: Kit, data: DataObject) -> None:
    """Whatever the cuts, the number of machines, and when it changes; parts may travel as bytes."""
    run: Run = data.draw(kit.runs())
    one, divided = build(kit.view), Divided(kit.view, data.draw(st.integers(1, 3)))
    for batch in run.batches:
        refused = {
            (batch.first + row, part.reason, part.late)
            for part in one.process(batch).refused
            for row in np.asarray(part.rows).tolist()
        }
        assert divided.process(batch, data.draw(st.booleans())) == refused
        if data.draw(st.booleans(), "moved"):
            divided = divided.moved(data.draw(st.integers(1, 3)))
    kit._assert_same(run, one, divided)  # type: ignore[arg-type]


def test_a_shard_is_for_ever() -> None:
    """Stored state is found by it, so these numbers must never change."""
    keys = pl.DataFrame({"user": ["u1", "u2", "ü", ""], "shop": [0, 1, -5, 2**62]})
    assert virtual_shards(keys.select("user"), 64).tolist() == SHARDS_OF["user"]
    assert virtual_shards(keys.select("shop"), 64).tolist() == SHARDS_OF["shop"]
    assert virtual_shards(keys, 64).tolist() == SHARDS_OF["both"]


SHARDS_OF = {"user": [61, 31, 57, 55], "shop": [57, 44, 41, 42], "both": [12, 23, 34, 0]}


def test_shards_are_even() -> None:
    """Of ten thousand keys no shard of 64 has half as many again as another."""
    counts = np.bincount(virtual_shards(pl.DataFrame({"key": [f"u{n:07}" for n in range(10_000)]}), 64), minlength=64)
    assert counts.min() > 100
    assert counts.max() < 220


def test_shares_are_the_snapshot() -> None:
    """Cut by shard, and nothing twice; also of keys that have come back from a snapshot, and after some have gone."""
    view = declare(n=hr.sum("n", over="10m", every="1m"), shops=hr.top(3, "merchant", over="1h"))
    frame = payments(
        [{"user_id": f"u{n % 40}", "n": n, "merchant": f"m{n % 5}", "at": START + n * MINUTE // 4} for n in range(200)]
    )
    machine = ShardedMachine(view, SHARDS, fed(view, frame).snapshot(), START)
    machine.retire(machine.expire(START + HOUR))
    share = machine.shares()
    whole = machine.snapshot()
    for part, rows in whole.items():
        together = pl.concat([share(shard)[part] for shard in range(SHARDS)])
        by = ["user_id", "__tile"]
        assert together.sort(by).equals(rows.sort(by))
        for shard in range(SHARDS):
            assert set(virtual_shards(share(shard)[part].select("user_id"), SHARDS).tolist()) <= {shard}
