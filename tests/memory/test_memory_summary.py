"""Summaries: the extractive one is a pure function within its bound; an app's own is tried, bounded and replaced."""

from __future__ import annotations

import threading

from chats import make_app
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.assembly.summary import extract, sentences
from headrace.documents.passages import estimated

TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=200)), max_size=30)


@given(TURNS, st.integers(0, 300))
def test_a_summary_is_within_its_bound_and_always_the_same(turns: list[tuple[str, str]], tokens: int) -> None:
    made = extract("", turns, tokens=tokens)
    assert (estimated(made) <= tokens, extract("", turns, tokens=tokens)) == (True, made)


@given(TURNS)
def test_every_line_was_said(turns: list[tuple[str, str]]) -> None:
    said = {f"{role}: {one}" for role, text in turns for one in sentences(text)}
    assert set(extract("", turns).splitlines(keepends=False)) - {""} <= {
        part for one in said for part in one.splitlines()
    }


def test_what_all_say_goes_before_what_nobody_else_does() -> None:
    talk = ["The launch of the rocket slipped.", "I like tea.", "The rocket launch slipped by a week."]
    talk += ["When is the rocket launch?", "Hm."]
    made = extract("", [("user", one) for one in talk], tokens=14)
    assert "rocket" in made
    assert "tea" not in made


def test_lines_stay_in_the_order_in_which_they_were_said() -> None:
    made = extract("user: First, the harbour.", [("user", "Second, the rocket."), ("user", "Third, the ship.")])
    assert made.splitlines() == ["user: First, the harbour.", "user: Second, the rocket.", "user: Third, the ship."]


def test_the_same_sentence_twice_is_there_once() -> None:
    assert extract("user: It froze.", [("user", "It froze.")]) == "user: It froze."


def fill(live: hr.Live) -> None:
    live.remember("chat", "s", [{"role": "user", "content": f"The harbour froze in {n}."} for n in range(6)])
    live.drain()


def test_an_apps_own_summary_is_kept_and_handed_the_one_before() -> None:
    given_: list[tuple[str, list[str]]] = []

    def summed_up(before: str, turns: list[hr.Turn]) -> str:
        given_.append((before, [one.text[-2:] for one in turns]))
        return f"summary {len(given_)}"

    with make_app(summary=summed_up).open() as live:
        fill(live)
        live.remember("chat", "s", "user", "More.")
        live.drain()
        found = live.recall("chat", "s")
    assert (found.summary, found.summary_by, given_) == (
        "summary 2",
        "function",
        [("", ["0.", "1.", "2."]), ("summary 1", ["3."])],
    )


def test_a_summary_that_fails_is_tried_again() -> None:
    tries: list[int] = []

    def flaky(before: str, turns: list[hr.Turn]) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("the model is away")
        return "at last"

    with make_app(summary=flaky).open() as live:
        fill(live)
        assert live.recall("chat", "s").summary == "at last"


def test_a_summary_that_fails_for_good_is_extracted_and_says_so() -> None:
    def broken(before: str, turns: list[hr.Turn]) -> str:
        raise OSError("the model is away")

    with make_app(summary=broken).open() as live:
        fill(live)
        found = live.recall("chat", "s")
    assert ("froze in 2" in found.summary, found.summary_by, found.summary_problem) == (
        True,
        "extractive",
        "OSError: the model is away",
    )


def test_what_is_no_summary_is_extracted() -> None:
    for wrong, why in ((7, "as text, found int"), ("x" * 20_000, "at most 16,384 bytes")):
        with make_app(summary=lambda before, turns, wrong=wrong: wrong).open() as live:
            fill(live)
            assert why in live.recall("chat", "s").summary_problem


def test_a_summary_that_is_forgotten_while_it_is_made_is_not_stored() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(before: str, turns: list[hr.Turn]) -> str:
        begun.set()
        go_on.wait(30)
        return " ".join(one.text for one in turns)

    with make_app(summary=slow).open() as live:
        live.remember("chat", "s", [{"role": "user", "content": f"The harbour froze in {n}."} for n in range(6)])
        assert begun.wait(30)
        assert live.forget("chat", session="s") == 6
        go_on.set()
        live.drain()
        assert (live.recall("chat", "s").summary, live.library.tables["memory.chat.summaries"].store.count()) == ("", 0)
