"""Trailing windows, tile by tile: which events are counted at which moment.

`over` = 4 min, `every` = 1 min; a tile counts at `now` if it starts after `now - over` and not after `now`.

    minute   0     1     2     3     4     5     6
    event    a     b     c           d
    now = 4:00     [b     c           d]             tile 0 starts at now - over: too early
    now = 4:59     [b     c           d]
    now = 5:00           [c           d]
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from payment_views import declare, fed, payments

import headrace as hr
from headrace.features.machine import Batch, ViewMachine, build
from headrace.units import HOUR, MINUTE, SECOND, from_micros, round_tile

MAX_INT = 2**63 - 2


def value(machine: ViewMachine, label: str, now: int, key: Any = "u1") -> Any:
    """One feature of one key."""
    return machine.read(key, now).features[list(machine.view.features).index(label)]


@pytest.mark.parametrize(
    ("now", "counted"),
    [
        (4 * MINUTE - 1, "abc"),  # the event at 4:00 is in a tile that starts after now
        (4 * MINUTE, "bcd"),
        (5 * MINUTE - 1, "bcd"),
        (5 * MINUTE, "cd"),
        (6 * MINUTE, "d"),
        (8 * MINUTE - 1, "d"),
        (8 * MINUTE, ""),
    ],
)
def test_a_tile_counts_from_its_start_until_over_later(now: int, counted: str) -> None:
    """The drawing above."""
    view = declare(letters=hr.latest(9, "merchant", over="4m", every="1m"))
    rows = zip("abcd", (10 * SECOND, MINUTE, 2 * MINUTE + 1, 4 * MINUTE), strict=True)
    machine = fed(view, payments([{"merchant": letter, "at": at} for letter, at in rows]))
    found = value(machine, "letters", now) or []
    assert "".join(row["merchant"] for row in reversed(found)) == counted


def test_an_event_later_than_now_counts_in_the_current_tile_only() -> None:
    """A live read at 0:30 sees the event of 0:50, and not the one of 1:10."""
    view = declare(events=hr.count(over="4m", every="1m"))
    machine = fed(view, payments([{"at": 10 * SECOND}, {"at": 50 * SECOND}, {"at": 70 * SECOND}]))
    assert value(machine, "events", 30 * SECOND) == 2


def test_before_1970_a_tile_starts_at_the_multiple_below() -> None:
    """-1 µs is in the tile from -1:00, not in that from 0:00."""
    view = declare(events=hr.count(over="1m", every="1m"))
    machine = fed(view, payments([{"at": -1}]), slack=HOUR)
    assert [value(machine, "events", now) for now in (-MINUTE, -1, 0)] == [1, 1, 0]


def test_every_defaults_to_a_round_unit_near_a_sixtieth() -> None:
    """A default tile is what the same window with that tile spelled out answers."""
    assert [round_tile(span) for span in (MINUTE, 10 * MINUTE, HOUR, 24 * HOUR)] == [
        SECOND,
        10 * SECOND,
        MINUTE,
        20 * MINUTE,
    ]
    view = declare(default=hr.count(over="1h"), spelled=hr.count(over="1h", every="1m"))
    assert [table.every for table in view.tables] == [MINUTE]


def test_as_of_is_the_newest_event_that_counts() -> None:
    """And null once none does; events that `where` leaves out are events of the window all the same."""
    view = declare(large=hr.count(over="4m", every="1m", where=pl.col("amount") > 1))
    machine = fed(view, payments([{"at": 10 * SECOND, "amount": 0.0}, {"at": 5 * SECOND, "amount": 9.0}]))
    assert machine.read("u1", 4 * MINUTE - 1).newest == 10 * SECOND
    assert machine.read("u1", 4 * MINUTE).newest is None


def test_a_key_without_events_reads_as_empty() -> None:
    """0 for counts and sums, null for the rest."""
    span: dict[str, Any] = {"over": "4m", "every": "1m"}
    view = declare(
        count=hr.count(**span),
        total=hr.sum("amount", **span),
        units=hr.sum("n", **span),
        rate=hr.rate(**span),
        distinct=hr.distinct("merchant", **span),
        histogram=hr.histogram("amount", [0.0], **span),
        mean=hr.mean("amount", **span),
        least=hr.min("amount", **span),
        most=hr.max("n", **span),
        spread=hr.std("amount", **span),
        first=hr.first("merchant", **span),
        last=hr.last("n", **span),
        latest=hr.latest(3, "n", **span),
        quantile=hr.quantile("amount", 0.5, **span),
        top=hr.top(3, "merchant", **span),
    )
    nothing = [0, 0.0, 0, 0.0, 0, [0, 0], *[None] * 9]
    machine = build(view)
    assert machine.read("u1", 0).features == nothing
    assert machine.read("u1", None).features == nothing
    machine = fed(view, payments([{"at": 0}]))
    assert machine.read("u2", 0).features == nothing
    assert machine.read("u1", HOUR).features == nothing


def test_of_events_at_one_time_the_later_to_arrive_is_the_last() -> None:
    """Ties go by arrival, within a batch and between batches."""
    view = declare(
        first=hr.first("n", over="4m", every="1m"),
        last=hr.last("n", over="4m", every="1m"),
        latest=hr.latest(3, "n", over="4m", every="1m"),
    )
    rows = [{"n": n, "at": SECOND} for n in range(4)]
    whole, cut = fed(view, payments(rows)), fed(view, *(payments([row]) for row in rows))
    expected = [0, 3, [{"n": 3}, {"n": 2}, {"n": 1}]]
    assert whole.read("u1", SECOND).features == expected
    assert cut.read("u1", SECOND).features == expected


def test_integer_sums_are_exact_past_64_bits() -> None:
    """As Python's integers are, also when the parts lie in many tiles, with opposite signs, and are read together."""
    view = declare(total=hr.sum("n", over="1h", every="1m"), mean=hr.mean("n", over="1h", every="1m"))
    rows = [{"n": MAX_INT, "at": minute * MINUTE} for minute in range(30)] + [{"n": -1, "at": 0}, {"n": None, "at": 0}]
    machine = fed(view, payments(rows), slack=HOUR)
    total = 30 * MAX_INT - 1
    assert machine.read("u1", 29 * MINUTE).features == [total, total / 31]
    gathered = machine.finish(machine.gather(["u1", "u2"], 29 * MINUTE))
    assert gathered[0].features[0] == total


