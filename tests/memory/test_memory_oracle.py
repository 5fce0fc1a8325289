"""A memory against a plain list: whatever is remembered, forgotten, aged out and restarted, they agree."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from chats import NOON, files_with, make_app
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.testing.clock import VirtualClock

DAY = 86_400_000_000
SESSIONS = st.sampled_from(["a", "b", "a/b", "a\0b"])
SUBJECTS = st.sampled_from([None, "ann", "bob", "ann\0"])
STEPS = st.one_of(
    st.tuples(st.just("say"), SESSIONS, SUBJECTS, st.integers(0, 12), st.integers(0, 5)),
    st.tuples(st.just("say"), SESSIONS, SUBJECTS, st.integers(0, 12), st.integers(0, 5)),
    st.tuples(st.just("session"), SESSIONS),
    st.tuples(st.just("subject"), st.sampled_from(["ann", "bob", "ann\0"])),
    st.tuples(st.just("before"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.integers(1, 20)),
    st.tuples(st.just("restart")),
)


class Oracle:
    """Turns in a list, looked through from end to end."""

    def __init__(self) -> None:
        self.turns: list[dict[str, Any]] = []

    def say(self, session: str, subject: str | None, id: str, at: int) -> bool:
        """Whether it is new."""
        if any((one["session"], one["id"]) == (session, id) for one in self.turns):
            return False
        self.turns.append({"session": session, "subject": subject, "id": id, "at": at, "text": f"word{session!r} {id}"})
        return True

    def keep(self, wanted: Any) -> int:
        before = len(self.turns)
        self.turns = [one for one in self.turns if wanted(one)]
        return before - len(self.turns)

    def forget(self, how: str, value: Any) -> int:
        return self.keep(lambda one: one["at"] >= value if how == "before" else one[how] != value)

    def of(self, session: str) -> list[str]:
        return [one["id"] for one in sorted(self.turns, key=lambda one: one["at"]) if one["session"] == session]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=14))
def test_a_memory_is_a_list_that_is_looked_through(steps: list[tuple[Any, ...]]) -> None:
    clock, oracle, number = VirtualClock(NOON), Oracle(), 0
    with tempfile.TemporaryDirectory() as folder:
        live = make_app(clock).open(folder)
        try:
            for step in steps:
                number += 1
                oracle.keep(lambda one: one["at"] >= clock.now() - 30 * DAY)
                if step[0] == "say":
                    _, session, subject, name, ago = step
                    at = clock.now() - ago * DAY + number  # no two at one moment
                    id = f"{name}/{subject}"
                    new = oracle.say(session, subject, id, at)
                    text = f"word{session!r} {id}"
                    token = live.remember("chat", session, "user", text, subject=subject, id=id, at=at)
                    assert token.accepted == int(new)
                elif step[0] in ("session", "subject", "before"):
                    how = step[0]
                    value = clock.now() - step[1] * DAY if how == "before" else step[1]
                    assert live.forget("chat", **{how: value}) == oracle.forget(how, value)
                elif step[0] == "wait":
                    clock.advance(timedelta(days=step[1]))
                    oracle.keep(lambda one: one["at"] >= clock.now() - 30 * DAY)
                    live.library.memories["chat"].keeper.patrol()
                else:
                    live.close()
                    live = make_app(clock).open(folder)
                for session in ("a", "b", "a/b", "a\0b", "c"):
                    found = live.recall("chat", session, turns=100)
                    assert [one.id for one in found.turns] == oracle.of(session)
            live.drain()
            for session in ("a", "b", "a/b", "a\0b"):
                ids = oracle.of(session)
                found = live.recall("chat", session, f"word{session!r}", turns=2, k=50)
                assert sorted(one.id for one in found.older) == sorted(ids[:-2])
                assert [line for line in found.summary.splitlines() if f"word{session!r} " not in line] == []
                assert [one for one in ids[:-3] if one not in found.summary] == []
            assert live.forget("chat", before=clock.now() + 100) == len(oracle.turns)
            assert files_with(Path(folder), "word'") == []
        finally:
            live.close()
