"""Enrichment whole, over real sockets: order, caching, retries, dead letters, outages, budgets, features beside it."""

from __future__ import annotations

import json
import random
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from answering import DROP, ModelServer, judge, numbers, verdict
from enriched import NAME, App, Verdict, rows, until
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.ops.metrics import HttpTally, exposition
from headrace.testing import VirtualClock


def came(live: hr.Live, app: App, text: str = "t") -> list[tuple[int, str, float]]:
    """What the derived stream has brought, in order."""
    found = live.read(app.Verdicts, text).all or []  # type: ignore[attr-defined]
    return [(one["number"], one["mood"], one["score"]) for one in reversed(found)]


def expected(*given: int) -> list[tuple[int, str, float]]:
    """What a plain loop over the events makes of them."""
    return [(number, verdict(number)["mood"], verdict(number)["score"]) for number in given]


def test_answers_leave_in_the_order_of_the_events_however_calls_overtake() -> None:
    chance, gates = random.Random(3), threading.Barrier(8)

    def overtaking(body: dict[str, Any]) -> Any:
        if numbers(body)[0] < 8:
            gates.wait(30)  # eight are under way at once
            threading.Event().wait(chance.random() / 20)
        return judge(body)

    with ModelServer(overtaking) as server:
        app = App(server.url, concurrent=8)
        with app.app.open() as live:
            live.push(app.messages, rows(*range(40)))
            live.drain(30)
            assert came(live, app) == expected(*range(40))


@given(
    cuts=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12), min_size=1, max_size=6),
    batch=st.integers(1, 5),
    concurrent=st.integers(1, 4),
)
def test_however_the_input_is_cut_what_comes_is_that_of_a_plain_loop(
    cuts: list[list[int]], batch: int, concurrent: int
) -> None:
    with ModelServer() as server:
        app = App(server.url, batch=batch, concurrent=concurrent)
        with app.app.open() as live:
            for cut in cuts:
                live.push(app.messages, rows(*cut))
            live.drain(30)
            given = [number for cut in cuts for number in cut]
            assert came(live, app) == expected(*given)
            # The same question is asked once.
            assert len({n for body in server.asked for n in numbers(body)}) == len(set(given))
            assert sum(len(numbers(body)) for body in server.asked) == len(set(given))


@given(
    numbers_=st.lists(st.integers(0, 40), min_size=1, max_size=40),
    batch=st.integers(1, 4),
    concurrent=st.integers(1, 4),
)
def test_what_fails_is_set_aside_and_the_rest_comes_in_order(numbers_: list[int], batch: int, concurrent: int) -> None:
    def fails(number: int) -> bool:
        return number % 7 == 3

    def moody(body: dict[str, Any]) -> Any:
        said = judge(body)
        for number, one in zip(numbers(body), said.get("answers", [said]), strict=True):
            answer = one.get("answer", one)
            if fails(number) or (number % 5 == 4 and len(body["messages"]) == 2):
                answer["mood"] = "who knows"
        return said

    with ModelServer(moody) as server:
        app = App(server.url, batch=batch, concurrent=concurrent, attempts=2 + (batch > 1))
        with app.app.open() as live:
            live.push(app.messages, rows(*numbers_))
            live.drain(30)
            assert came(live, app) == expected(*(number for number in numbers_ if not fails(number)))
            letters = [json.loads(one.raw)["number"] for one in live.dead_letters.list(NAME)]
            assert sorted(letters) == sorted(number for number in numbers_ if fails(number))


def test_answers_are_kept_over_restarts(tmp_path: Path) -> None:
    with ModelServer() as server:
        for _ in range(2):
            app = App(server.url)
            with app.app.open(tmp_path) as live:
                live.push(app.messages, rows(1, 2, 3))
                live.drain(30)
                figures = live.stats().enrichments[NAME]
        assert (len(server.asked), figures.cached, figures.events) == (3, 3, 3)
        # Other instructions are another question.
        other = App(server.url, instructions="Be strict.")
        with other.app.open(tmp_path) as live:
            live.push(other.messages, rows(1))
            live.drain(30)
        assert len(server.asked) == 4


def test_an_answer_past_its_age_is_asked_for_again() -> None:
    clock = VirtualClock("2026-01-01T00:00:00Z")
    with ModelServer() as server:
        app = App(server.url, cache="1h", clock=clock)
        with app.app.open() as live:
            for _ in range(2):
                live.push(app.messages, rows(1))
                live.drain(30)
            assert len(server.asked) == 1
            clock.advance("2h")
            live.push(app.messages, rows(1))
            live.drain(30)
        assert len(server.asked) == 2


