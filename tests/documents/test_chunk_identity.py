"""A chunk's identity: the hash of what is embedded, whatever stands around it."""

from __future__ import annotations

import uuid

from headrace.documents.identity import content_hash, embedded, identified
from headrace.documents.states import Piece


def _pieces(*texts: str) -> list[Piece]:
    return [Piece(text, 10 * n, 10 * n + len(text)) for n, text in enumerate(texts)]


def test_ids_are_uuids_that_stay() -> None:
    (one,) = identified("space", "doc", _pieces("words"))
    assert uuid.UUID(one.id).version == 8
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
