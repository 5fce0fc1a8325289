"""Cleaning: each step does what its name says, leaves code alone, and changes nothing the second time."""

from __future__ import annotations

import time

import pytest
from document_samples import FORMATS, MARKDOWN, RST, SAMPLES, TEXTS
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.clean import STEPS, Cleaning, clean, cleaning
from headrace.errors import ConfigError, InputError

_ALL = clean()


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("𝐁𝐨𝐥𝐝 𝘐𝘵𝘢𝘭𝘪𝘤 ｆｕｌｌ Ⓐ ﬁne", "Bold Italic full A fine"),
        ("“quoted” ‘it’s’ – and — so…", "\"quoted\" 'it's' - and - so..."),
        ("zero\u200bwidth soft\u00adhyphen \ufeffBOM \u202eturned", "zerowidth softhyphen BOM turned"),
        ("a\x00b\x07c\r\nd\re\u2028f", "abc\nd\ne\nf"),
        ("x² and ½ stay", "x² and ½ stay"),
        ("Cafe\u0301", "Café"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("a\U000e0041\U000e0042b", "ab"),
    ],
)
def test_characters(given_text: str, expected: str) -> None:
    assert _ALL.apply(given_text, "plain") == expected


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("We did it 🚀🎉 today", "We did it today"),
        ("family 👨‍👩‍👧‍👦 flag 🇩🇪 thumb 👍🏽 heart ❤️!", "family flag thumb heart !"),
        ("press 1️⃣", "press 1"),
        ("→ arrows ★ and ☎ stay", "→ arrows ★ and ☎ stay"),
    ],
)
def test_emoji(given_text: str, expected: str) -> None:
    assert _ALL.apply(given_text, "plain") == expected


@pytest.mark.parametrize(
    ("format", "given_text", "expected"),
    [
        ("plain", "see https://example.org/a_(b)?q=1, and www.example.org.", "see [link], and [link]."),
        ("markdown", "see [the docs](https://example.org/x) and <https://a.b>", "see the docs and [link]"),
        ("markdown", "![a wheel](wheel.png) turns", "a wheel turns"),
        ("rst", "see `the docs <https://example.org/x>`_ here", "see the docs here"),
    ],
)
def test_urls(format: str, given_text: str, expected: str) -> None:
    assert _ALL.apply(given_text, format) == expected


def test_bullets_and_blanks() -> None:
    assert _ALL.apply("\n\n• one   two \n  ◦ three\t\n\n\n\n► four\n", "plain") == "- one two\n  - three\n\n- four"


@pytest.mark.parametrize(
    "notice",
    [
        "Skip to main content",
        "Share this article",
        "Share on Facebook, Twitter and LinkedIn",
        "We use cookies to improve your experience.",
        "Accept all cookies",
        "Subscribe to our weekly newsletter!",
        "Home > Blog > Milling",
        "Back to top",
    ],
)
def test_boilerplate_goes(notice: str) -> None:
    assert _ALL.apply(f"The text.\n\n{notice}\n\nMore text.", "markdown") == "The text.\n\nMore text."


@pytest.mark.parametrize(
    "line",
    [
        "# Share this article",
        "We use cookies in section 3 as an example; browsers send them back." * 8,
        "Homes > sheds, the survey found.",
        "Share this memory between processes only if you must.",
        "Related work is discussed below.",
        "Read more books.",
    ],
)
def test_text_that_only_looks_a_little_like_it_stays(line: str) -> None:
    assert _ALL.apply(line, "markdown") == line


@pytest.mark.parametrize("format", ["markdown", "rst"])
def test_code_within_prose_is_left_alone(format: str) -> None:
    code = "    x = “https://a.b”   # 🚀  two  blanks\n\n\n\n    • y"
    text = f"Words  words::\n\n{code}\n\nmore  words"
    assert _ALL.apply(text, format) == f"Words words::\n\n{code}\n\nmore words"


def test_a_program_is_left_alone_but_for_what_cannot_be_seen() -> None:
    assert _ALL.apply("\ufeffx = “a”  # https://a.b 🚀\r\n\tif  y:\u202e pass", "python") == (
        "x = “a”  # https://a.b 🚀\n\tif  y: pass"
    )