def test_a_wrong_answer_is_asked_about_again_and_then_set_aside() -> None:
    def stubborn(body: dict[str, Any]) -> Any:
        wrong = {1: "I think it is good.", 2: {"mood": "bad", "score": -1}}
        number = numbers(body)[0]
        second = len(body["messages"]) > 2
        return wrong[2] if number == 2 else wrong[1] if number == 1 and not second else verdict(number)

    with ModelServer(stubborn) as server:
        app = App(server.url, attempts=3, concurrent=1)
        with app.app.open() as live:
            live.push(app.messages, rows(1, 2, 3))
            live.drain(30)
            assert came(live, app) == expected(1, 3)
            (letter,) = live.dead_letters.list()
            assert (letter.stream, json.loads(letter.raw)["number"]) == (NAME, 2)
            assert "3 attempts" in letter.reason
            assert "score: expected greater than or equal to 0, found -1" in letter.reason
            assert live.stats().enrichments[NAME].wrong == 4
            told = [body["messages"][-1]["content"] for body in server.asked if len(body["messages"]) > 2]
            assert all("cannot be used" in one for one in told)
            # When the model has learnt it, the letter is replayed.
            server.answer = judge
            assert live.replay_dead_letters() == (1, 0)
            live.drain(30)
            assert came(live, app) == expected(1, 2, 3) or came(live, app) == expected(1, 3, 2)


def test_a_batch_that_is_answered_in_part_is_asked_about_one_by_one() -> None:
    def forgetful(body: dict[str, Any]) -> Any:
        said = judge(body)
        if "answers" in said:
            said["answers"] = [*said["answers"][:-1], {"n": 99, "answer": {}}]
        return said

    with ModelServer(forgetful) as server:
        app = App(server.url, batch=5, concurrent=1)
        with app.app.open() as live:
            live.push(app.messages, rows(*range(10)))
            live.drain(30)
            assert came(live, app) == expected(*range(10))
        assert [len(numbers(body)) for body in server.asked] == [5, 1, 5, 1]


def test_features_go_on_while_the_model_stalls() -> None:
    go = threading.Event()
    with ModelServer(lambda body: go.wait(60) and judge(body)) as server:
        app = App(server.url, concurrent=2)
        with app.app.open() as live:
            for number in range(0, 1_000, 100):
                token = live.push(app.messages, rows(*range(number, number + 100)))
            assert live.read(app.Texts, "t", after=token, timeout=60).count == 1_000  # type: ignore[attr-defined]
            assert came(live, app) == []
            with pytest.raises(hr.StaleError):
                live.drain(0.05)
            until(lambda: live.stats().enrichments[NAME].waiting == 1_000)
            assert live.ready() == (True, "ready")
            go.set()
            live.drain(30)
            assert live.read(app.Verdicts, "t").count == 1_000  # type: ignore[attr-defined]


def test_an_outage_is_waited_for_and_nothing_is_set_aside(tmp_path: Path) -> None:
    # A port that is bound and not listened on: nobody else can get it, and connections are refused.
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = held.getsockname()[1]
    app = App(f"http://127.0.0.1:{port}/v1")
    with held, app.app.open(tmp_path) as live:
        token = live.push(app.messages, rows(1, 2, 3))
        until(lambda: live.stats().enrichments[NAME].problem)
        assert live.read(app.Texts, "t", after=token).count == 3  # type: ignore[attr-defined]
        assert (live.ready()[0], live.stats().enrichments[NAME].waiting) == (True, 3)
        with ModelServer(port=port):
            live.drain(30)
            assert came(live, app) == expected(1, 2, 3)
        assert live.dead_letters.count() == {}
        assert live.stats().enrichments[NAME].problem is None


def test_a_question_on_which_the_server_fails_is_told_from_an_outage() -> None:
    with ModelServer(lambda body: 500 if numbers(body) == [2] else judge(body)) as server:
        app = App(server.url, attempts=2, concurrent=1)
        with app.app.open() as live:
            live.push(app.messages, rows(1, 2, 3))
            live.drain(30)
            assert came(live, app) == expected(1, 3)
            (letter,) = live.dead_letters.list()
            assert "fails on this and on nothing else" in letter.reason


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_question_that_is_refused_is_set_aside_at_once(status: int) -> None:
    with ModelServer(lambda body: status if numbers(body) == [1] else judge(body)) as server:
        app = App(server.url, concurrent=1)
        with app.app.open() as live:
            live.push(app.messages, rows(1, 2))
            live.drain(30)
            assert came(live, app) == expected(2)
            assert f"status {status}" in live.dead_letters.list()[0].reason
        assert len(server.asked) == 2


