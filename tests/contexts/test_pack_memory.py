"""Packs that recalled a session: watched, replayed, and without what was forgotten or erased."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import headrace as hr
from headrace.assembly.pack import Pack
from headrace.errors import InputError
from headrace.serving.live import Live
from headrace.serving.live_changes import Change, Changes
from headrace.serving.pack_changes import differences, searches
from headrace.serving.pack_erasure import NOTE
from headrace.serving.replay import rebuild
from headrace.stores.database import Database
from headrace.testing.clock import VirtualClock

NOON = "2026-01-31T12:00:00Z"
SECRET = "The parcel with the zebra clock has not come."


class Article(hr.Document):
    id: str
    title: str
    body: str


def make(clock: VirtualClock) -> hr.App:
    app = hr.App("desk", clock=clock)
    articles = app.table(Article)
    library = app.collection("library", articles, text=["title", "body"], embed="hash", index="memory:")
    chat = app.memory("chat", embed="hash", index="memory:", turns=2, keep="1h")

    @app.context(budget=800)
    def support(session: str, question: str):  # type: ignore[no-untyped-def]
        """All that support needs."""
        yield hr.text("Be brief.", trusted=True)
        yield chat.recall(session, question)
        yield library.search(question, k=2)
        yield question

    return app


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOON)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=["on disk", "in memory"])
def live(request: pytest.FixtureRequest, clock: VirtualClock, data: Path) -> Iterator[Live]:
    with make(clock).open(data if request.param == "on disk" else None) as opened:
        fill(opened)
        yield opened


def fill(live: Live) -> None:
    live.push("article", {"id": "a", "title": "Parcels", "body": "A parcel takes three days. Ask for walnut post."})
    live.remember("chat", "s1", "user", SECRET, id="m1", subject="ann")
    live.remember("chat", "s1", "assistant", "It was sent on Monday.", id="m2")
    live.remember("chat", "s1", "user", "I need it by Friday.", id="m3", subject="ann")
    live.drain()


def ask(live: Live, session: str = "s1") -> Pack:
    return live.context("support", session=session, question="where is the parcel with the zebra clock")


def until(changes: Changes, what: str) -> Change:
    while (change := changes.next(30)) is not None:
        if any(one["what"] == what for one in change.data["changed"]):
            return change
    raise AssertionError(what)


def kept(live: Live, pack: Pack) -> str:
    found = live.packs.get(pack.id)
    assert found is not None
    return json.dumps(found.to_dict(), default=str)


def test_recalled_turns_are_made_again_as_of_then(live: Live) -> None:
    pack = ask(live)
    assert {section.kind for section in pack.sections} >= {"summary", "recalled", "turns"}
    live.remember("chat", "s1", "user", "And another thing.", id="m4")
    live.remember("chat", "s1", "user", "Told late.", id="m0", at=datetime(2026, 1, 31, 11, 30, tzinfo=UTC))
    live.drain()
    rebuilt = rebuild(live, pack)
    assert rebuilt.other == []
    turns = {one.item.id for section in pack.sections if section.kind in ("recalled", "turns") for one in section.items}
    assert turns == {"chat/m1", "chat/m2", "chat/m3"} <= set(rebuilt.same)
    assert set(rebuilt.unknown) <= {"chat/summary"}
    now, troubles = differences(live, pack)
    assert troubles == []
    assert ("new turn", "2 since") in {(one.what, one.detail) for one in now}


def test_a_pack_is_told_of_new_turns_and_of_forgotten_ones(live: Live) -> None:
    pack, empty = ask(live), ask(live, "s2")
    with live.changes(pack=pack.id) as changes, live.changes(pack=empty.id) as others:
        live.remember("chat", "s2", "user", "Hello.")
        assert until(others, "new turn").data["pack"] == empty.id
        live.remember("chat", "s1", "user", "Anyone?")
        assert until(changes, "new turn").data["pack"] == pack.id
        live.forget("chat", subject="ann")
        told = until(changes, "forgotten").data["changed"]
        assert {one["id"] for one in told if one["what"] == "forgotten"} == {"chat/m1", "chat/m3"}
    live.close()
    assert live.library.memories["chat"].listeners == []


def test_a_pack_is_told_when_turns_are_too_old(live: Live, clock: VirtualClock) -> None:
    pack = ask(live)
    with live.changes(pack=pack.id) as changes:
        clock.advance("2h")
        told = until(changes, "forgotten").data["changed"]
        assert len([one for one in told if one["what"] == "forgotten"]) == 3
    assert "zebra" not in json.dumps(live.pack(pack.id).to_dict(), default=str)


@pytest.mark.parametrize("how", [{"session": "s1"}, {"subject": "ann"}])
def test_what_is_forgotten_goes_out_of_kept_packs(live: Live, how: dict[str, str]) -> None:
    pack, other = ask(live), live.context("support", session="s2", question="how long does a parcel take")
    assert live.packs.flush()
    live.forget("chat", **how)  # type: ignore[arg-type]  # one of its names
    text = kept(live, pack)
    assert "zebra" not in text
    assert "Friday" not in text
    assert ("Monday" in text) == ("subject" in how)
    assert "A parcel takes three days" in text
    assert "how long does a parcel take" in kept(live, other)
    found = live.pack(pack.id)
    assert found.arguments == {"session": NOTE, "question": NOTE}
    assert {one.action for one in found.dropped} == {"forgotten"}
    report = live.replay(pack.id)
    whole = json.dumps(report, default=str)
    assert "zebra" not in whole
    assert "was forgotten" in whole
    assert "forgotten" in {one["what"] for one in report["now"]["changed"]}
    assert any("cannot be asked again" in one for one in report["now"]["not_compared"])
    assert report["rebuilt"]["other"] == []
    with pytest.raises(InputError, match="is forgotten"):
        searches(live, found)


def test_an_erased_document_goes_out_of_kept_packs(live: Live) -> None:
    pack = ask(live)
    assert live.packs.flush()
    live.delete("article", ["a"])
    assert "walnut" in kept(live, pack)
    token = live.delete("article", ["a"], erase=True)
    text = kept(live, pack)
    assert "walnut" not in text
    live.search("library", "walnut", after=token, timeout=30)  # what differs now is asked of what has followed
    assert "zebra" in text
    found = live.pack(pack.id)
    assert found.arguments == pack.arguments
    assert list(rebuild(live, found).unknown.values())[:1] != []
    now, _ = differences(live, found)
    assert [one.what for one in now if one.section == "library"] == ["forgotten"]


def test_a_pack_that_was_read_before_and_is_kept_after_the_erasure_is_without_it(live: Live) -> None:
    pack = ask(live)
    live.forget("chat", session="s1")
    live.delete("article", ["a"], erase=True)
    live.packs.keep(pack)  # as if packing had taken as long
    assert live.packs.flush()
    assert "zebra" not in kept(live, pack)
    assert "walnut" not in kept(live, pack)
    # What comes under the same key later is another's.
    live.push("article", {"id": "a", "title": "Parcels", "body": "A parcel takes two days. Ask for walnut post."})
    live.drain()
    assert "walnut" in kept(live, ask(live))


def test_an_erasure_that_fails_changes_nothing_of_packs_to_come(live: Live) -> None:
    with pytest.raises(RuntimeError), live.packs.erasing("article", ["a"]):
        raise RuntimeError
    assert "walnut" in kept(live, ask(live))


def test_nothing_of_it_is_left_in_the_file(clock: VirtualClock, data: Path) -> None:
    with make(clock).open(data) as live:
        fill(live)
        pack = ask(live)
        assert live.packs.flush()
        reader = Database(data / "packs.db", "", 2, "a reader")
        with reader.read() as run:
            (before,) = run.execute("SELECT body FROM packs WHERE id = ?", (pack.id,)).fetchone()
        reader.close()
        assert SECRET.encode() in zlib.decompress(before)
        live.forget("chat", session="s1")
        files = [one for one in data.iterdir() if one.name.startswith("packs.db")]
        part = before[64:128]
        assert [one.name for one in files if part in one.read_bytes()] == []
    with make(clock).open(data) as live:
        assert "zebra" not in kept(live, pack)


def test_packs_that_are_made_while_it_is_forgotten_keep_nothing_of_it(live: Live) -> None:
    made: list[str] = []
    begun, stop = threading.Barrier(4), threading.Event()

    def work() -> None:
        made.append(ask(live).id)
        begun.wait()
        while not stop.is_set():
            made.append(ask(live).id)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for one in threads:
        one.start()
    begun.wait()
    live.forget("chat", session="s1")
    live.delete("article", ["a"], erase=True)
    stop.set()
    for one in threads:
        one.join()
    assert live.packs.flush(60)
    assert live.packs.lost == 0
    for id in made:
        found = live.packs.get(id)
        assert found is not None
        # What is asked after it was forgotten is a new question, and its pack's own.
        text = json.dumps([section.items for section in found.sections if section.kind != "text"], default=str)
        assert [word for word in ("zebra", "Friday", "walnut") if word in text] == []
