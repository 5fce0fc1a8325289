"""A memory in process: what is remembered is recalled, in its own session, and what is forgotten is gone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from chats import NOON, files_with, make_app, texts

import headrace as hr
from headrace.serving.live import Live
from headrace.testing.clock import VirtualClock

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {}}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOON)


@pytest.fixture
def live(clock: VirtualClock) -> Iterator[Live]:
    with make_app(clock).open() as opened:
        yield opened


def say(live: Live, session: str, *said: str, **more: Any) -> hr.Token:
    return live.remember("chat", session, [{"role": "user", "content": one} for one in said], **more)


def test_a_turn_is_recalled_as_soon_as_it_is_remembered(live: Live) -> None:
    for number in range(20):
        live.remember("chat", "s", "user", f"turn {number}")
        assert live.recall("chat", "s").turns[-1].text == f"turn {number}"


def test_the_latest_turns_come_oldest_first(live: Live) -> None:
    say(live, "s", "one", "two", "three", "four")
    assert texts(live.recall("chat", "s").turns) == ["two", "three", "four"]


def test_messages_of_openai_are_turns(live: Live) -> None:
    live.remember("chat", "s", MESSAGES)
    found = [(one.role, one.text) for one in live.recall("chat", "s", turns=10).turns]
    assert found == [
        ("system", "Be brief."),
        ("user", "What is this?\n[image_url]"),
        ("assistant", 'look({"at": 1})'),
        ("tool", "a cat"),
    ]


def test_older_turns_are_found_by_meaning_and_never_among_the_latest(live: Live) -> None:
    token = say(live, "s", "The harbour froze over.", "Rockets slipped.", "harbour one", "harbour two", "harbour three")
    found = live.recall("chat", "s", "harbour froze", k=5, after=token)
    assert (texts(found.older)[0], set(texts(found.older)) & set(texts(found.turns))) == (
        "The harbour froze over.",
        set(),
    )


def test_without_a_question_nothing_older_is_looked_for(live: Live) -> None:
    say(live, "s", *(f"harbour {number}" for number in range(9)))
    live.drain()
    assert live.recall("chat", "s", "  ").older == []


def test_a_turn_is_stored_once_however_often_it_is_said(live: Live) -> None:
    tokens = [live.remember("chat", "s", "user", "hello", id="m1") for _ in range(3)]
    assert ([one.accepted for one in tokens], texts(live.recall("chat", "s").turns)) == ([1, 0, 0], ["hello"])


def test_an_id_twice_in_one_list_is_one_turn(live: Live) -> None:
    live.remember("chat", "s", [{"role": "user", "content": "hello", "id": "m"}] * 2)
    assert texts(live.recall("chat", "s").turns) == ["hello"]


def test_an_id_that_says_something_else_is_refused(live: Live) -> None:
    live.remember("chat", "s", "user", "hello", id="m1")
    with pytest.raises(hr.InputError, match="'m1' to be new, or what it was"):
        live.remember("chat", "s", "user", "good bye", id="m1")


def test_the_same_id_in_two_sessions_is_two_turns(live: Live) -> None:
    for session in ("a", "b"):
        live.remember("chat", session, "user", f"hello {session}", id="m1")
    assert [texts(live.recall("chat", one).turns) for one in ("a", "b")] == [["hello a"], ["hello b"]]


def test_turns_are_in_the_order_in_which_they_were_said(live: Live) -> None:
    for hour, text in ((9, "nine"), (7, "seven"), (8, "eight")):
        live.remember("chat", "s", "user", text, at=datetime(2026, 1, 1, hour, tzinfo=UTC))
    assert texts(live.recall("chat", "s").turns) == ["seven", "eight", "nine"]


def test_turns_of_one_moment_are_in_the_order_in_which_they_came(live: Live) -> None:
    moment = datetime(2026, 1, 1, 9, tzinfo=UTC)
    for number in range(5):
        live.remember("chat", "s", "user", str(number), at=moment)
    assert texts(live.recall("chat", "s", turns=5).turns) == ["0", "1", "2", "3", "4"]


def test_a_turn_has_its_age(live: Live, clock: VirtualClock) -> None:
    say(live, "s", "hello")
    clock.advance("90s")
    assert live.recall("chat", "s").turns[0].age == 90.0


HOSTILE = ["a/b", "..", ".", "a\0b", "a\nb", 'a"]', "a%2Fb", "ä" * 512, " ", "{group}", "a'; DROP TABLE rows; --"]


@pytest.mark.parametrize("session", HOSTILE)
def test_any_text_is_a_session_and_an_id(live: Live, session: str) -> None:
    live.remember("chat", session, "user", f"of {session}", id=session, subject=session)
    say(live, "other", "not yours")
    assert (texts(live.recall("chat", session).turns), live.forget("chat", subject=session)) == ([f"of {session}"], 1)


@pytest.mark.parametrize(
    ("session", "turn", "why"),
    [
        ("", {}, "session to be a text that is not empty"),
        ("x" * 513, {}, "session of at most 512 characters, found 513"),
        ("\ud800", {}, "UTF-8 can hold"),
        ("s", {"role": "developer"}, "a role of user, assistant, tool, system, found 'developer'"),
        ("s", {"content": 7}, "a text or a list of parts, found 7"),
        ("s", {"content": "\ud800"}, "UTF-8 can hold"),
        ("s", {"content": "x" * 65_537}, "at most 65,536 bytes, found 65,537"),
        ("s", {"id": "x" * 513}, "turn's id of at most 512"),
        ("s", {"session_id": "t"}, "messages of one session"),
        ("s", {"at": "tomorrow"}, "ISO 8601"),
        ("s", {"at": "2026-01-02T12:00:00Z"}, "or before"),
        ("s", {"user_id": 7}, "the subject to be a text"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_stored(
    live: Live, session: str, turn: dict[str, Any], why: str
) -> None:
    good = {"role": "user", "content": "hello"}
    with pytest.raises(hr.InputError, match=why):
        live.remember("chat", session, [good, good | turn])
    assert live.recall("chat", "s").turns == []


def test_too_many_turns_at_once_are_refused(live: Live) -> None:
    with pytest.raises(hr.InputError, match="at most 1,000 turns at once, found 1,001"):
        say(live, "s", *["x"] * 1001)


def test_one_session_never_sees_another(live: Live) -> None:
    for number in range(30):
        say(live, f"s{number % 3}", f"the harbour of s{number % 3}, number {number}")
    live.drain()
    for session in ("s0", "s1", "s2", "s"):
        found = live.recall("chat", session, "the harbour of s1", k=50)
        said = texts(found.older + found.turns) + found.summary.splitlines()
        assert [one for one in said if f"of {session}," not in one] == []


def test_a_memory_is_no_table_no_collection_and_no_tool(live: Live) -> None:
    say(live, "s", "hello")
    assert (live.app.tables, live.app.collections, live.tools()) == ({}, {}, [])
    for name in ("chat", "memory.chat"):
        with pytest.raises(hr.UnknownNameError):
            live.search(name, "hello")
        with pytest.raises(hr.UnknownNameError):
            live.delete(name, ["s"])
        with pytest.raises(hr.UnknownNameError):
            live.call(name, {"query": "hello"})


@pytest.mark.parametrize("how", ["session", "subject", "before"])
def test_what_is_forgotten_is_found_nowhere(tmp_path: Path, how: str) -> None:
    clock = VirtualClock(NOON)
    with make_app(clock, index="local:").open(tmp_path) as live:
        for number in range(12):
            live.remember("chat", "s", "user", f"Zanzibar {number} is warm.", subject="Ozymandias", id=f"m{number}")
        live.drain()
        assert "Zanzibar" in live.recall("chat", "s").summary
        clock.advance("1h")
        live.remember("chat", "t", "user", "The harbour froze over.")
        live.drain()
        given = {"session": "s", "subject": "Ozymandias", "before": clock.now() - 1}
        assert live.forget("chat", **{how: given[how]}) == 12
        assert live.recall("chat", "s", "Zanzibar", k=10) == hr.Recalled("", [], [])
        assert texts(live.recall("chat", "t").turns) == ["The harbour froze over."]
        assert (files_with(tmp_path, "Zanzibar"), files_with(tmp_path, "Ozymandias")) == ([], [])
        revisions = [one.key for one in live.library.tables["memory.chat"].store.as_of()]
        assert len(revisions) == 1
    assert files_with(tmp_path, "Zanzibar") == []


def test_what_was_forgotten_before_it_was_embedded_stays_forgotten(live: Live) -> None:
    for number in range(50):
        say(live, f"s{number}", "harbour one", "harbour two", "harbour three", "harbour four")
        live.forget("chat", session=f"s{number}")
    live.drain()
    figures = live.stats().collections["memory.chat"]
    assert (figures.documents, figures.chunks) == (0, 0)


def test_a_summary_forgets_a_subject_and_keeps_the_others(live: Live) -> None:
    for number in range(8):
        who = "ann" if number % 2 else "bob"
        live.remember("chat", "s", "user", f"{who} likes number {number}.", subject=who)
    live.drain()
    assert live.forget("chat", subject="ann") == 4
    live.drain()
    assert live.recall("chat", "s").summary == "user: bob likes number 0."


@pytest.mark.parametrize("given", [{}, {"session": "s", "subject": "u"}])
def test_exactly_one_thing_is_forgotten(live: Live, given: dict[str, str]) -> None:
    with pytest.raises(hr.InputError, match="expected one of session=, subject= and before="):
        live.forget("chat", **given)


def test_turns_age_out(live: Live, clock: VirtualClock) -> None:
    say(live, "s", *(f"old {number}." for number in range(10)))
    live.drain()
    clock.advance("29d")
    say(live, "s", "young")
    clock.advance("2d")
    assert (texts(live.recall("chat", "s", turns=10).turns), live.recall("chat", "s").summary) == (["young"], "")
    assert live.library.memories["chat"].keeper.patrol() in (0, 10)  # it may have been on its round just now
    live.drain()
    assert live.library.memories["chat"].store.count() == 1


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock(NOON)
    with make_app(clock, index="local:").open(tmp_path) as live:
        say(live, "s", *(f"The harbour froze in year {number}." for number in range(9)))
        live.drain()
        before = live.recall("chat", "s", "year 2")
    with make_app(clock, index="local:").open(tmp_path) as live:
        assert (before.summary != "", live.recall("chat", "s", "year 2")) == (True, before)


def test_a_summary_that_is_missing_is_made_when_it_is_missed(tmp_path: Path) -> None:
    clock = VirtualClock(NOON)
    with make_app(clock).open(tmp_path) as live:
        live.library.memories["chat"].keeper.stop()
        say(live, "s", *(f"The harbour froze in year {number}." for number in range(9)))
    with make_app(clock).open(tmp_path) as live:
        assert live.recall("chat", "s").summary == ""
        live.drain()
        assert "year 5" in live.recall("chat", "s").summary


def test_a_long_session_is_not_read_through(live: Live) -> None:
    for start in range(0, 10_000, 1_000):
        say(live, "s", *(f"number {number}" for number in range(start, start + 1_000)))
    store = live.library.memories["chat"].store
    live.library.memories["chat"].keeper.stop()
    before = store.looked_at
    assert texts(live.recall("chat", "s", turns=5).turns)[-1] == "number 9999"
    assert store.looked_at - before <= 10


def test_what_comes_late_is_in_the_summary(live: Live) -> None:
    say(live, "s", *(f"number {number}." for number in range(6)))
    live.drain()
    live.remember("chat", "s", "user", "Long before, a harbour.", at=datetime(2025, 12, 31, tzinfo=UTC))
    live.drain()
    assert "harbour" in live.recall("chat", "s").summary


def test_a_memory_declares_no_nonsense() -> None:
    app = hr.App("talks")
    app.memory("chat", embed="hash")
    for given in ({"name": "chat"}, {"name": "a.b"}, {"name": "x", "turns": 0}, {"name": "x", "summary": 7}):
        with pytest.raises(hr.ConfigError):
            app.memory(**given)
    with pytest.raises(hr.UnknownNameError, match="no memory 'chats' in talks"):
        app.memory_of("chats")


def test_the_remote_methods_take_what_the_live_ones_do() -> None:
    for name in ("remember", "recall"):
        ours, theirs = (list(inspect.signature(getattr(one, name)).parameters) for one in (hr.Live, hr.Remote))
        assert ours == theirs
