"""Rows as bytes: what is read from them is what the machine answers, whatever is written twice, late or left over."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from payment_views import KINDS, LARGE, USERS, declare, fed, one_of_each, payments
from test_machine_contract import TestNestedColumns, TestOtherKeys

import headrace as hr
from headrace.changes import Rows
from headrace.errors import StorageError
from headrace.features.codec import RowCodec
from headrace.features.machine import Batch, ViewMachine, build
from headrace.features.packed import VERSION
from headrace.features.view import View
from headrace.testing import MachineContract, oracle
from headrace.testing.machines import relaxed
from headrace.units import MINUTE

START = 1_700_000_000 * 1_000_000 // MINUTE * MINUTE


class Mirror:
    """A store as simple as can be: the rows that were written, by key and name."""

    def __init__(self) -> None:
        self.held: dict[Any, dict[bytes, bytes]] = {}
        self.until: dict[Any, int] = {}

    def take(self, changes: list[Rows]) -> None:
        for rows in changes:
            if rows.values is None:
                for key, field in zip(rows.keys, rows.fields, strict=True):
                    del self.held[key][field]
                continue
            for key, field, value in zip(rows.keys, rows.fields, rows.values, strict=True):
                self.held.setdefault(key, {})[field] = value
            for key, until in zip(rows.keys, rows.until or [], strict=False):
                self.until[key] = max(until, self.until.get(key, 0))

    def of(self, key: Any) -> list[bytes]:
        return list(self.held.get(key, {}).values())


class CodecContract(MachineContract):
    """Of the suite for machines, the events and moments; the machine's answers are held by the suite itself."""

    keys = {"user_id": USERS, "shop": (1, 2)}  # noqa: RUF012 - as the suite's users write it
    nullable = ("user_id", "amount", "n", "merchant", "due")

    @given(data=st.data())
    @relaxed
    def test_rows_answer_like_the_machine(self, data: DataObject) -> None:
        """After every batch; some tiles are let go of, and at times everything is written again."""
        run = data.draw(self.runs())
        machine, mirror, codec = build(self.view), Mirror(), RowCodec(self.view)
        done = 0
        for batch in run.batches:
            prepared = machine.process(batch)
            mirror.take(machine.rows(prepared))
            done += batch.frame.height
            if data.draw(st.booleans(), "let go"):
                expired = machine.expire(run.at(done), run.slack)
                mirror.take(machine.gone(expired))
                machine.retire(expired)
            if data.draw(st.booleans(), "write again"):
                mirror.take(list(machine.all_rows()))
            self._assert_rows(machine, mirror, codec, run.events[:done], run.at(done))
        for now in run.reads:
            self._assert_rows(machine, mirror, codec, run.events, now)
        again = Mirror()
        again.take(list(machine.all_rows()))
        assert again.held == {key: rows for key, rows in mirror.held.items() if rows}

    def _assert_rows(
        self, machine: ViewMachine, mirror: Mirror, codec: RowCodec, events: pl.DataFrame, now: int
    ) -> None:
        keys = [*mirror.held, "never"]
        wanted = [machine.read(key, now) for key in keys]
        assert [repr(codec.read(mirror.of(key), now)) for key in keys] == [repr(values) for values in wanted]
        together = codec.read_many([mirror.of(key) for key in keys], now)
        wrong = [
            line
            for key, values in zip(keys[:-1], together, strict=False)
            for line in oracle.disagreements(
                self.view, events, now, key, dict(zip(self.view.features, values.features, strict=True))
            )
        ]
        assert wrong == []
        assert [values.newest for values in together] == [values.newest for values in wanted]


# Only what this file is about: the suite's own tests run beside the machine.
for _name in [name for name in vars(MachineContract) if name.startswith("test_")]:
    setattr(CodecContract, _name, None)


class TestAllAtOnce(CodecContract):
    """Every aggregate twice, by different windows and with `where`, in one view."""

    view = declare(
        **{f"{label}_hour": feature for label, feature in one_of_each("1h", "1m").items()},
        **{f"{label}_large": feature for label, feature in one_of_each("10m", "1m", LARGE).items()},
    )


class TestTables(CodecContract):
    """Several tables: two widths of tile, and all of time; a key of two columns."""

    view = declare(
        ["user_id", "shop"],
        **{f"short_{name}": make(over="10m", every="1m") for name, make in KINDS["sum"].items()},
        **{f"long_{name}": make(over="2d", every="1h") for name, make in KINDS["top"].items()},
        recent=hr.latest(3),
        earliest=hr.first("merchant"),
    )


class TestNested(CodecContract):
    """Lists, structs, bytes, dates and times of day."""

    view = TestNestedColumns.view
    keys = TestNestedColumns.keys
    nullable = TestNestedColumns.nullable
    values = TestNestedColumns.values


class TestKeys(CodecContract):
    """Key columns of every type."""

    view = TestOtherKeys.view
    keys = TestOtherKeys.keys
    nullable = TestOtherKeys.nullable


del MachineContract, TestNestedColumns, TestOtherKeys, CodecContract  # so that they are not collected here


