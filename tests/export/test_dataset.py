"""Passages, how they are asked for and written, and the sides that documents are on."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.dataset import Recipe, Templates, line, oldest, side
from headrace.documents.passages import Passage, estimated, passages
from headrace.errors import ConfigError, InputError

GUIDE = """\
A lead.

# Rivers

Water runs.

It runs down.

## Mills

A wheel turns.
"""
_TEXT = st.text("ab é#\n-`", max_size=300)


def cut(text: str, title: str = "", format: str = "markdown", least: int = 1, most: int = 100) -> list[Passage]:
    return passages(title, text, format, least=least, most=most)[0]


def test_a_section_is_a_passage_under_its_heading() -> None:
    found = [(one.heading, one.path, one.text) for one in cut(GUIDE, "Guide")]
    assert found == [
        ("", (), "A lead."),
        ("Rivers", ("Rivers",), "Water runs.\n\nIt runs down."),
        ("Mills", ("Rivers", "Mills"), "A wheel turns."),
    ]


def test_a_long_section_is_cut_between_its_blocks() -> None:
    """Each further part knows what came before it, and no word is in two."""
    text = "# Rivers\n\n" + "\n\n".join(f"Paragraph {n} of some words." for n in range(6))
    found = cut(text, most=16)
    assert [(one.heading, one.before == before, estimated(one.text)) for one, before in zip(
        found, ["", *(one.text for one in found)], strict=False
    )] == [("Rivers", True, 14)] * 3  # fmt: skip
    assert "\n\n".join(one.text for one in found) == text.removeprefix("# Rivers\n\n")


def test_what_has_no_name_can_only_be_gone_on_from() -> None:
    """Without title and heading the first half is what is given; one block alone cannot be asked for."""
    (found,) = cut("One paragraph.\n\nAnother one.", format="plain")
    assert (found.before, found.text) == ("One paragraph.", "Another one.")
    assert passages("", "One paragraph.", "plain", least=1, most=100) == ([], Counter(no_prompt=1))


def test_what_is_too_short_or_too_long_is_counted() -> None:
    text = "# A\n\nshort\n\n# B\n\n" + "long " * 100 + "\n\n# C\n\nJust right, as it is said."
    found, removed = passages("", text, "markdown", least=4, most=50)
    assert ([one.heading for one in found], removed) == (["C"], Counter(too_short=1, too_long=1))


def test_a_definition_of_a_program_is_a_passage() -> None:
    text = 'import os\n\n\ndef first():\n    return 1\n\n\nclass Second:\n    """Two."""\n'
    found = [(one.heading, one.text.splitlines()[0]) for one in cut(text, "m.py", "python")]
    assert found == [("", "import os"), ("def first", "def first():"), ("class Second", "class Second:")]


@given(text=_TEXT, title=st.sampled_from(["", "T"]), most=st.integers(1, 40), least=st.integers(1, 3))
def test_passages_hold_their_bounds(text: str, title: str, most: int, least: int) -> None:
    """Each is a part of the text within the limits, in order, and nothing stands in two."""
    found = passages(title, text, "markdown", least=min(least, most), most=most)[0]
    at = 0
    for one in found:
        assert (one.start >= at, text[one.start : one.end]) == (True, one.text)
        assert min(least, most) <= estimated(one.text) <= most
        assert estimated(one.before) <= most
        at = one.end


def test_how_a_passage_is_asked_for() -> None:
    lead, rivers, mills = cut(GUIDE, "Guide")
    (whole,) = cut("All of it.", "Guide")
    (untitled,) = cut("# Rivers\n\nWater.")
    asked = Templates()
    assert [asked(one) for one in (lead, rivers, mills, whole, untitled)] == [
        ('Write the beginning of "Guide".', ""),
        ('Write the section "Rivers" of "Guide".', ""),
        ('Write the section "Mills" of "Guide".', ""),
        ('Write "Guide".', ""),
        ('Write the section "Rivers".', ""),
    ]
    (_, program) = cut("import os\n\n\ndef first():\n    return 1\n", "m.py", "python")
    assert asked(program) == ('Write `def first` of "m.py", in python.', "")
    (_, later) = cut("# R\n\n" + "\n\n".join(["Some words and more."] * 2), most=6)
    assert asked(later) == ("Continue this text.", "Some words and more.")


def test_templates_are_checked_when_they_are_given() -> None:
    with pytest.raises(ConfigError, match=r"no \{heeding\} to show; did you mean 'heading'"):
        Templates.of({"section": "On {heeding}"})
    with pytest.raises(ConfigError, match="no template 'sections'; did you mean 'section'"):
        Templates.of({"sections": "On {heading}"})
    with pytest.raises(ConfigError, match="expected a format string"):
        Templates.of({"section": "On {heading"})
    with pytest.raises(ConfigError, match=r"no \{title.__class__\} to show"):
        Templates.of({"section": "On {title.__class__}"})


def test_the_formats_of_a_line() -> None:
    wording = ("Continue.", "One.")
    assert [line(format, wording, "Two.", "Be brief.") for format in ("chat", "instruction", "completion", "text")] == [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Continue.\n\nOne."},
                {"role": "assistant", "content": "Two."},
            ]
        },
        {"instruction": "Continue.", "input": "One.", "output": "Two."},
        {"prompt": "Continue.\n\nOne.", "completion": "Two."},
        {"text": "Two."},
    ]
    assert line("chat", ("Write.", ""), "Two.")["messages"][0] == {"role": "user", "content": "Write."}


@given(keys=st.sets(st.text(max_size=8), max_size=50), seed=st.integers(0, 9))
def test_a_document_stays_on_its_side(keys: set[str], seed: int) -> None:
    """A side depends on the key and the seed alone, and a larger share for the test takes none out of it."""
    small = {key for key in keys if side(key, seed, 0.2) == "test"}
    large = {key for key in keys if side(key, seed, 0.5) == "test"}
    assert small <= large
    assert {side(key, seed, 0.0) for key in keys} <= {"train"}


def test_the_share_is_about_what_was_asked_for() -> None:
    on_test = sum(side(f"doc-{n}", 1, 0.2) == "test" for n in range(5000))
    assert 900 < on_test < 1100
    assert [side(f"doc-{n}", 1, 0.5) for n in range(50)] != [side(f"doc-{n}", 2, 0.5) for n in range(50)]


def test_the_oldest_of_a_group_is_kept() -> None:
    ages = [(3, "a"), (1, "b"), (1, "c"), (2, "d")]
    assert oldest([0, 0, 0, 3], ages) == [False, True, False, True]


@pytest.mark.parametrize(
    "given", [{"test": 1.0}, {"near": 0.0}, {"near": 1.5}, {"least": 0}, {"least": 5, "most": 4}, {"format": "csv"}]
)
def test_a_recipe_that_cannot_be_followed(given: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Recipe(**given)  # type: ignore[arg-type]
