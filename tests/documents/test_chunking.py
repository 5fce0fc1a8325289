"""Chunks: they hold the text, fit the limit, read well, and stay when the text is edited elsewhere."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise

import pytest
from document_samples import FORMATS, MARKDOWN, PYTHON, RST, SAMPLES, TEXTS, GreedyTokenizer, WordTokenizer, prose
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.chunk import Chunking, chunk, chunking
from headrace.documents.identity import identified
from headrace.documents.states import Piece
from headrace.errors import ConfigError

_TOKENIZERS = [WordTokenizer(), GreedyTokenizer()]


def _holds(pieces: list[Piece], text: str) -> None:
    place = 0
    for piece in pieces:
        assert piece.text == text[piece.start : piece.end]
        assert not text[place : piece.start].strip()
        assert piece.end > place
        place = piece.end
    assert not text[place:].strip()
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)


@given(TEXTS, FORMATS, st.sampled_from([16, 24, 64]), st.sampled_from([0, 4]), st.sampled_from(_TOKENIZERS))
def test_pieces_hold_the_text_and_fit(
    text: str, format: str, tokens: int, overlap: int, tokenizer: WordTokenizer
) -> None:
    pieces = chunk(tokens, overlap).split(text, format, tokenizer, "A title of some length, which is cut if need be")
    _holds(pieces, text)
    assert max((len(tokenizer.offsets(piece.embedded)) for piece in pieces), default=0) <= tokens


def test_an_empty_text_has_no_chunks() -> None:
    assert chunk().split(" \n\n\t\n", "markdown", WordTokenizer(), "Title") == []


def test_headings_stand_above_and_are_not_said_twice() -> None:
    pieces = chunk(32, 0).split(MARKDOWN, "markdown", WordTokenizer(), "Mills")
    assert [(piece.headings, piece.embedded.split("\n")[:2]) for piece in pieces] == [
        (("Mills", "The mill"), ["Mills", "The mill"]),
        (("Mills", "The mill", "The wheel"), ["Mills > The mill", "The wheel"]),
        (("Mills", "The mill", "The wheel"), ["Mills > The mill > The wheel", "```python"]),
        (("Mills", "The mill", "The wheel"), ["Mills > The mill > The wheel", "| part | made of | | axle | iron |"]),
        (("Mills", "The mill", "Setext too"), ["Mills > The mill", "Setext too"]),
    ]


def test_small_sections_share_a_chunk_under_their_common_heading() -> None:
    text = "# Parts\n\n" + "\n\n".join(f"## Part {n}\n\nA few words on it." for n in range(4))
    pieces = chunk(64, 0).split(text, "markdown", WordTokenizer())
    assert {piece.headings for piece in pieces} <= {("Parts",), ("Parts", "Part 3")}
    assert len(pieces) <= 2


def test_what_is_embedded_leaves_out_marks_and_wrapping() -> None:
    text = "A *long* paragraph\nof ``two`` lines [1]_, see :ref:`this <there>`.\n\n=====  =====\na      b\n=====  ====="
    (piece,) = chunk(64, 0).split(text, "rst", WordTokenizer())
    assert piece.embedded == "A long paragraph of two lines, see this.\na b"
    assert piece.text == text


def test_code_keeps_its_lines() -> None:
    pieces = chunk(40, 0).split(PYTHON, "python", WordTokenizer())
    turn = next(piece for piece in pieces if piece.headings == ("def turn",))
    assert turn.embedded.split("\n")[:3] == ["def turn", "# Turns.", "@decorated"]
    assert "    if speed > LIMIT:" in turn.embedded


def test_a_fence_stays_whole_where_it_fits() -> None:
    for piece in chunk(32, 0).split(MARKDOWN, "markdown", WordTokenizer()):
        assert piece.text.count("```") in (0, 2)


def test_only_a_block_that_is_cut_overlaps() -> None:
    words = " ".join(f"w{n}" for n in range(200))
    sentences = ". ".join(f"Sentence {n} has some words" for n in range(40))
    text = f"Short.\n\n{sentences}.\n\nShort again.\n\n{words}"
    pieces = chunk(32, 8).split(text, "plain", WordTokenizer())
    long = [piece for piece in pieces if piece.start > 10 and "Sentence" in piece.text]
    overlaps = [one.end - other.start for one, other in pairwise(long)]
    assert min(overlaps) > 0
    assert all(piece.start == 0 or text[piece.start - 1].isspace() for piece in pieces)
    none = chunk(32, 0).split(text, "plain", WordTokenizer())
    assert all(one.end <= other.start for one, other in pairwise(none))


@pytest.mark.parametrize("format", ["plain", "markdown", "rst", "python", "go"])
def test_a_word_of_a_million_characters_is_cut(format: str) -> None:
    pieces = chunk(256, 32).split("x" * 1_000_000, format, WordTokenizer())
    assert max(len(piece.text) for piece in pieces) <= 256 * 16
    _holds(pieces, "x" * 1_000_000)


@pytest.mark.parametrize(
    "hostile",
    ["\n" * 300_000 + "x", "a\n\n" * 10_000, "# x\n" * 10_000, "- a\n" * 10_000, "a. " * 20_000, "=\n" * 20_000],
    ids=["lines", "paragraphs", "headings", "items", "sentences", "rules"],
)
def test_hostile_texts_take_linear_time(hostile: str) -> None:
    _holds(chunk(128, 16).split(hostile, "markdown", WordTokenizer()), hostile)


def _edited(text: str, chance: random.Random) -> str:
    paragraphs = text.split("\n\n")
    place = chance.randrange(len(paragraphs))
    match chance.randrange(3):
        case 0:
            paragraphs.insert(place, prose(chance.randrange(10**6), 1).split("\n\n")[1])
        case 1:
            del paragraphs[place]
        case _:
            paragraphs[place] += " And one more sentence."
    return "\n\n".join(paragraphs)


@pytest.mark.parametrize("tokens", [128, 256])
def test_an_edit_changes_chunks_nearby_only_and_chunks_read_well(tokens: int) -> None:
    spec, tokenizer, chance = chunk(tokens), WordTokenizer(), random.Random(7)
    changed, sizes = [], []
    for seed in range(30):
        text = prose(seed, 60)
        after = _edited(text, chance)
        old, new = (identified("s", "d", spec.split(one, "markdown", tokenizer, "Mills")) for one in (text, after))
        changed.append(len({one.id for one in new} - {one.id for one in old}))
        sizes += [len(tokenizer.offsets(one.embedded)) for one in new]
    assert statistics.mean(changed) <= 3
    assert max(changed) <= 6
    assert statistics.median(sizes) >= 0.48 * tokens


def test_wrapping_anew_embeds_nothing_anew() -> None:
    text = prose(3, 30)
    wrapped = "\n\n".join(block if block.startswith("#") else " ".join(block.split()) for block in text.split("\n\n"))
    spec, tokenizer = chunk(64, 0), WordTokenizer()
    hashes = [
        {one.hash for one in identified("s", "d", spec.split(given, "markdown", tokenizer))}
        for given in (text, wrapped)
    ]
    assert hashes[0] == hashes[1]


def test_cutting_again_after_an_edit_counts_only_the_edit() -> None:
    tokenizer, spec, text = WordTokenizer(), chunk(128), prose(11, 60)
    spec.split(text, "markdown", tokenizer, "Mills")
    whole = tokenizer.characters
    spec.split(text, "markdown", tokenizer, "Mills")
    assert tokenizer.characters == whole
    spec.split(text.replace("Part", "Piece", 1), "markdown", tokenizer, "Mills")
    assert tokenizer.characters - whole < whole / 5


@pytest.mark.parametrize("format", sorted(SAMPLES))
def test_the_same_text_is_cut_the_same(format: str) -> None:
    cut = [chunk(24, 4).split(SAMPLES[format], format, WordTokenizer(), "T") for _ in range(2)]
    assert cut[0] == cut[1]


def test_the_fingerprint_tells_settings() -> None:
    specs = [chunk(), chunk(128), chunk(overlap=0), chunk(floor=0.4), chunk(by=str.split), chunk(by=str.splitlines)]
    assert len({spec.fingerprint for spec in specs}) == len(specs)
    assert chunk().fingerprint == Chunking().fingerprint == chunking(None).fingerprint


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": 3},
        {"tokens": "256"},
        {"overlap": 200},
        {"overlap": -1},
        {"floor": 0},
        {"floor": 1},
        {"by": "lines"},
        {"by": 3},
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"hr\.chunk: expected"):
        chunk(**wrong)  # type: ignore[arg-type]


def test_a_heading_path_is_cut_to_its_share() -> None:
    text = (
        "".join(f"{'#' * level} {'a long heading of many words ' * 4}{level}\n\n" for level in range(1, 7)) + "Words."
    )
    tokenizer = WordTokenizer()
    pieces = chunk(32, 0).split(text + RST, "markdown", tokenizer, "A title that is itself too long for this " * 3)
    assert max(len(tokenizer.offsets(piece.embedded)) for piece in pieces) <= 32
