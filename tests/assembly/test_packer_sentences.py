"""Where sentences end, and what texts are counted as."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.assembly.counting import Estimate
from headrace.assembly.sentences import last_end
from headrace.assembly.similar import Similar
from headrace.documents.near import shingles, similarity
from headrace.errors import ConfigError
from headrace.serving.token_counts import counter

COUNTER = Estimate()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One. Two is long", "One."),
        ("He met Dr. Smith today", ""),
        ("Use e.g. this one", ""),
        ("It is 3.5 metres", ""),
        ("Yes! And then", "Yes!"),
        ('She said "go." Then he', 'She said "go."'),
        ("开门。关门", "开门。"),
        ("「開けて。」と言", "「開けて。」"),
        ("first line\nsecond", "first line"),
        ("1. item one", ""),
        ("word" * 1000, ""),
        ("." * 100_000 + "x", ""),
        ("", ""),
    ],
)
def test_the_last_sentence_that_ends(text: str, kept: str) -> None:
    assert text[: last_end(text, len(text))] == kept


@given(st.text(alphabet="aB .!。\n\"'", max_size=60), st.integers(-1, 70))
def test_an_end_is_within_what_was_asked_for(text: str, most: int) -> None:
    end = last_end(text, most)
    assert 0 <= end <= max(0, min(most, len(text)))


@given(st.lists(st.text(max_size=30), max_size=6))
def test_the_estimate_of_a_whole_is_at_most_that_of_its_parts(texts: list[str]) -> None:
    parts = sum(map(COUNTER.count, texts))
    assert max(parts - len(texts), 0) <= COUNTER.count("".join(texts)) <= parts


@given(st.text(max_size=400) | st.text("abc ", max_size=2_000), st.integers(-1, 300))
def test_what_fits_fits(text: str, most: int) -> None:
    fits = COUNTER.fit(text, most)
    assert COUNTER.count(text[:fits]) <= max(most, 0)
    assert fits == len(text) or COUNTER.count(text[: fits + 8 + fits // 8]) >= most or fits + 8 + fits // 8 >= len(text)


def test_the_estimate_knows_code_and_chinese() -> None:
    assert COUNTER.count("The quick brown fox jumps over the lazy dog.") in range(9, 13)
    assert COUNTER.count("快速的棕色狐狸") in range(7, 10)
    assert COUNTER.count("{[(0,1)]}") > COUNTER.count("sentences")


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=5))
def test_similarity_is_that_of_shingles(texts: list[str]) -> None:
    similar, sets = Similar(texts), [shingles(text) for text in texts]
    for place, one in enumerate(sets):
        expected = [similarity(one, other) for other in sets]
        assert similar.to(place).tolist() == expected
        assert similar.to_text(texts[place]).tolist() == expected


def test_no_model_is_the_estimate_and_the_same_object() -> None:
    assert counter(None) is counter("estimate")
    assert counter().name == "estimate"


def test_an_unknown_model_is_estimated_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "headrace"):
        first, second = counter("no-such-model-a"), counter("no-such-model-a")
    assert (first is second, first.name, len(caplog.records)) == (True, "estimate (for no-such-model-a)", 1)


@pytest.mark.parametrize("spec", ["", " ", "tiktoken:", "tokenizers:"])
def test_a_spec_of_no_form_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="expected a model's name"):
        counter(spec)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no file"):
        counter(f"tokenizers:{tmp_path / 'missing.json'}")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ConfigError, match="found something else"):
        counter(f"tokenizers:{tmp_path / 't.json'}")


def test_a_tokenizer_file_counts(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"gate": 0, "open": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_truncation(2)
    made.save(str(tmp_path / "t.json"))
    counts = counter(f"tokenizers:{tmp_path / 't.json'}")
    text = "gate open " * 10_000
    assert (counts.count("gate open gate"), counts.count(text)) == (3, 20_000)
    assert counts.count(text[: counts.fit(text, 500)]) in range(480, 501)
    assert counts.count("gate \ud800") == 2
