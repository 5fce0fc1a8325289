"""Enrichment against what is against it: servers that lie, hang and echo keys, changed models, cut logs."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import date, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from answering import ModelServer, judge, numbers, verdict
from enriched import NAME, App, Message, Verdict, rows, until
from pydantic import BaseModel, Field

import headrace as hr
from headrace.runners.enriching import enriching as enriching_module
from headrace.runners.enriching.governor import Governor
from headrace.serving.server import BackgroundServer
from headrace.stores.enrichments import Spent
from headrace.testing import VirtualClock


def row(live: hr.Live, view: Any, key: str) -> Any:
    """The features of a key."""
    return live.read(view, key)


class Panic(BaseException):
    """What is no Exception, as a panic of Polars is none."""


def upstream(server: ModelServer) -> list[hr.Upstream]:
    """The server, without health checks."""
    return [hr.Upstream(server.url, health=None)]


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [10**30, 2**64 - 1, 2**63 - 1])
def test_a_usage_that_cannot_be_is_not_believed(tokens: int) -> None:
    with ModelServer(usage={"prompt_tokens": tokens, "completion_tokens": 5}) as server:
        app = App(server.url, tokens=1_000_000, over_budget="skip")
        with app.app.open() as live:
            live.push(app.messages, rows(1, 2))
            live.drain(30)
            figures = live.stats().enrichments[NAME]
        assert (figures.events, figures.failed) == (2, 0)
        assert 0 < figures.read < 10_000


def test_a_call_that_is_made_again_counts_for_the_rate() -> None:
    clock = VirtualClock("2026-01-01T00:00:00Z")
    with ModelServer(lambda body: 503) as server:
        app = App(server.url, per_minute=2, clock=clock)
        with app.app.open() as live:
            live.push(app.messages, rows(1))
            until(lambda: live.stats().enrichments[NAME].pause == "the rate")
            assert len(server.asked) == 2


def test_a_call_that_took_too_long_is_charged() -> None:
    """The server may have answered it, and may want to be paid."""
    go = threading.Event()
    clock = VirtualClock("2026-01-01T00:00:00Z")
    with ModelServer(lambda body: go.wait(60) and judge(body)) as server:
        # Room for one call of a hundred tokens, and not for one of eight besides, by which an outage is told.
        budget: dict[str, Any] = {"money": 106, "prices": (0, 1_000_000), "max_tokens": 100}
        app = App(server.url, time_limit=0.3, concurrent=1, clock=clock, **budget)
        with app.app.open() as live:
            live.push(app.messages, rows(1))
            until(lambda: "the budget of money" in (live.stats().enrichments[NAME].pause or ""))
            assert len(server.asked) <= 1
            go.set()
            clock.advance("1d")
            live.drain(30)
            assert live.stats().enrichments[NAME].events == 1


def test_what_is_given_back_after_a_period_is_over_is_not_the_next_ones() -> None:
    kept: dict[str, Spent] = {}

    class Ledger:
        def spent(self, name: str, period: str) -> Spent | None:
            return kept.get(period)

        def spend(self, name: str, periods: dict[str, Spent]) -> None:
            kept.update(periods)

    clock = VirtualClock("2026-01-01T00:59:00Z")
    spec = hr.llm("{text}", output=Verdict, tokens={"hour": 500, "day": 2_000})
    governor = Governor("x", spec, Ledger(), clock.now)
    before = governor.begin(400, 0.0)
    clock.advance("2m")
    governor.end(governor.begin(400, 0.0), (400, 0.0), (400, 0.0))
    governor.end(before, (400, 0.0), (10, 0.0))
    assert (kept["hour"].tokens, kept["day"].tokens) == (400, 410)
    assert governor.wait(400, 0.0) is not None


def test_a_key_that_a_server_echoes_is_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MODEL_KEY", "says")  # a word of what the server answers
    with ModelServer(lambda body: 422) as server:
        app = App(upstreams=[hr.Upstream(server.url, key_env="MODEL_KEY", health=None)])
        with app.app.open() as live:
            live.push(app.messages, rows(1))
            live.drain(30)
            (letter,) = live.dead_letters.list()
            assert "found status 422: as the test ***" in letter.reason
            assert "says" not in str(live.status()) + caplog.text


# -- events ------------------------------------------------------------------------------------------------------------


class Odd(hr.Event):
    words: str = Field(alias="Words")
    raw: bytes = b""
    day: date | None = None
    at: datetime = hr.event_time(alias="When")


class Mood(BaseModel):
    mood: str = Field(alias="Mood")


@pytest.mark.parametrize("full", [False, True])
def test_an_event_with_bytes_and_other_keys_is_set_aside_and_replayed(full: bool) -> None:
    said: list[Any] = [{"Mood": 3}]
    with ModelServer(lambda body: said[0]) as server:
        app = hr.App("odd", clock="event")
        base = app.stream(Odd)
        spec = hr.llm("{words}", output=Mood, upstreams=upstream(server), attempts=1, backlog=1)
        made = base.enrich(spec)

        @app.features(made, key="words")
        class Moods:
            """Of what came."""

            all = hr.latest(5, "mood", "raw", "day")

        event = {"Words": "{a}", "When": 1_700_000_000, "raw": "hé", "day": "2026-01-01"}
        with app.open() as live:
            live.push(base, [event, event] if full else event)
            live.drain(30)
            found = live.dead_letters.list()
            assert len(found) == 1 + full
            assert json.loads(found[0].raw) == event | {"When": "2023-11-14T22:13:20Z"}
            said[0] = {"Mood": "fine"}
            assert live.replay_dead_letters([found[0].id]) == (1, 0)
            live.drain(30)
            assert row(live, Moods, "{a}").all == [{"mood": "fine", "raw": "hé".encode(), "day": date(2026, 1, 1)}]


def test_an_answer_that_comes_after_every_window_is_set_aside_and_not_lost() -> None:
    go = threading.Event()
    clock = VirtualClock("2026-01-01T00:00:00Z")
    with ModelServer(lambda body: go.wait(60) and {"Mood": "fine"}) as server:
        app = hr.App("odd", clock=clock)
        base = app.stream(Odd)
        made = base.enrich(hr.llm("{words}", output=Mood, upstreams=upstream(server)))

        @app.features(made, key="words")
        class Moods:
            """Of what came."""

            count = hr.count(over="1h")

        with app.open() as live:
            live.push(base, {"Words": "a", "When": clock.now() / 1e6, "raw": "x"})
            server.wait_for(1)
            clock.advance("3h")
            go.set()
            live.drain(30)
            (letter,) = live.dead_letters.list(made.name)
            assert "too late" in letter.reason
            told = {"Words": "a", "raw": "x", "day": None, "When": "2026-01-01T00:00:00Z", "Mood": "fine"}
            assert json.loads(letter.raw) == told
            assert live.ready() == (True, "ready")


def test_an_events_time_is_that_of_the_input_whenever_it_is_answered(tmp_path: Path) -> None:
    go = threading.Event()
    hour = [{"text": "t", "number": n, "at": 1_700_000_000 + n * 1_800} for n in range(4)]
    with ModelServer(lambda body: go.wait(60) and judge(body)) as server:
        app = App(server.url)
        with app.app.open(tmp_path) as live:
            live.push(app.messages, hour)
            server.wait_for(1)
        go.set()
        with app.app.open(tmp_path) as live:
            live.drain(30)
            assert row(live, app.Texts, "t").count == row(live, app.Verdicts, "t").count == 2


def test_two_enrichments_of_one_stream_have_each_all_of_it() -> None:
    class Length(BaseModel):
        length: int

    def both(body: dict[str, Any]) -> Any:
        return {"length": numbers(body)[0]} if "length" in str(body["response_format"]) else judge(body)

    with ModelServer(both) as server:
        app = App(server.url, prompt="#{number} {{kept}} {text}")
        made = app.messages.enrich(hr.llm("#{number}", output=Length, upstreams=upstream(server)))

        @app.app.features(made, key="text")
        class Lengths:
            """Of what came."""

            all = hr.latest(100, "length")

        with app.app.open() as live:
            for n in range(20):
                live.push(app.messages, rows(n, text="{number} {x"))
            live.drain(30)
            assert [one["length"] for one in row(live, Lengths, "{number} {x").all] == list(range(19, -1, -1))
            assert [one["number"] for one in row(live, app.Verdicts, "{number} {x").all] == list(range(19, -1, -1))
        asked = [one["messages"][1]["content"] for one in server.asked]
        assert any("{kept}" in one and "{number} {x" in one for one in asked)


# -- restarts ----------------------------------------------------------------------------------------------------------


def test_the_output_may_change_between_two_starts(tmp_path: Path) -> None:
    """What waits is asked about in the new form, and what came out before is read with today's columns."""

    class First(BaseModel):
        mood: str
        score: float

    class Inner(BaseModel):
        depth: int

    class Second(BaseModel):
        mood: Inner
        score: list[str]
        more: int

    answers: list[tuple[type[BaseModel], dict[str, Any]]] = [
        (First, {"mood": "x", "score": 1.0}),
        (Second, {"mood": {"depth": 1}, "score": ["a"], "more": 1}),
        (First, {"mood": "x", "score": 1.0}),
    ]
    for start, (output, answer) in enumerate(answers, 1):
        with ModelServer(lambda body, answer=answer: answer) as server:  # type: ignore[misc]
            app = hr.App("changing", clock="event")
            base = app.stream(Message)
            made = base.enrich(hr.llm("{number}", output=output, upstreams=upstream(server)), name="made")
            fields = ["number", *output.model_fields]

            @app.features(made, key="text")
            class Made:
                """Of what came."""

                count = hr.count(over="1h")
                all = hr.latest(10, *fields)

            with app.open(tmp_path) as live:
                live.push(base, rows(start))
                live.drain(30)
                assert row(live, Made, "t").count == start
                assert row(live, Made, "t").all[0] == {"number": start, **answer}
                assert live.dead_letters.count() == {}