def test_columns_stay_aligned() -> None:
    table = "num    title\n----   -----\n1      Purpose\n2      Modules"
    assert _ALL.apply(f"A  table:\n\n{table}", "plain") == f"A table:\n\n{table}"


@pytest.mark.parametrize("step", STEPS)
def test_each_step_can_be_left_out(step: str) -> None:
    rests = {
        "unicode": "𝐁", "urls": "https://a.b", "emoji": "🚀", "bullets": "• one", "boilerplate": "Share this article",
        "whitespace": "two  blanks",
    }  # fmt: skip
    assert rests[step] not in _ALL.apply(rests[step], "plain")
    assert rests[step] in clean(without=step).apply(rests[step], "plain")


@given(TEXTS, FORMATS)
def test_cleaning_twice_changes_nothing(text: str, format: str) -> None:
    once = _ALL.apply(text, format)
    assert _ALL.apply(once, format) == once


_BITS = st.sampled_from(
    ["•", "🚀", "\u200d", "\ufe0f", "[", "](", ")", "https://", "a.b", "`", "<", ">`_", " ", "  ", "\n",
        "\n\n", "- ", "x",
     "Share this", "“", "𝐁", "\u0301", "    ", "```", "::", "www.", "!", "\t", "home", ">"]
)  # fmt: skip


@given(st.lists(_BITS, max_size=40).map("".join), FORMATS)
def test_cleaning_pieces_of_markup_twice_changes_nothing(text: str, format: str) -> None:
    once = _ALL.apply(text, format)
    assert _ALL.apply(once, format) == once


@pytest.mark.parametrize("format", sorted(SAMPLES))
def test_what_is_clean_stays(format: str) -> None:
    text = SAMPLES[format].rstrip()
    assert _ALL.apply(text, format) == (text if format in ("python", "go") else _ALL.apply(text, format))
    assert MARKDOWN.split("```")[1] in _ALL.apply(MARKDOWN, "markdown")
    assert "    # literal,   kept" in _ALL.apply(RST, "rst")


@pytest.mark.parametrize(
    "hostile",
    [
        "x" * 1_000_000, "\n" * 500_000, " " * 1_000_000 + "x", "[" * 200_000, "[a](" * 100_000, "`a <" * 100_000,
        "http://" * 100_000, "www." * 200_000, "• " * 300_000, "\u200d\ufe0f" * 200_000, "<http://" + "." * 500_000,
        "Home" + " > a" * 200_000, "![" * 200_000 + "](" * 200_000, "a  " * 300_000, "::\n\n  " * 30_000,
    ],
    ids=range(15),
)  # fmt: skip
def test_hostile_texts_take_linear_time(hostile: str) -> None:
    began = time.process_time()
    for format in ("markdown", "plain"):
        _ALL.apply(hostile, format)
    assert time.process_time() - began < 20


def test_a_function_of_the_user_comes_last() -> None:
    assert clean(then=(str.upper, lambda text: text + "!")).apply("𝐁  old", "plain") == "B OLD!"


def test_a_function_that_fails_names_itself() -> None:
    def broken(text: str) -> str:
        raise KeyError("missing")

    with pytest.raises(InputError, match=r"broken failed: KeyError"):
        clean(then=(broken,)).apply("x", "plain")
    with pytest.raises(InputError, match=r"expected a text, found int"):
        clean(then=(len,)).apply("x", "plain")


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no step 'emojis'; did you mean 'emoji'"):
        clean(without="emojis")


def test_what_can_be_given_for_cleaning() -> None:
    assert cleaning(None) == cleaning(True) == Cleaning()
    assert cleaning(False).apply("𝐁  🚀", "plain") == "𝐁  🚀"
    assert cleaning(str.upper).then == (str.upper,)
    with pytest.raises(ConfigError, match="expected clean to be"):
        cleaning(3)


def test_the_fingerprint_tells_steps_and_functions() -> None:
    def first(text: str) -> str:
        return text

    def second(text: str) -> str:
        return text + ""

    specs = [clean(), clean(without="emoji"), clean(then=(first,)), clean(then=(second,)), clean(then=(first, second))]
    assert len({spec.fingerprint for spec in specs}) == len(specs)
    assert clean(then=(first,)).fingerprint == clean(then=(first,)).fingerprint
