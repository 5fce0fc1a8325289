"""Packs are kept, found again after a restart, bounded, and told when they no longer hold."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import httpx
import pytest

import headrace as hr
from headrace.assembly.pack import Pack
from headrace.errors import UnknownNameError
from headrace.serving.live import Live
from headrace.serving.live_changes import Change, Changes
from headrace.serving.manifests import Manifests, manifest
from headrace.serving.server import BackgroundServer
from headrace.stores.packs import PackStore
from headrace.testing.clock import VirtualClock
from headrace.units import DAY

NOON = "2026-01-31T12:00:00Z"


class Payment(hr.Event):
    user_id: str
    amount: float
    at: datetime = hr.event_time()


class Article(hr.Document):
    id: str
    title: str
    body: str


def make(clock: VirtualClock) -> hr.App:
    app = hr.App("desk", clock=clock)
    payments = app.stream(Payment)
    articles = app.table(Article)
    library = app.collection("library", articles, text=["title", "body"], embed="hash", index="memory:")

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total_10m = hr.sum("amount", over="10m", every="1m")

    @app.context(budget=800)
    def support(user_id: str, question: str):  # type: ignore[no-untyped-def]
        """All that support needs."""
        yield Spending(user_id)
        yield library.search(question, k=2)

    return app


def fill(live: Live) -> None:
    live.push("payment", {"user_id": "u1", "amount": 5.0, "at": "2026-01-31T11:59:30Z"})
    live.push(
        "article",
        [
            {"id": "a", "title": "Refunds", "body": "A refund takes five days."},
            {"id": "b", "title": "Harbour", "body": "The harbour froze in January."},
        ],
    )
    live.drain()


def ask(live: Live) -> Pack:
    pack = live.context("support", user_id="u1", question="how long does a refund take")
    live.packs.keep(pack)
    return pack


def until(changes: Changes, what: str) -> Change:
    """The first change that says so; the pack is looked at as often as that takes."""
    while (change := changes.next(30)) is not None:
        if any(one["what"] == what for one in change.data["changed"]):
            return change
    raise AssertionError(what)


def same(one: Pack | None, other: Pack) -> bool:
    return one is not None and json.dumps(one.to_dict(), default=str) == json.dumps(other.to_dict(), default=str)


def test_a_pack_is_found_again_after_a_restart(tmp_path: Path) -> None:
    with make(VirtualClock(NOON)).open(tmp_path / "data") as live:
        fill(live)
        pack = ask(live)
        assert same(live.pack(pack.id), pack)
        assert live.packs.flush()
        assert same(live.pack(pack.id), pack)
        late = ask(live)
    with make(VirtualClock(NOON)).open(tmp_path / "data") as live:
        assert same(live.pack(pack.id), pack)
        assert same(live.pack(late.id), late)
        with pytest.raises(UnknownNameError, match="no pack 'pack_x'"):
            live.pack("pack_x")


def test_without_a_directory_packs_are_in_memory_and_over_http() -> None:
    with make(VirtualClock(NOON)).open() as live, BackgroundServer(live) as server:
        fill(live)
        pack = ask(live)
        answer = httpx.get(f"{server.url}/v1/packs/{pack.id}")
        assert (answer.status_code, answer.json()["id"]) == (200, pack.id)
        assert httpx.get(f"{server.url}/v1/packs/nothing").status_code == 404


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    with make(VirtualClock(NOON)).open() as live:
        fill(live)
        kept = [manifest(ask(live)) for _ in range(5)]
    at = kept[0].at
    few = PackStore(tmp_path / "few.db", most=2)
    few.add(kept, at)
    assert [one[0] for one in few.newest()] == [kept[4].id, kept[3].id]
    small = PackStore(tmp_path / "small.db", most_bytes=1)
    small.add(kept, at)
    assert (small.count, small.bytes) == (0, 0)
    old = PackStore(tmp_path / "old.db", longest=DAY)
    old.add(kept, at)
    assert old.count == 5
    old.add([], at + 2 * DAY)
    assert old.count == 0
    for store in (few, small, old):
        store.close()


def test_packs_that_cannot_be_written_are_counted_and_hold_nothing_up(tmp_path: Path) -> None:
    with make(VirtualClock(NOON)).open() as live:
        fill(live)
        pack = ask(live)
    manifests = Manifests(tmp_path / "no" / "such" / "packs.db", lambda: 0)
    manifests.keep(pack)
    assert manifests.flush()
    assert manifests.lost == 1
    manifests.close()


def test_a_value_that_reads_otherwise_is_told_also_when_only_time_has_passed() -> None:
    clock = VirtualClock(NOON)
    with make(clock).open() as live:
        fill(live)
        pack = ask(live)
        with live.changes(pack=pack.id) as changes:
            clock.advance("1h")
            change = until(changes, "value")
            assert change.data["pack"] == pack.id
            assert [one["id"] for one in change.data["changed"]] == ["spending/u1"]
            assert change.data["token"]
        with live.changes(pack=pack.id) as changes:
            live.push("payment", {"user_id": "u1", "amount": 7.0, "at": "2026-01-31T12:59:30Z"})
            assert "7.0" in until(changes, "value").data["changed"][0]["detail"]


def test_passages_that_are_gone_and_new_ones_are_told() -> None:
    with make(VirtualClock(NOON)).open() as live:
        fill(live)
        pack = ask(live)
        with live.changes(pack=pack.id) as changes:
            live.push("article", {"id": "a", "title": "Refunds", "body": "A refund takes two weeks now."})
            until(changes, "changed")
            live.delete("article", ["a"])
            until(changes, "deleted")
            live.push("article", {"id": "c", "title": "Refunds again", "body": "How long a refund may take: a day."})
            assert until(changes, "new passage").data["context"] == "support"


def test_a_pack_that_has_changed_already_is_told_at_once_over_http() -> None:
    with make(VirtualClock(NOON)).open() as live, BackgroundServer(live) as server:
        fill(live)
        pack = ask(live)
        live.delete("article", ["a"])
        live.drain()
        with httpx.stream("GET", f"{server.url}/v1/changes?pack={pack.id}", timeout=60) as answer:
            lines = answer.iter_lines()
            data = [json.loads(line[6:]) for line in (next(lines) for _ in range(8)) if line.startswith("data: ")]
        assert data[1]["pack"] == pack.id
        assert "deleted" in {one["what"] for one in data[1]["changed"]}
    assert (live.sources.listening, live.sources.packs.watched, live.hub.subscribers) == (0, 0, 0)
    assert all(not listeners for listeners in (live.view_listeners() or {}).values())
