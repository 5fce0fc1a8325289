"""The demo's last question: the context that a model is given, and its answer where there is one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from scripted_upstream import STALL, ScriptedUpstream, delta, text

import headrace as hr
from headrace.demo import ending, flights, model
from headrace.demo.app import app
from headrace.demo.replay import Replay, between

START, END = flights.from_new_york("2013-02-09T10:00"), flights.from_new_york("2013-02-09T16:00")


@pytest.fixture(scope="module")
def live(events: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[hr.Live]:
    with app.open(str(tmp_path_factory.mktemp("demo"))) as opened:
        Replay(opened, between(events, START, END), START, None).run()
        yield opened


def shown(live: hr.Live, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    ending.conclude(console, live)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_without_a_model_the_context_is_shown(live: hr.Live) -> None:
    out = shown(live)
    assert " of 1200 tokens, " in out
    assert "│ ## The route from EWR to ORD" in out
    assert "[2]     The route from EWR to ORD" in out
    assert "answer  none: this context is what a model would have been given." in out
    assert "a-package not installed here: pip install" in " ".join(out.split())


@pytest.mark.parametrize("width", [40, 80, 120])
def test_it_keeps_to_its_width_and_holds_no_control_characters(live: hr.Live, width: int) -> None:
    out = shown(live, width)
    assert max(len(line) for line in out.splitlines()) <= width
    assert {one for one in out if ord(one) < 32} == {"\n"}


def test_the_weather_of_the_moment_is_in_it(live: hr.Live) -> None:
    shown(live)
    pack = live.context("trip", **ending.ARGUMENTS)
    assert "Weather at Newark (EWR) on Sat 9 Feb 1" in pack.render("markdown")
    assert [section.trusted for section in pack.sections] == [True, False, False, False]


def test_a_configured_model_answers(live: hr.Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedUpstream(text("Yes, ", "about\x1b[31m ", "forty minutes [2]. " * 6)) as upstream:
        monkeypatch.setenv("HEADRACE_UPSTREAMS", f"{upstream.url}?model=large")
        out = shown(live)
    asked = upstream.requests[0]
    assert asked["model"] == "large"
    assert asked["messages"][-1]["content"] == ending.QUESTION
    assert "The route from EWR to ORD" in asked["messages"][1]["content"]
    assert "tools" not in asked
    assert "model   large at 127.0.0.1:" in out
    assert "answer  Yes, about [31m forty minutes [2]." in out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert app.endpoint is None


def test_a_model_that_is_out_of_reach_is_said(live: hr.Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_UPSTREAMS", "http://127.0.0.1:9/v1?model=m")
    out = shown(live)
    assert "answer  none" in out
    assert "127.0.0.1:9" in out


def test_a_model_that_stalls_is_waited_for_no_longer_than_promised(
    live: hr.Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "PATIENCE", 1.0)
    with ScriptedUpstream([delta(content="Perhaps "), STALL]) as upstream:
        monkeypatch.setenv("HEADRACE_UPSTREAMS", f"{upstream.url}?model=m")
        out = shown(live)
    assert "answer  Perhaps\n" in out
    assert "broke   " in out


def test_a_wrong_setting_is_said(live: hr.Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_UPSTREAMS", "ftp://nowhere")
    assert "ftp://nowhere" in shown(live)


@pytest.mark.services
def test_the_small_model_answers(live: hr.Live, monkeypatch: pytest.MonkeyPatch) -> None:
    if why := model.missing():
        pytest.skip(why)
    monkeypatch.setattr(ending, "PATIENCE", 300.0)
    out = shown(live)
    assert f"model   {model.ABOUT}" in out
    assert "This is a small base model" in out
    assert "given   pack_" in out


@pytest.mark.services
def test_a_small_model_that_does_not_start_is_said(
    live: hr.Live, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if why := model.missing():
        pytest.skip(why)
    (tmp_path / "models").write_text("a file where a directory should be")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    out = shown(live)
    assert "answer  none" in out
    assert "weights" in out
