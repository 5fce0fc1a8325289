"""Places in the write order: each is a prefix of the writes, and whoever is awaited hands over what he has there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import ClosedError
from headrace.runners.meetings import Meetings
from headrace.runners.order import Cuts, Followed, WriteOrder

LONG = 10.0
TABLES = ("left", "right")


class Collection:
    """Follows a table of the order, a step at a time."""

    def __init__(self, name: str, order: WriteOrder) -> None:
        self.name = name
        self.position = self.aimed = 0
        order.follow(name, self)


class World:
    """One process: pushes, writes to two tables, features that follow the pushes, and two collections."""

    def __init__(self) -> None:
        self.order = WriteOrder(dict.fromkeys(TABLES, 0))
        self.log: list[tuple[str, int]] = []  # what was written, in its order
        self.rows = dict.fromkeys(TABLES, 0)
        self.versions = [0]
        self.order.begin(0, lambda: self.versions[-1], lambda: self.versions)
        self.collections = {name: Collection(name, self.order) for name in TABLES}
        self.open: list[str] = []
        self.meetings: Meetings[tuple[str, int]] = Meetings(self.order, {name: name for name in TABLES}, self._woken)
        for name in TABLES:
            self.follow(name)

    def _woken(self, name: str) -> None:
        assert name in self.collections

    def push(self) -> None:
        self.order.pushed += 1
        self.log.append(("push", self.order.pushed))

    def write(self, table: str, rows: int = 1) -> None:
        with self.order.writing(table, lambda: self.rows[table]):
            self.rows[table] += rows
        self.log += [(table, self.rows[table] - rows + n) for n in range(1, rows + 1)]

    def commit(self, most: int = 1000) -> None:
        """The features see more pushes, up to a place where somebody waits."""
        after, upto = self.versions[-1], min(self.order.pushed, self.versions[-1] + most)
        self.versions += [one for one in self.order.parts(after, upto) if one > after]
        if upto > self.versions[-1]:
            self.versions.append(upto)

    def follow(self, name: str, most: int = 1000) -> None:
        """A collection hands over what is due, and follows its table some way."""
        one = self.collections[name]
        if self.meetings.due(name, one.position):
            self.meetings.arrive(name, one.position, lambda: self._moment(name, one.position))
        upto = min(self.meetings.upto(name, one.position), one.position + most)
        one.aimed = upto
        self.meetings.aim(name, upto)
        one.position = upto

    @contextmanager
    def _moment(self, name: str, position: int) -> Iterator[tuple[str, int]]:
        self.open.append(name)
        try:
            yield name, position
        finally:
            self.open.remove(name)

    def is_prefix(self, pushed: int, numbers: dict[str, int]) -> bool:
        """Whether these are all writes up to some place, and none after it."""
        seen = {("push", n) for n in range(1, pushed + 1)}
        seen |= {(table, n) for table, upto in numbers.items() for n in range(1, upto + 1)}
        return set(self.log[: len(seen)]) == seen


STEPS = st.lists(
    st.one_of(
        st.just(("push",)),
        st.tuples(st.just("write"), st.sampled_from(TABLES), st.integers(1, 3)),
        st.tuples(st.just("commit"), st.integers(1, 4)),
        st.tuples(st.just("follow"), st.sampled_from(TABLES), st.integers(1, 4)),
    ),
    max_size=40,
)


def doing(world: World, steps: list[Any]) -> None:
    for step in steps:
        getattr(world, step[0])(*step[1:])


@settings(max_examples=300)
@given(before=STEPS, meanwhile=STEPS, near=st.booleans())
def test_every_meeting_is_at_a_prefix_of_the_writes(before: list[Any], meanwhile: list[Any], near: bool) -> None:
    world = World()
    doing(world, before)
    with world.meetings.meet(TABLES, near=near) as meeting:
        place = meeting.place
        assert place is not None
        assert near or place.numbers == world.rows
        doing(world, meanwhile)
        # Whatever was done meanwhile, a few steps of each suffice, and nobody has to stop writing for it.
        for _ in range(50):
            for name in TABLES:
                world.write(name)
                world.follow(name, 2)
        world.push()
        world.commit()
        assert world.meetings.wait(meeting, time.monotonic() + LONG)
        assert meeting.failed == ""
        numbers = dict(meeting.moments.values())
        assert numbers == place.numbers
        behind = [one for one in world.versions if place.first <= one <= place.last]
        assert behind != []
        assert all(world.is_prefix(one, numbers) for one in behind)
    assert world.open == []


@given(steps=STEPS)
def test_every_cut_is_a_prefix_of_the_writes(steps: list[Any]) -> None:
    world = World()
    doing(world, steps)
    moments = [Followed(name, name, one.position) for name, one in world.collections.items()]
    cuts = world.order.cuts(moments)
    if isinstance(cuts, Cuts):
        for pushed in world.versions:
            cut = cuts.at(pushed)
            if cut is not None:
                assert world.is_prefix(pushed, {one.table: one.position for one in moments})


def test_the_first_place_is_one_where_features_can_be_read() -> None:
    world = World()
    for _ in range(12):
        world.push()
        world.write("left")
    world.commit()
    assert world.versions[-1] == 12
    assert 3 not in world.versions
    assert 4 not in world.versions
    world.follow("left", 3)
    with world.meetings.meet(["left"], near=True) as meeting:
        place = meeting.place
        assert place is not None
        # Not right behind the three: features were seen neither with the third push nor with the fourth as the last.
        assert any(place.first <= one <= place.last for one in world.versions)
        assert place.numbers["left"] > 3


def test_the_first_place_is_not_behind_all_that_is_written() -> None:
    world = World()
    for _ in range(3):
        world.push()
        world.write("left")
        world.commit()
    world.follow("left", 1)
    with world.meetings.meet(["left"], near=True) as meeting:
        assert meeting.place is not None
        assert meeting.place.numbers == {"left": 1, "right": 0}
        world.follow("left")
        assert (meeting.missing(), meeting.moments) == ([], {"left": ("left", 1)})


def test_what_is_handed_over_lasts_until_the_last_reader_goes() -> None:
    world = World()
    world.write("left")
    with world.meetings.meet(["left"], near=False) as meeting:
        with meeting.used():
            assert meeting.missing() == ["left"]
            world.follow("left")
            world.follow("left")
            assert meeting.moments == {"left": ("left", 1)}
        assert world.open == ["left"]
    assert world.open == []
    assert world.order.floor() is None


def test_a_reader_who_gives_up_leaves_nothing_behind() -> None:
    world = World()
    world.write("left")
    with world.meetings.meet(["left"], near=False) as meeting:
        assert not world.meetings.wait(meeting, time.monotonic())
    world.follow("left")
    world.follow("left")
    assert (meeting.moments, world.open) == ({}, [])


def test_more_readers_than_places_share_the_next_one() -> None:
    world = World()
    entered, done = threading.Barrier(17), []

    def read() -> None:
        with world.meetings.meet(["left"], near=True) as meeting:
            entered.wait(LONG)
            assert world.meetings.wait(meeting, time.monotonic() + LONG)
            done.append(meeting)

    world.write("left")
    readers = [threading.Thread(target=read) for _ in range(16)]
    for one in readers:
        one.start()
    entered.wait(LONG)  # all 16 are inside: four with a place each, twelve with one together
    while any(one.is_alive() for one in readers):
        world.follow("left")
        for one in readers:
            one.join(0.001)
    assert len(done) == 16
    assert len(set(map(id, done))) == 5
    assert world.open == []


def test_who_waits_is_told_when_a_collection_has_stopped_and_when_all_is_closed() -> None:
    world = World()
    world.write("left")
    with world.meetings.meet(["left"], near=False) as meeting:
        world.meetings.spoil("left", None, "left has stopped")
        assert world.meetings.wait(meeting, time.monotonic() + LONG)
        assert meeting.failed == "left has stopped"
    with world.meetings.meet(["left"], near=False) as meeting:
        world.meetings.close()
        assert world.meetings.wait(meeting, time.monotonic() + LONG)
        assert "closed" in meeting.failed
    with pytest.raises(ClosedError, match="closed"), world.meetings.meet(["left"], near=False):
        pass