WIDE = View.declare(
    "v",
    "",
    "s",
    ["key"],
    {
        "last": hr.last(pl.col("n").cast(pl.Int128) * 2**70),
        "exact": hr.last(pl.col("n").cast(pl.Decimal(30, 3))),
        "gap": hr.last(pl.col("at") - pl.col("before")),
        "local": hr.latest(2, pl.concat_list(pl.col("at").dt.convert_time_zone("Europe/Paris")).alias("when")),
        "naive": hr.latest(2, pl.concat_list(pl.col("at").dt.replace_time_zone(None)).alias("when")),
        "unsigned": hr.last(pl.col("n").cast(pl.UInt64)),
        "often": hr.top(2, pl.col("n").cast(pl.Decimal(30, 3)), over="10m", every="1m"),
        "kind": hr.last(pl.col("key").cast(pl.Categorical)),
    },
    {"key": pl.String(), "n": pl.Int64(), "before": pl.Datetime("us", "UTC"), "at": pl.Datetime("us", "UTC")},
    "at",
)


def test_every_type_comes_back_as_it_was() -> None:
    """Wide integers, decimals, durations, moments in a zone and in none."""
    moments = [START + by for by in (1, 2, 3)]
    frame = pl.DataFrame(
        {"key": ["a", "a", "b"], "n": [2**62, 7, 1], "before": [0, None, 5], "at": moments}, schema=WIDE.schema
    )
    machine, mirror = fed(WIDE, frame), Mirror()
    mirror.take(list(machine.all_rows()))
    for key in ("a", "b"):
        expected, found = machine.read(key, START + 9), RowCodec(WIDE).read(mirror.of(key), START + 9)
        assert repr(found) == repr(expected)


SMALL = declare(total=hr.sum("amount", over="10m", every="1m"), shops=hr.top(2, "merchant", over="10m", every="1m"))
PLAIN = declare(total=hr.sum("amount", over="10m", every="1m"), units=hr.sum("n", over="10m", every="1m"))


def _mirrored(view: View, minutes: int = 3) -> Mirror:
    mirror = Mirror()
    events = [{"at": START + n * MINUTE, "amount": n + 0.5, "n": n, "merchant": f"m{n}"} for n in range(minutes)]
    mirror.take(list(fed(view, payments(events)).all_rows()))
    return mirror


@pytest.mark.parametrize("view", [PLAIN, SMALL], ids=["plain", "ragged"])
@given(data=st.data())
@relaxed
def test_a_changed_byte_is_found(view: View, data: DataObject) -> None:
    """In any place of any row, by reading one key and by reading several."""
    rows = _mirrored(view).of("u1")
    number = data.draw(st.integers(0, len(rows) - 1))
    place = data.draw(st.integers(0, len(rows[number]) - 1))
    changed = bytearray(rows[number])
    changed[place] ^= data.draw(st.integers(1, 255))
    rows[number] = bytes(changed)
    with pytest.raises(StorageError, match="online store"):
        RowCodec(view).read(rows, START)
    with pytest.raises(StorageError, match="online store"):
        RowCodec(view).read_many([rows, []], START)


@pytest.mark.parametrize("view", [PLAIN, SMALL], ids=["plain", "ragged"])
@given(at=st.integers(0, 1000))
@relaxed
def test_rows_that_are_cut_are_found(view: View, at: int) -> None:
    """Also when what is missing from one is at the end of another."""
    first, second, third = _mirrored(view).of("u1")
    at = 1 + at % (len(first) - 1)
    for rows in ([first[:at], second], [first, second + third[:at]], [first + second[at:], second[:at], third]):
        with pytest.raises(StorageError, match="online store"):
            RowCodec(view).read(rows, START)


def test_a_row_of_another_version_or_declaration_is_named() -> None:
    """The message tells what was found."""
    row = _mirrored(PLAIN).of("u1")[0]
    with pytest.raises(StorageError, match=f"version {VERSION}.*another version or declaration"):
        RowCodec(PLAIN).read([bytes([VERSION + 1]) + row[1:]], START)
    with pytest.raises(StorageError, match="another version or declaration"):
        RowCodec(SMALL).read([row], START)


def test_rows_left_over_count_nowhere() -> None:
    """A tile that was let go of, and one of the future."""
    mirror = _mirrored(PLAIN, 30)
    found = RowCodec(PLAIN).read(mirror.of("u1"), START + 15 * MINUTE)
    assert found.features == [sum(n + 0.5 for n in range(6, 16)), sum(range(6, 16))]


def test_a_row_says_until_when_its_key_is_read() -> None:
    """The newest tile and the longest window: moved by a newer tile, not by an older one."""
    view = declare(
        short=hr.sum("amount", over="10m", every="1m"),
        long=hr.sum("amount", over="1h", every="10m"),
    )
    machine = build(view)
    until = []
    for minute in (0, 5, 3, 5, 20):
        frame = payments([{"at": START + minute * MINUTE}])
        at = np.array([START + minute * MINUTE])
        prepared = machine.process(Batch(frame, 0, at))
        until.append([max(rows.until or [0]) for rows in machine.rows(prepared)])
    tile = START // (10 * MINUTE) * 10 * MINUTE
    last = (START + 20 * MINUTE) // (10 * MINUTE) * 10 * MINUTE
    assert until[0] == [tile + 60 * MINUTE]
    assert until[3] == [0]
    assert until[4] == [last + 60 * MINUTE]


def test_rows_kept_for_ever_have_no_end() -> None:
    """A feature that looks back for ever keeps its key for ever."""
    machine = fed(declare(newest=hr.last("amount")), payments([{"at": START}]))
    assert [rows.until for rows in machine.all_rows()] == [None]


def test_no_rows_read_as_empty() -> None:
    """A key without events, and a stream without any."""
    codec = RowCodec(SMALL)
    assert codec.read([], START).features == [0.0, None]
    assert [values.features for values in codec.read_many([[], []], START)] == [[0.0, None]] * 2
    assert codec.read([], None).features == [0.0, None]
    assert codec.read_many([], START) == []
