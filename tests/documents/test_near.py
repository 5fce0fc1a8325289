"""Near-duplicates are found, what is merely alike is not, and bad cases stay linear."""

from __future__ import annotations

import itertools

import pytest
from document_samples import prose
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.near import groups, shingles, similarity
from headrace.errors import ConfigError


def test_copies_with_small_edits_share_a_group() -> None:
    texts = [prose(1, 30), prose(2, 30), prose(1, 30) + " One more line.", prose(2, 30).upper(), prose(3, 30)]
    assert groups(texts).tolist() == [0, 1, 0, 1, 4]


def test_texts_without_words_are_alike_only_if_equal() -> None:
    assert groups(["", "!?", "", "...", "!?", "one"]).tolist() == [0, 1, 0, 3, 1, 5]


def test_little_or_nothing() -> None:
    assert groups([]).tolist() == []
    assert groups(["one"]).tolist() == [0]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 1.0])
def test_pairs_above_the_threshold_are_found_as_comparing_all_would(threshold: float) -> None:
    base = prose(9, 20).split()
    texts = [" ".join(base[:-cut] if cut else base) for cut in (0, 3, 10, 30, 60, 100)] + [prose(4, 20)]
    sets = [shingles(text) for text in texts]
    expected = list(range(len(texts)))
    for one, other in itertools.combinations(range(len(texts)), 2):
        if similarity(sets[one], sets[other]) >= threshold:
            joined = {expected[one], expected[other]}
            expected = [min(joined) if each in joined else each for each in expected]
    assert groups(texts, threshold).tolist() == expected


@given(st.lists(st.sampled_from(["a b c d e f g", "h i j k l m n", "x", ""]), max_size=20))
def test_equal_texts_share_the_group_of_the_first(texts: list[str]) -> None:
    assert groups(texts).tolist() == [texts.index(text) for text in texts]


def test_many_equal_texts_take_linear_time() -> None:
    assert set(groups(["the same words in every one of these texts"] * 3000).tolist()) == {0}


def test_a_threshold_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1, found 2"):
        groups(["a", "b"], 2)
