"""What a context, a memory, a table and changes do, in process, over HTTP and from an event loop: the same."""

from __future__ import annotations

from typing import Any

import pytest
from client_desk import Note, paid

import headrace as hr
from headrace.serving.live_changes import Change

MINUTE = 60.0


def test_a_table_is_written_searched_and_deleted_from(each: Any) -> None:
    token = each.push(Note, [Note(id="n1", body="Two people look at a large payment.")])
    (hit,) = each.search("library", "large payment", after=token, k=1)
    assert (token.accepted, hit.document) == (1, "n1")
    gone = each.delete("note", ["n1"])
    assert (gone.accepted, each.search("library", "large payment", after=gone)) == (1, [])


def test_a_pack_is_made_and_kept(each: Any) -> None:
    token = each.push("payment", paid(5.0))
    pack = each.context("case", user_id="u1", after=token)
    assert "total_1h: 5" in pack.render("markdown")
    assert each.pack(pack.id).render("markdown") == pack.render("markdown")
    assert each.replay(pack.id)["pack"]["id"] == pack.id
    for ask in (each.pack, each.replay):
        with pytest.raises(hr.UnknownNameError, match="there is no pack"):
            ask("pack_none")


def test_a_context_is_asked_with_arguments_that_it_has(each: Any) -> None:
    with pytest.raises(hr.InputError, match="user_id"):
        each.context("case")
    with pytest.raises(hr.UnknownNameError, match="did you mean 'case'"):
        each.context("cases", user_id="u1")


def test_turns_are_remembered_recalled_and_forgotten(each: Any) -> None:
    token = each.remember("talk", "s1", "user", "The harbour froze.")
    each.remember("talk", "s1", [{"role": "assistant", "content": "When?"}])
    found = each.recall("talk", "s1", after=token)
    assert (token.accepted, [one.text for one in found.turns]) == (1, ["The harbour froze.", "When?"])
    assert (each.forget("talk", session="s1", timeout=20), each.recall("talk", "s1").turns) == (2, [])
    with pytest.raises(hr.InputError, match="expected one of session="):
        each.forget("talk")


def test_a_change_tells_the_row_as_it_is(each: Any) -> None:
    with each.changes(view="spending", keys=["u1"]) as changes:
        each.push("payment", [paid(5.0), paid(7.0, "u2")])
        change = changes.next(timeout=MINUTE)
        assert type(change) is Change
        assert (change.event, change.data["view"], change.data["key"]) == ("features", "spending", {"user_id": "u1"})
        row = change.data["row"]
        assert isinstance(row, hr.Row)
        assert (row.total_1h, row.last_at) == (5.0, each.read("spending", "u1").last_at)


def test_a_composite_key_is_followed(each: Any) -> None:
    with each.changes(view="repeated", keys=[("u1", 0), {"user_id": "u2", "shop": 1}]) as changes:
        each.push("payment", [paid(5.0)])
        change = changes.next(timeout=MINUTE)
        assert change.data["key"] == {"user_id": "u1", "shop": 0}


def test_documents_rows_and_packs_are_followed(each: Any) -> None:
    each.push("payment", paid(5.0))
    each.drain()
    pack = each.context("case", user_id="u1")
    with each.changes(table=Note, collection="library", pack=pack.id) as changes:
        each.push(Note, [Note(id="n1", body="Two people look at large payments.")])
        each.push("payment", paid(1.0))
        found: dict[str, Change] = {}
        while set(found) != {"row", "document", "pack"}:
            change = changes.next(timeout=MINUTE)
            assert change is not None
            found[change.event] = change
    assert (found["row"].data["key"], found["row"].data["what"]) == ("n1", "written")
    assert (found["document"].data["document"], found["document"].data["collection"]) == ("n1", "library")
    assert found["pack"].data["pack"] == pack.id


def test_no_change_in_time_is_none_and_the_next_one_is_told(each: Any) -> None:
    with each.changes(view="spending", timeout=0.01) as changes:
        assert changes.next(timeout=0.01) is None
        assert list(changes) == []
        each.push("payment", paid(5.0))
        assert changes.next(timeout=MINUTE).data["row"].total_1h == 5.0
    assert changes.next() is None


@pytest.mark.parametrize(
    ("error", "words", "asked"),
    [
        (hr.UnknownNameError, "did you mean 'spending'", {"view": "spendin"}),
        (hr.UnknownNameError, "pack", {"pack": "pack_none"}),
        (hr.InputError, "subscribe to", {}),
        (hr.InputError, "subscribe to", {"view": "spending", "keys": []}),
        (hr.InputError, "put it into a list", {"view": "spending", "keys": "u1"}),
        (hr.InputError, "the view that", {"keys": ["u1"]}),
        (hr.InputError, "expected 2 key parts", {"view": "repeated", "keys": ["u1"]}),
    ],
)
def test_what_cannot_be_followed_is_refused(
    each: Any, error: type[Exception], words: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(error, match=words) as raised:
        each.changes(**asked)
    assert type(raised.value) is error
