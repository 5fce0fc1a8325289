"""How old what a context reads may be: waited for, told in words, or refused. And writes that are always seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from context_desk import ARTICLES, NOON, PAID, desk

import headrace as hr
from headrace.documents.embed.base import Embedder
from headrace.documents.embed.hashed import HashEmbedder
from headrace.serving.live import Live
from headrace.testing.clock import VirtualClock

ASKED: dict[str, Any] = {"user_id": "u1", "question": "launch"}


class Gate:
    """An embedder whose documents wait while it is shut; questions never do."""

    def __init__(self) -> None:
        self._inner: Embedder = HashEmbedder("hash:")
        self.open = threading.Event()
        self.open.set()
        self.waits = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def embed(self, texts: Sequence[str], *args: Any, **kwargs: Any) -> np.ndarray:
        if any("gated" in text for text in texts) and not self.open.is_set():
            self.waits.set()
            assert self.open.wait(30)
        found: np.ndarray = self._inner.embed(texts, *args, **kwargs)
        return found


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def gated(clock: VirtualClock, gate: Gate) -> Iterator[Live]:
    with desk(clock, embed=gate, max_age="5s").open() as opened:
        opened.push("payment", PAID)
        opened.push("article", ARTICLES)
        opened.drain(30)
        yield opened
        gate.open.set()


def _edit(live: Live, gate: Gate) -> hr.Token:
    """An edit that the collection cannot follow yet."""
    gate.open.clear()
    token = live.push("article", {"id": "launch", "title": "Launch", "body": "The gated launch was on time."})
    assert gate.waits.wait(30)
    return token


def test_a_quiet_key_is_not_stale(gated: Live, clock: VirtualClock) -> None:
    clock.advance("30m")
    pack = gated.context("support", **ASKED)
    assert (pack.point.stale, pack.sections[1].age) == ((), 1802.0)


def test_a_request_may_ask_for_a_new_event(gated: Live) -> None:
    pack = gated.context("support", **ASKED, max_age="1s")
    assert pack.point.stale == ("spending/u1: its newest event is 2.0 s old, at most 1s was asked for",)
    assert "its newest event is 2.0 s old" in pack.render("markdown")
    assert gated.context("support", **ASKED, max_age="2s").point.stale == ()


def test_a_key_without_events_is_no_new_event(gated: Live) -> None:
    pack = gated.context("support", user_id="nobody", question="launch", max_age="1h")
    assert pack.point.stale == ("spending/nobody: there is no event of it, at most 1h was asked for",)


def test_refused(gated: Live) -> None:
    with pytest.raises(hr.StaleError, match=r"newest event is 2\.0 s old"):
        gated.context("support", **ASKED, max_age="1s", on_stale="refuse")


def test_waiting_ends(gated: Live) -> None:
    with pytest.raises(hr.StaleError, match=r"within 0\.05 s"):
        gated.context("support", **ASKED, max_age="1s", on_stale="wait", timeout=0.05)


def test_waiting_sees_what_comes(gated: Live, clock: VirtualClock) -> None:
    found: list[hr.Pack] = []
    waiting = threading.Thread(
        target=lambda: found.append(gated.context("support", **ASKED, max_age="1s", on_stale="wait", timeout=30))
    )
    waiting.start()
    gated.push("payment", {"user_id": "u1", "amount": 1, "at": NOON})
    waiting.join(30)
    assert [(pack.point.stale, pack.sections[1].age) for pack in found] == [((), 0.0)]


def test_a_collection_behind_its_table_is_told(gated: Live, gate: Gate, clock: VirtualClock) -> None:
    _edit(gated, gate)
    clock.advance("4s")
    assert gated.context("support", **ASKED).point.stale == ()
    clock.advance("2s")
    assert gated.context("support", **ASKED).point.stale == (
        "library is 6.0 s behind its documents, at most 5s was asked for",
    )
    with pytest.raises(hr.StaleError, match="behind its documents"):
        gated.context("support", **ASKED, on_stale="refuse")


def test_a_collection_is_waited_for(gated: Live, gate: Gate, clock: VirtualClock) -> None:
    _edit(gated, gate)
    clock.advance("6s")
    found: list[hr.Pack] = []
    waiting = threading.Thread(
        target=lambda: found.append(gated.context("support", **ASKED, on_stale="wait", timeout=30))
    )
    waiting.start()
    gate.open.set()
    waiting.join(30)
    assert [(pack.point.stale, "on time" in pack.render()) for pack in found] == [((), True)]


def test_a_write_that_is_not_seen_in_time_is_no_answer(gated: Live, gate: Gate) -> None:
    token = _edit(gated, gate)
    with pytest.raises(hr.StaleError):
        gated.context("support", **ASKED, after=token, timeout=0.05)


def test_a_context_sees_every_write_whose_token_it_has() -> None:
    with desk().open() as live:
        stale = []
        for number in range(1_000):
            if number % 10:
                token = live.push("payment", {"user_id": "u1", "amount": 1.0, "at": "2026-01-01T00:00:00Z"})
            else:
                token = live.push(
                    "article", {"id": "launch", "title": "Launch", "body": f"The launch is number {number}."}
                )
            pack = live.context("support", **ASKED, after=token)
            written, read = token.positions, pack.point.positions
            text = pack.render("markdown")
            missed = any(read.get(name, 0) < at for name, at in written.items())
            if missed or (number % 10 == 0 and f"number {number}." not in text):
                stale.append(number)
        assert stale == []
