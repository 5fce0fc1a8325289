"""The hub of changes: coalescing, bounds, coming back, and letting go."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from headrace.errors import ClosedError, TooLargeError
from headrace.serving.changes_hub import ALL, Hub, Subscription, Taken


class Watched:
    """A feed that notes what is watched."""

    def __init__(self) -> None:
        self.now: set[tuple[str, str, Any]] = set()

    def attach(self, kind: str, name: str, key: Any) -> None:
        self.now.add((kind, name, key))

    def detach(self, kind: str, name: str, key: Any) -> None:
        self.now.discard((kind, name, key))


def settle(hub: Hub) -> None:
    """Waits until all that was reported has been handed out."""
    done = threading.Event()
    hub.soon(done.set)
    assert done.wait(30)


def told(taken: Taken) -> list[tuple[int, Any]]:
    return [(one.number, one.subject[2]) for one in taken.changes]


def place(hub: Hub, *keys: Any, after: tuple[str, int] | None = None) -> Subscription:
    return hub.subscribe([("features", "v", key) for key in keys], lambda: None, after)


def test_a_key_that_changes_often_is_owed_once_and_in_order() -> None:
    hub = Hub(Watched())
    one = place(hub, "a", "b")
    for keys in (["a", "x"], ["b"], ["a"], ["x"]):
        hub.report("features", "v", keys)
    settle(hub)
    assert told(one.take()) == [(2, "b"), (3, "a")]
    assert one.take().changes == []
    hub.close()


def test_a_subscriber_is_called_once_until_it_has_come() -> None:
    hub = Hub(Watched())
    calls: list[int] = []
    one = hub.subscribe([("features", "v", ALL)], lambda: calls.append(1))
    for _ in range(5):
        hub.report("features", "v", ["a"])
    settle(hub)
    assert len(calls) == 1
    one.take()
    hub.report("features", "v", ["a"])
    settle(hub)
    assert len(calls) == 2
    hub.close()


def test_who_comes_back_is_told_what_it_has_missed_and_no_more() -> None:
    hub = Hub(Watched())
    one = place(hub, "a", "b")
    hub.report("features", "v", ["a", "b"])
    settle(hub)
    seen = one.take(1).number
    one.close()
    hub.report("features", "v", ["b"])
    settle(hub)
    again = place(hub, "a", "b", after=(hub.name, seen)).take()
    assert (told(again), again.gap) == ([(3, "b")], "")
    hub.close()


@pytest.mark.parametrize("after", [("another", 1), ("", 0), ("NAME", 99), ("NAME", 0)])
def test_who_cannot_be_told_is_told_so(after: tuple[str, int]) -> None:
    hub = Hub(Watched(), remembered=2)
    one = place(hub, ALL)
    hub.report("features", "v", ["a", "b", "c"])
    settle(hub)
    one.close()
    again = place(hub, ALL, after=(hub.name if after[0] == "NAME" else after[0], after[1])).take()
    assert (again.changes, again.gap, again.number) == ([], "reset", 3)
    hub.close()


def test_what_was_not_watched_meanwhile_is_no_gap_that_is_hidden() -> None:
    hub = Hub(Watched())
    one = place(hub, "a")
    hub.report("features", "v", ["a"])
    settle(hub)
    number = one.take().number
    hub.report("features", "v", ["a"])
    settle(hub)
    place(hub, "b")
    # "b" is watched from 2 on only: of what happened to it after 1, nothing is known.
    assert place(hub, "a", "b", after=(hub.name, number)).take().gap == "reset"
    assert place(hub, "a", after=(hub.name, number)).take().gap == ""
    hub.close()


def test_a_slow_subscriber_costs_bounded_memory_and_is_told_that_it_lost_track() -> None:
    hub = Hub(Watched())
    one = place(hub, ALL)
    hub.report("features", "v", list(range(25_000)))
    settle(hub)
    assert len(one.pending) <= 10_000
    first = one.take()
    assert (first.gap, first.changes) == ("lost", [])
    hub.close()


def test_reports_past_the_bound_are_lost_for_all_and_said_so() -> None:
    hub = Hub(Watched())
    one = place(hub, "a")
    gate, inside = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        gate.wait(30)

    hub.soon(hold)
    assert inside.wait(30)
    many = list(range(600_000))
    hub.report("features", "v", many)
    hub.report("features", "v", many)
    gate.set()
    settle(hub)
    assert one.take().gap == "lost"
    hub.close()


def test_what_nobody_subscribes_to_is_let_go_of() -> None:
    feed = Watched()
    hub = Hub(feed, linger=0.0)
    one = place(hub, "a", "b")
    assert len(feed.now) == 2
    one.close()
    one.close()
    settle(hub)
    hub.report("features", "v", ["a"])
    hub.close()
    assert (feed.now, hub.subscribers, hub.watched) == (set(), 0, 0)


def test_subscribers_are_bounded() -> None:
    feed = Watched()
    hub = Hub(feed, subscribers=2)
    places = [place(hub, "a"), place(hub, "b")]
    with pytest.raises(TooLargeError, match="at most 2 subscribers"):
        place(hub, "c")
    with pytest.raises(TooLargeError, match="at most 1,000 subjects"):
        place(hub, *range(1_001))
    places[0].close()
    place(hub, "c")
    hub.close()
    with pytest.raises(ClosedError):
        place(hub, "a")
    assert places[1].take().closed


def test_a_feed_that_refuses_leaves_nothing_behind() -> None:
    class Refusing(Watched):
        def attach(self, kind: str, name: str, key: Any) -> None:
            if key == "bad":
                raise TooLargeError("no")
            super().attach(kind, name, key)

    feed = Refusing()
    hub = Hub(feed)
    with pytest.raises(TooLargeError):
        place(hub, "a", "bad", "b")
    assert (feed.now, hub.subscribers, hub.watched) == (set(), 0, 0)
    hub.close()
