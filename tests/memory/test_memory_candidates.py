"""What a context is given of a memory: at its point, untrusted, with roles and ages, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chats import NOON, make_app

from headrace.assembly.pack import Candidate
from headrace.parts import Recall, section
from headrace.serving.live import Live
from headrace.serving.memory import candidates
from headrace.serving.point import point
from headrace.testing.clock import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOON)


@pytest.fixture
def live(clock: VirtualClock) -> Iterator[Live]:
    with make_app(clock).open() as opened:
        yield opened


def read(live: Live, part: Recall) -> list[Candidate]:
    memory = live.app.memories["chat"]
    with point(live, [], [memory.collection.name], [memory.table.name], after=None, timeout=10) as at:
        return candidates(live, at, part)


def test_a_session_without_turns_has_nothing(live: Live) -> None:
    assert read(live, live.app.memories["chat"].recall("s", "harbour")) == []


def test_summary_older_and_latest_turns_are_candidates(live: Live, clock: VirtualClock) -> None:
    for year in range(1900, 1908):
        live.remember("chat", "s", "assistant" if year % 2 else "user", f"The harbour froze in {year}.", id=f"y{year}")
    live.remember("chat", "t", "user", "The harbour froze elsewhere.")
    live.drain()
    clock.advance("1m")
    part = section(live.app.memories["chat"].recall("s", "harbour 1901", k=2), priority=3)
    found = read(live, part)
    summary, older, turns = found
    assert [one.kind for one in found] == ["summary", "recalled", "turns"]
    assert {one.packing.priority for one in found} == {3}
    assert [(one.id, one.role, one.age) for one in turns.items] == [
        ("chat/y1905", "assistant", 60.0),
        ("chat/y1906", "user", 60.0),
        ("chat/y1907", "assistant", 60.0),
    ]
    assert older.items[0].id == "chat/y1901"
    assert {one.id for one in older.items} & {one.id for one in turns.items} == set()
    assert [one for part in found for one in part.items if one.trusted or "elsewhere" in one.text] == []
    assert "1904" in summary.items[0].text
    assert all(0 <= one.value <= 1 for part in found for one in part.items)


def test_turns_are_read_as_of_the_point(live: Live) -> None:
    memory = live.app.memories["chat"]
    live.remember("chat", "s", "user", "before")
    with point(live, [], [], [memory.table.name], after=None, timeout=10) as at:
        live.remember("chat", "s", "user", "after")
        (turns,) = candidates(live, at, memory.recall("s"))
    assert [one.text for one in turns.items] == ["before"]
