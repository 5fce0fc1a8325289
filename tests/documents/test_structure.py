"""Blocks of texts: they hold all that is not blank, in order, under the right headings."""

from __future__ import annotations

import pytest
from document_samples import FORMATS, GO, MARKDOWN, OLD_PEP, PYTHON, RST, SAMPLES, TEXTS
from hypothesis import given

from headrace.documents.structure import formats
from headrace.documents.structure.parts import parts


def _shown(text: str, format: str) -> list[tuple[str, tuple[str, ...], str]]:
    return [(one.kind, one.path, text[one.start : one.end].split("\n")[0]) for one in formats.blocks(text, format)]


def test_markdown() -> None:
    assert _shown(MARKDOWN, "markdown") == [
        ("heading", ("The mill",), "# The mill"),
        ("paragraph", ("The mill",), "Water comes down the *headrace* and turns the wheel."),
        ("heading", ("The mill", "The wheel"), "## The wheel"),
        ("item", ("The mill", "The wheel"), "- oak paddles"),
        ("item", ("The mill", "The wheel"), "- an iron axle"),
        ("code", ("The mill", "The wheel"), "```python"),
        ("table", ("The mill", "The wheel"), "| part  | made of |"),
        ("heading", ("The mill", "Setext too"), "Setext too"),
        ("paragraph", ("The mill", "Setext too"), "The end."),
    ]


def test_restructuredtext() -> None:
    assert _shown(RST, "rst") == [
        ("heading", ("The mill",), "========"),
        ("paragraph", ("The mill",), "Water comes down the ``headrace``::"),
        ("code", ("The mill",), "    # literal,   kept"),
        ("paragraph", ("The mill",), "and turns the wheel [1]_."),
        ("heading", ("The mill", "The wheel"), "The wheel"),
        ("code", ("The mill", "The wheel"), ".. code-block:: python"),
        ("item", ("The mill", "The wheel"), "1. oak paddles"),
        ("item", ("The mill", "The wheel"), "2. an iron axle"),
        ("heading", ("The mill", "The wheel", "The axle"), "The axle"),
        ("paragraph", ("The mill", "The wheel", "The axle"), "Cast in the valley."),
        ("heading", ("The mill", "History"), "History"),
        ("table", ("The mill", "History"), "=====  ====="),
    ]


def test_a_plain_line_above_indented_text_is_a_heading() -> None:
    headings = [path for kind, path, _ in _shown(OLD_PEP, "plain") if kind == "heading"]
    assert headings == [("Introduction",), ("Details",)]


def test_python_is_cut_into_definitions_with_what_stands_right_above_them() -> None:
    shown = _shown(PYTHON, "python")
    assert [(path, line) for _, path, line in shown if path] == [
        (("def turn",), "# Turns."),
        (("class Wheel",), "class Wheel:"),
        (("class Wheel",), "    paddles = 8"),
        (("class Wheel", "def stop"), "    def stop(self):"),
        (("class Wheel", "def start"), "    async def start(self):"),
    ]
    turn = next(one for one in formats.blocks(PYTHON, "python") if one.path == ("def turn",))
    assert PYTHON[turn.start : turn.end].endswith("return speed")


def test_other_languages_are_cut_at_the_margin() -> None:
    assert [(path, line) for _, path, line in _shown(GO, "go")] == [
        ((), "package mill"),
        ((), 'import "fmt"'),
        (("func Turn(speed int) int",), "// Turn turns it."),
        (("type Wheel struct",), "type Wheel struct {"),
    ]


@given(TEXTS, FORMATS)
def test_blocks_hold_all_that_is_not_blank_in_order(text: str, format: str) -> None:
    place = 0
    for block in formats.blocks(text, format):
        assert not text[place : block.start].strip()
        assert block.start >= place
        assert text[block.start : block.end].strip()
        place = block.end
    assert not text[place:].strip()


@given(TEXTS, FORMATS)
def test_parts_hold_all_of_a_block(text: str, format: str) -> None:
    for block in formats.blocks(text, format):
        place = block.start
        for start, end in parts(text, block):
            assert not text[place:start].strip()
            assert place <= start < end <= block.end
            place = end
        assert not text[place : block.end].strip()


@pytest.mark.parametrize("format", ["markdown", "rst", "plain"])
def test_what_a_text_is_shows(format: str) -> None:
    assert formats.sniff(SAMPLES[format]) == format


@pytest.mark.parametrize(
    ("told", "expected"),
    [("md", "markdown"), (".py", "python"), ("text/x-rst", "rst"), ("Python", "python"), ("klingon", None)],
)
def test_names_of_formats(told: str, expected: str | None) -> None:
    assert formats.known(told) == expected


@pytest.mark.parametrize(
    "hostile",
    [
        "\n" * 300_000,
        "#" * 300_000,
        "=" * 300_000,
        "x\n=\n" * 60_000,
        "- " * 150_000,
        "```\n" * 60_000,
        "a::\n\n " * 40_000,
    ],
    ids=["lines", "hashes", "rule", "headings", "bullets", "fences", "literals"],
)
def test_hostile_texts_take_linear_time(hostile: str) -> None:
    # A quadratic scan of any of these takes minutes; the whole of pytest's patience is the limit.
    for format in ("markdown", "rst", "plain", "go"):
        assert len(formats.blocks(hostile, format)) <= len(hostile)