def test_an_enrichment_of_an_enrichment_goes_on_over_restarts(tmp_path: Path) -> None:
    class Loud(BaseModel):
        loud: bool

    def both(body: dict[str, Any]) -> Any:
        return {"loud": numbers(body)[0] % 2 == 1} if "loud" in str(body["response_format"]) else judge(body)

    def chain(server: ModelServer) -> tuple[App, Any]:
        app = App(server.url, cache=None)
        spec = hr.llm("{mood} #{number}", output=Loud, upstreams=upstream(server), cache=None)
        loud = app.verdicts.enrich(spec, name="loud")

        @app.app.features(loud, key="text")
        class Loudness:
            """Of what came of what came."""

            all = hr.latest(1_000, "number", "mood", "loud")

        return app, Loudness

    with ModelServer(both) as server:
        for begin in range(0, 60, 20):
            asked = len(server.asked)
            app, _ = chain(server)
            with app.app.open(tmp_path) as live:
                live.push(app.messages, rows(*range(begin, begin + 20)))
                server.wait_for(asked + 12)  # closed in the middle
        app, loudness = chain(server)
        with app.app.open(tmp_path) as live:
            live.drain(60)
            found = [(one["number"], one["mood"], one["loud"]) for one in row(live, loudness, "t").all]
            assert found[::-1] == [(n, verdict(n)["mood"], n % 2 == 1) for n in range(60)]
            assert live.dead_letters.count() == {}


