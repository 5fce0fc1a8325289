"""Custom splitters: functions, LangChain's and Chonkie's own."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from document_samples import MARKDOWN, WordTokenizer, prose

from headrace.documents.chunk import chunk, chunking
from headrace.errors import InputError

_TEXT = prose(5, 20)


def _langchain() -> Any:
    return pytest.importorskip("langchain_text_splitters").RecursiveCharacterTextSplitter(
        chunk_size=300, chunk_overlap=60
    )


def _chonkie() -> Any:
    return pytest.importorskip("chonkie").SentenceChunker(chunk_size=300, chunk_overlap=0)


@pytest.mark.parametrize("make", [_langchain, _chonkie], ids=["langchain", "chonkie"])
def test_splitters_of_others_plug_in(make: Callable[[], Any]) -> None:
    splitter = make()
    expected = [
        one if isinstance(one, str) else one.text
        for one in (splitter.split_text(_TEXT) if hasattr(splitter, "split_text") else splitter.chunk(_TEXT))
    ]
    pieces = chunking(splitter).split(_TEXT, "markdown", WordTokenizer(), "Mills")
    assert [piece.text for piece in pieces] == [one for one in expected if one.strip()]
    assert all(_TEXT[piece.start : piece.end] == piece.text for piece in pieces)
    assert pieces[-1].headings[0] == "Mills"
    assert pieces[-1].headings[1].startswith("Part ")


def test_a_function_splits_and_equal_pieces_have_their_own_places() -> None:
    pieces = chunk(by=lambda text: text.split("|")).split("again|and|again| ", "plain", WordTokenizer())
    assert [(piece.text, piece.start, piece.end) for piece in pieces] == [
        ("again", 0, 5),
        ("and", 6, 9),
        ("again", 10, 15),
    ]


def test_a_piece_that_is_not_in_the_text_has_no_place() -> None:
    (piece,) = chunk(by=lambda text: [text.upper()]).split("# A\n\nwords", "markdown", WordTokenizer(), "T")
    assert (piece.text, piece.start, piece.end, piece.headings) == ("# A\n\nWORDS", -1, -1, ("T",))


def test_an_index_that_is_wrong_is_not_believed() -> None:
    given = [SimpleNamespace(text="two", start_index=0, end_index=3)]
    (piece,) = chunk(by=lambda text: given).split("one two", "plain", WordTokenizer())
    assert (piece.start, piece.end) == (4, 7)


def test_a_piece_over_the_limit_is_cut() -> None:
    tokenizer = WordTokenizer()
    pieces = chunk(32, 0, by=lambda text: [text]).split(MARKDOWN, "markdown", tokenizer, "Mills")
    assert len(pieces) > 1
    assert max(len(tokenizer.offsets(piece.embedded)) for piece in pieces) <= 32
    assert "".join(piece.text for piece in pieces) == MARKDOWN


@pytest.mark.parametrize(
    ("splitter", "said"),
    [
        (lambda text: text, "expected a list of texts, found str"),
        (lambda text: 3, "expected a list of texts, found int"),
        (lambda text: [3], "expected texts, or objects with a text, found 3"),
        (lambda text: {}[text], "failed on a text of 5 characters: KeyError"),
    ],
)
def test_a_splitter_that_fails_is_named(splitter: Callable[[str], Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        chunk(by=splitter).split("words", "plain", WordTokenizer())
    assert "<lambda>" in str(caught.value)