def test_a_connection_that_breaks_is_tried_again() -> None:
    broken = iter([DROP, DROP])
    with ModelServer(lambda body: next(broken, judge(body))) as server:
        app = App(server.url, concurrent=1)
        with app.app.open() as live:
            live.push(app.messages, rows(1))
            live.drain(30)
            assert came(live, app) == expected(1)


def test_a_budget_pauses_until_the_next_hour_and_survives_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock("2026-01-01T00:30:00Z")
    # What is reserved for a call is some hundred tokens; what it takes is 100.
    with ModelServer(usage={"prompt_tokens": 60, "completion_tokens": 40}) as server:
        app = App(server.url, tokens={"hour": 1_000}, max_tokens=100, concurrent=2, clock=clock)

        def paused(live: hr.Live) -> bool:
            figures = live.stats().enrichments[NAME]
            return figures.running == 0 and "budget of tokens of this hour" in (figures.pause or "")

        with app.app.open(tmp_path) as live:
            live.push(app.messages, rows(*range(20)))
            until(lambda: paused(live))
            done = len(server.asked)
            assert 0 < done <= 10
        with app.app.open(tmp_path) as live:
            until(lambda: paused(live))
            assert len(server.asked) == done
            for _ in range(3):
                clock.advance("1h")
                server.wait_for(min(20, done + 1))
                until(lambda: paused(live) or not live.stats().enrichments[NAME].waiting)
                assert len(server.asked) - done <= 10
                done = len(server.asked)
            live.drain(30)
        assert sorted(numbers(body)[0] for body in server.asked) == list(range(20))


def test_past_the_budget_events_are_set_aside_where_that_is_wanted() -> None:
    clock = VirtualClock("2026-01-01T00:30:00Z")
    with ModelServer(usage={"prompt_tokens": 0, "completion_tokens": 1_000_000}) as server:
        app = App(server.url, money=2.0, prices=(1, 2), over_budget="skip", concurrent=1, clock=clock, max_tokens=1_000)
        with app.app.open() as live:
            live.push(app.messages, rows(1, 2, 3))
            live.drain(30)
            figures = live.stats().enrichments[NAME]
            assert (figures.calls, figures.failed, figures.cost) == (1, 2, 2.0)
            assert "there is nothing left of the budget of money" in live.dead_letters.list(NAME)[0].reason


def test_the_rate_is_kept_in_every_minute() -> None:
    clock = VirtualClock("2026-01-01T00:00:59Z")
    with ModelServer() as server:
        app = App(server.url, per_minute=3, clock=clock)
        with app.app.open() as live:
            live.push(app.messages, rows(*range(5)))
            until(lambda: live.stats().enrichments[NAME].pause == "the rate" and len(server.asked) == 3)
            clock.advance("59s")
            assert live.stats().enrichments[NAME].calls <= 3
            clock.advance("1s")
            live.drain(30)
        assert len(server.asked) == 5


def test_past_the_backlog_events_are_set_aside_and_can_be_replayed(tmp_path: Path) -> None:
    go = threading.Event()
    with ModelServer(lambda body: go.wait(60) and judge(body)) as server:
        app = App(server.url, backlog=10)
        with app.app.open(tmp_path) as live:
            live.push(app.messages, rows(*range(8)))
            live.push(app.messages, rows(*range(8, 12)))
            token = live.push(app.messages, rows(12, 13))
            until(lambda: live.dead_letters.count() == {NAME: 4})
            assert "the backlog is full: 10 events" in live.dead_letters.list()[0].reason
            assert live.read(app.Texts, "t", after=token).count == 14  # type: ignore[attr-defined]
            go.set()
            live.drain(30)
            assert sorted(came(live, app)) == expected(*range(8), 12, 13)
            assert live.replay_dead_letters() == (4, 0)
            live.drain(30)
            assert sorted(came(live, app)) == expected(*range(14))


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    with ModelServer() as server:
        seen = 0
        for begin in range(0, 60, 20):
            app = App(server.url, cache=None)
            with app.app.open(tmp_path) as live:
                live.push(app.messages, rows(*range(begin, begin + 20)))
                server.wait_for(seen + 1)  # closed in the middle
            seen = len(server.asked)
        app = App(server.url, cache=None)
        with app.app.open(tmp_path) as live:
            live.drain(30)
            assert sorted(came(live, app)) == expected(*range(60))
            assert live.read(app.Verdicts, "t").count == 60  # type: ignore[attr-defined]


