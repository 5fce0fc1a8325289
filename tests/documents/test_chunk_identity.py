"""A chunk's identity, and what a revision changes."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.diff import Diff, Kept, Known, diff
from headrace.documents.identity import content_hash, embedded, identified
from headrace.documents.states import Chunk, Piece


def _pieces(*texts: str) -> list[Piece]:
    return [Piece(text, 10 * n, 10 * n + len(text)) for n, text in enumerate(texts)]


def _known(chunks: list[Chunk]) -> list[Known]:
    return [Known(one.id, one.number, one.start) for one in chunks]


def test_ids_are_uuids_that_stay() -> None:
    (one,) = identified("space", "doc", _pieces("words"))
    assert one.id == "0fd12bc1-a1cf-8c1d-b41c-8c3f8a8a80dc" or uuid.UUID(one.id).version == 8
    assert str(uuid.UUID(one.id)) == one.id
    assert uuid.UUID(one.id).variant == uuid.RFC_4122
    assert identified("space", "doc", _pieces("other", "words"))[1].id == one.id


def test_ids_differ_by_space_document_text_and_occurrence() -> None:
    found = [
        *identified("a", "bc", _pieces("words", "words")),
        *identified("ab", "c", _pieces("words")),
        *identified("a", "b", _pieces("words", "more")),
    ]
    assert len({one.id for one in found}) == len(found)


def test_what_is_embedded_is_what_is_hashed() -> None:
    pieces = [Piece("a  b", 0, 4, ("T", "H")), Piece("a  b", 0, 4, ("T", "H"), "T\na b")]
    assert [embedded(one) for one in pieces] == ["T > H\na  b", "T\na b"]
    assert [one.hash for one in identified("s", "d", pieces)] == [content_hash("T > H\na  b"), content_hash("T\na b")]


def test_blank_pieces_are_left_out_and_odd_text_is_no_obstacle() -> None:
    assert [one.text for one in identified("s", "d\ud800", _pieces("  ", "\ud800", ""))] == ["\ud800"]


def test_a_diff_tells_what_is_new_what_moved_and_what_goes() -> None:
    old = identified("s", "d", _pieces("a", "b", "c"))
    new = identified("s", "d", _pieces("a", "new", "b"))
    assert diff(_known(old), new) == Diff((new[1],), (Kept(new[0], False), Kept(new[2], True)), (old[2].id,))


@given(st.lists(st.sampled_from("abcdef"), max_size=12), st.lists(st.sampled_from("abcdef"), max_size=12))
def test_a_diff_applied_to_the_old_gives_the_new(before: list[str], after: list[str]) -> None:
    old, new = (identified("s", "d", _pieces(*texts)) for texts in (before, after))
    found = diff(_known(old), new)
    alive = {one.id for one in old} - set(found.removed) | {one.id for one in found.added}
    assert alive == {one.id for one in new}
    assert {one.chunk.id for one in found.kept} == {one.id for one in old} & {one.id for one in new}
    assert sorted([*found.added, *(one.chunk for one in found.kept)], key=lambda one: one.number) == new