def test_events_past_every_window_are_refused_as_late() -> None:
    """A row is late when its tile can be read by no feature any more, less the slack."""
    view = declare(short=hr.count(over="2m", every="1m"), long=hr.count(over="10m", every="5m"))
    machine = build(view)
    frame = payments([{"at": HOUR}, {"at": HOUR - 3 * MINUTE}, {"at": HOUR - 11 * MINUTE}, {"at": HOUR}])
    prepared = machine.process(Batch(frame, 0, np.full(4, HOUR)))
    (refused,) = prepared.refused
    assert (refused.rows.tolist(), refused.late) == ([2], True)
    assert machine.read("u1", HOUR).features == [2, 3]


def test_the_slack_keeps_late_events() -> None:
    """With it, what was refused is counted, and reads as far back see it."""
    view = declare(events=hr.count(over="2m", every="1m"))
    frame = payments([{"at": HOUR}, {"at": HOUR - 3 * MINUTE}])
    machine = build(view)
    assert machine.process(Batch(frame, 0, np.full(2, HOUR), 5 * MINUTE)).refused == []
    assert [value(machine, "events", now) for now in (HOUR, HOUR - 2 * MINUTE)] == [1, 1]


def test_a_key_all_of_whose_events_are_late_takes_no_memory() -> None:
    """Nothing would ever free it; and reading it is reading a key that has no events."""
    view = declare(events=hr.count(over="2m", every="1m"))
    machine = build(view)
    rows = [{"user_id": f"u{n}", "at": 0} for n in range(200)]
    machine.process(Batch(payments(rows), 0, np.full(200, HOUR)))
    assert machine.keys == 0
    assert machine.read("u199", HOUR).features == [0]


def test_a_key_is_read_as_empty_while_its_first_batch_is_prepared() -> None:
    """Also when there are more new keys than the tables have room for."""
    view = declare(events=hr.count(over="2m", every="1m"), recent=hr.latest(2, "n"))
    machine = fed(view, payments([{"at": 0}]))
    rows = [{"user_id": f"u{n}", "at": 0} for n in range(1, 1000)]
    prepared = machine.prepare(Batch(payments(rows), 1, np.zeros(999, np.int64)))
    assert machine.read("u999", 0).features == [0, None]
    assert [values.features for values in machine.finish(machine.gather(["u999", "u1"], 0))] == [
        [0, None],
        [1, [{"n": None}]],
    ]
    machine.commit(prepared)
    assert machine.read("u999", 0).features == [1, [{"n": None}]]


def test_keys_that_fall_silent_are_forgotten_and_their_slots_used_again() -> None:
    """A slot's next key sees nothing of the last one's, and the last one may come back."""
    view = declare(events=hr.count(over="2m", every="1m"), shops=hr.distinct("merchant", over="2m", every="1m"))
    machine = fed(view, payments([{"user_id": f"u{n}", "at": 0, "merchant": "a"} for n in range(5)]))
    assert machine.retire(machine.expire(HOUR)) == 5
    assert machine.keys == 0
    rows = [{"user_id": name, "at": HOUR, "merchant": "b"} for name in ("v1", "v1", "u4")]
    machine.process(Batch(payments(rows), 5, np.full(3, HOUR)))
    assert machine.index.size == 5
    assert {key: machine.read(key, HOUR).features for key in ("u0", "v1", "u4")} == {
        "u0": [0, 0],
        "v1": [2, 1],
        "u4": [1, 1],
    }


def test_expiring_goes_through_the_keys_a_few_at_a_time() -> None:
    """After as many calls as it takes, all that is too old is gone."""
    view = declare(events=hr.count(over="2m", every="1m"))
    machine = fed(view, payments([{"user_id": f"u{n}", "at": 0} for n in range(10)]))
    left = []
    for _ in range(4):
        machine.retire(machine.expire(HOUR, most=3))
        left.append(machine.keys)
    assert left == [7, 4, 1, 0]


def test_a_key_without_a_window_is_never_forgotten() -> None:
    """`latest` of all time keeps its keys."""
    view = declare(events=hr.count(over="2m", every="1m"), recent=hr.latest(1, "n"))
    machine = fed(view, payments([{"at": 0, "n": 7}]))
    assert machine.retire(machine.expire(10**15)) == 0
    assert machine.read("u1", 10**15).features == [0, [{"n": 7}]]


def test_values_are_pythons_own() -> None:
    """Moments are in UTC, and nothing is NumPy's."""
    view = declare(
        due=hr.max("due", over="1h"),
        newest=hr.last("at", over="1h"),
        top=hr.top(1, "n", over="1h"),
        n=hr.count(over="1h"),
    )
    due = datetime(2026, 1, 1, tzinfo=UTC)
    machine = fed(view, payments([{"at": 0, "n": 3, "due": due}, {"at": 1, "n": 3, "due": due - timedelta(days=1)}]))
    found = machine.read("u1", 1).features
    assert found == [due, from_micros(1), [{"value": 3, "count": 2}], 2]
    assert [type(one) for one in (*found, found[2][0]["count"])] == [datetime, datetime, list, int, int]