def test_a_log_that_ends_before_what_was_read_is_no_silence(tmp_path: Path) -> None:
    with ModelServer() as server:
        app = App(server.url)
        with app.app.open(tmp_path) as live:
            live.push(app.messages, rows(1))
            live.drain(30)
        shutil.rmtree(tmp_path / "log")
        shutil.rmtree(tmp_path / "journal")
        with pytest.raises(hr.StorageError, match="the enrichment 'message_verdict' has read up to"):
            app.app.open(tmp_path)


# -- ends --------------------------------------------------------------------------------------------------------------


def test_whatever_stops_an_enrichment_is_told_and_nobody_waits_for_it(tmp_path: Path) -> None:
    def ask(row: Any) -> str:
        raise Panic("it is over")

    path = tmp_path / "in.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows(*range(10))))
    app = App(source=f"file://{path}?follow=true", prompt=ask, instructions="Judge.", backlog=5)
    with app.app.open() as live:
        until(lambda: not live.ready()[0])
        assert "has stopped: Panic: it is over" in live.ready()[1]
        with path.open("a") as file:
            file.write(json.dumps(rows(11)[0]) + "\n")
        with pytest.raises(hr.ClosedError, match="it is over"):
            live.drain(60)
        until(lambda: row(live, app.Texts, "t").count == 11)


def test_closing_does_not_wait_for_an_engine_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enriching_module, "_CLOSE_SECONDS", 0.1)
    with ModelServer() as server:
        app = App(server.url)
        live = app.app.open(tmp_path)
        runner: Any = live._runner
        runner.inbox._most = 1
        pushing = [threading.Thread(target=live.push, args=(app.messages, rows(n))) for n in range(2)]
        with runner.engine.lock:
            for one in pushing:
                one.start()
            server.wait_for(1)
            assert live._enriching is not None
            stage = live._enriching._stages[NAME]
            until(lambda: stage.pending is not None)
            live._enriching.close()
        for one in pushing:
            one.join(30)
        live.close()
        with app.app.open(tmp_path) as live:
            live.drain(30)
            assert sorted(one["number"] for one in row(live, app.Verdicts, "t").all) == [0, 1]
    assert verdict(1)["mood"] == "good"


def test_a_push_into_an_enriched_stream_is_a_problem_of_the_callers() -> None:
    app = App()
    with app.app.open() as live, BackgroundServer(live) as server:
        connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
        connection.request("POST", f"/v1/streams/{NAME}", json.dumps(rows(1)), {"content-type": "application/json"})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert told["type"] == "urn:headrace:problem:input"
    assert "made of 'message'; push there" in told["detail"]