def test_a_file_is_enriched_and_read_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows(*range(30))))
    with ModelServer() as server:
        for total in (30, 35):
            app = App(server.url, source=f"file://{path}?follow=true")
            with app.app.open(tmp_path / "data") as live:
                live.drain(30)
                assert live.read(app.Texts, "t").count == total  # type: ignore[attr-defined]
                assert came(live, app) == expected(*range(total))
                assert live.dead_letters.count() == {}
            with path.open("a") as file:
                file.write("".join(json.dumps(one) + "\n" for one in rows(*range(40))[30:35]))
        assert len(server.asked) == 35


def test_an_enriched_stream_is_enriched_again() -> None:
    class Loud(Verdict.__base__):  # type: ignore[misc]  # pydantic.BaseModel
        loud: bool

    def both(body: dict[str, Any]) -> Any:
        return (
            {"loud": "good" in body["messages"][1]["content"]}
            if "loud" in str(body["response_format"])
            else judge(body)
        )

    with ModelServer(both) as server:
        app = App(server.url)
        second = app.verdicts.enrich(
            hr.llm("Is {mood} loud?", output=Loud, upstreams=[hr.Upstream(server.url, health=None)]), name="loudness"
        )

        @app.app.features(second, key="text")
        class Loudness:
            """Of what came of what came."""

            all = hr.latest(100, "number", "loud")

        with app.app.open() as live:
            live.push(app.messages, rows(1, 2, 3))
            live.drain(30)
            found = [(one["number"], one["loud"]) for one in reversed(live.read(Loudness, "t").all)]
        assert found == [(1, True), (2, False), (3, True)]


def test_only_the_model_pushes_into_an_enriched_stream() -> None:
    app = App()
    with app.app.open() as live, pytest.raises(hr.InputError, match="made of 'message'; push there"):
        live.push(app.verdicts, rows(1))


def test_an_upstream_that_lies_about_its_usage_is_counted_by_an_estimate() -> None:
    with ModelServer(usage={"prompt_tokens": "many", "completion_tokens": -5}) as server:
        app = App(server.url)
        with app.app.open() as live:
            live.push(app.messages, rows(1))
            live.drain(30)
            figures = live.stats().enrichments[NAME]
            assert figures.read > 10
            assert figures.written > 5


def test_closing_ends_a_call_that_hangs_and_its_event_is_asked_about_again(tmp_path: Path) -> None:
    go = threading.Event()
    with ModelServer(lambda body: go.wait(60) and judge(body)) as server:
        app = App(server.url)
        with app.app.open(tmp_path) as live:
            live.push(app.messages, rows(1, 2))
            server.wait_for(2)
        assert not [one.name for one in threading.enumerate() if one.name.startswith("headrace-enrich")]
        go.set()
        with app.app.open(tmp_path) as live:
            live.drain(30)
            assert came(live, app) == expected(1, 2)


def test_what_the_prompts_function_raises_is_the_events_reason() -> None:
    def ask(row: Any) -> str:
        return f"#{row['number']} is 1/{1 / row['number']}"

    with ModelServer() as server:
        app = App(server.url, prompt=ask, instructions="Judge.")
        with app.app.open() as live:
            live.push(app.messages, rows(1, 0, 2))
            live.drain(30)
            assert came(live, app) == expected(1, 2)
            assert "ZeroDivisionError" in live.dead_letters.list(NAME)[0].reason


def test_figures_are_told_as_metrics() -> None:
    with ModelServer() as server:
        app = App(server.url, prices=(1, 2))
        with app.app.open() as live:
            live.push(app.messages, rows(1, 1))
            live.drain(30)
            text = exposition(live.stats(), HttpTally())[0].decode()
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("headrace_enrich_"))
    label = f'{{stream="{NAME}"}}'
    assert told[f"headrace_enrich_events_total{label}"] == "2.0"
    assert told[f"headrace_enrich_calls_total{label}"] == told[f"headrace_enrich_cached_total{label}"] == "1.0"
    assert told[f'headrace_enrich_tokens_total{{direction="read",stream="{NAME}"}}'] == "10.0"
    assert told[f"headrace_enrich_cost_total{label}"] == "2e-05"
    assert (told[f"headrace_enrich_waiting{label}"], told[f"headrace_enrich_up{label}"]) == ("0.0", "1.0")
