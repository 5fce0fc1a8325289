"""The queue before the engine: bounded, taken whole, in order."""

from __future__ import annotations

import threading

import polars as pl
import pytest

import headrace as hr
from headrace.runners import inbox
from headrace.runners.inbox import Inbox, Work
from headrace.runners.progress import reached

PATIENCE = 30.0


def work(number: int, rows: int = 1) -> Work:
    return Work("s", pl.DataFrame({"n": [number] * rows}), "push", number, 0, 0)


def test_all_that_waits_is_taken_in_order() -> None:
    box = Inbox()
    assert [box.put(work(number)) for number in (7, 8, 9)] == [1, 2, 3]
    assert [one.position for one in box.take(0)] == [7, 8, 9]
    assert (box.take(0), box.rows) == ([], 0)


def test_a_batch_has_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows; a piece that is larger by itself goes alone."""
    monkeypatch.setattr(inbox, "BATCH_ROWS", 10)
    box = Inbox()
    for number, rows in enumerate((4, 6, 1, 50, 1)):
        box.put(work(number, rows))
    assert [[one.position for one in box.take(0)] for _ in range(4)] == [[0, 1], [2], [3], [4]]


def test_whoever_fills_it_waits_for_room() -> None:
    """And goes on as soon as something has been taken."""
    box = Inbox(most_rows=3)
    box.put(work(1, 3))
    entered = threading.Event()

    def put() -> None:
        box.put(work(2, 2))
        entered.set()

    thread = threading.Thread(target=put)
    thread.start()
    assert not entered.wait(0.05)
    assert [one.position for one in box.take(0)] == [1]
    assert entered.wait(PATIENCE)
    thread.join()
    assert [one.position for one in box.take(0)] == [2]


def test_a_piece_larger_than_the_queue_is_let_in_when_it_is_empty() -> None:
    box = Inbox(most_rows=3)
    box.put(work(1, 100))
    assert box.rows == 100


def test_closing_lets_nothing_in_and_everything_out() -> None:
    """Also whoever waits for room is told."""
    box = Inbox(most_rows=1)
    box.put(work(1))
    told: list[str] = []

    def put() -> None:
        with pytest.raises(hr.ClosedError) as refused:
            box.put(work(2))
        told.append(str(refused.value))

    thread = threading.Thread(target=put)
    thread.start()
    box.close("gone")
    thread.join(PATIENCE)
    assert told == ["gone"]
    assert [one.position for one in box.take(PATIENCE)] == [1]
    assert box.take(PATIENCE) == []


def test_taking_waits_for_what_comes() -> None:
    box = Inbox()
    taken: list[Work] = []
    thread = threading.Thread(target=lambda: taken.extend(box.take(PATIENCE)))
    thread.start()
    box.put(work(5))
    thread.join(PATIENCE)
    assert [one.position for one in taken] == [5]


@pytest.mark.parametrize(
    ("seen", "wanted", "is_reached"),
    [
        ({}, {}, True),
        ({"push": 3}, {"push": 3}, True),
        ({"push": 4}, {"push": 3}, True),
        ({"push": 2}, {"push": 3}, False),
        ({}, {"push": 1}, False),
        ({"push": 3, "file": {"a": 10, "b": 1}}, {"file": {"a": 10}}, True),
        ({"file": {"a": 9}}, {"file": {"a": 10}}, False),
        ({"file": {"a": 11}}, {"file": {"a": 10, "b": 1}}, False),
        ({"lsn": "0/16"}, {"lsn": "0/16"}, True),
    ],
)
def test_positions_are_reached(seen: object, wanted: object, is_reached: bool) -> None:
    """Numbers by size, mappings key by key, anything else when it is the same."""
    assert reached(seen, wanted) is is_reached
