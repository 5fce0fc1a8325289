"""Fusion by rank, and variety among the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.rank import blend, fuse, mmr
from headrace.errors import ConfigError


def test_fusion_is_reciprocal_rank() -> None:
    assert fuse([["a", "b", "c"], ["c", "a"]], 3) == [
        ("a", pytest.approx(1 / 61 + 1 / 62)),
        ("c", pytest.approx(1 / 63 + 1 / 61)),
        ("b", pytest.approx(1 / 62)),
    ]


def test_equal_scores_keep_the_order_of_the_lists() -> None:
    assert [one for one, _ in fuse([["a", "b"], ["c", "d"]], 4)] == ["a", "c", "b", "d"]


def test_weights_and_an_id_that_stands_twice() -> None:
    assert fuse([["a", "a"], ["b"]], 2, [1, 3]) == [("b", 3 / 61), ("a", 1 / 61)]
    with pytest.raises(ConfigError, match="a weight for each of 1 lists, found 2"):
        fuse([["a"]], 1, [1, 2])


@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=10), max_size=4), st.integers(0, 12))
def test_fusion_gives_the_best_of_what_is_there(lists: list[list[int]], k: int) -> None:
    found = fuse(lists, k)
    assert len(found) == min(k, len({one for each in lists for one in each}))
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def _unit(*rows: list[float]) -> np.ndarray:
    made = np.array(rows, dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_the_second_is_unlike_the_first() -> None:
    vectors = _unit([1, 0], [1, 0.01], [0, 1])
    scores = np.array([3.0, 2.9, 1.0])
    assert mmr(vectors, scores, 3, 0.5) == [0, 2, 1]
    assert mmr(vectors, scores, 2, 1.0) == [0, 1]


def test_mmr_of_little() -> None:
    assert mmr(np.zeros((0, 2), dtype=np.float32), np.zeros(0), 3) == []
    assert mmr(_unit([1, 0], [1, 0]), np.array([1.0, 1.0]), 5) == [0, 1]


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="a weight from 0 to 1, found 2"):
        mmr(_unit([1, 0]), np.ones(1), 1, 2)
    with pytest.raises(ConfigError, match=r"expected 2 vectors as rows, found an array of shape \(1, 2\)"):
        mmr(_unit([1, 0]), np.ones(2), 1)


def test_a_blend_knows_how_good_a_match_is() -> None:
    """The only text with a rare word wins over one that is mediocre by both; ranks would have it the other way."""
    meaning = [("near", 0.31), ("mediocre", 0.30), ("far", 0.10)]
    words = [("rare", 9.0), ("mediocre", 1.5), ("near", 1.0)]
    assert next(one for one, _ in blend([meaning], [words])) == "rare"
    assert fuse([["near", "mediocre", "far"], ["rare", "mediocre", "near"]], 1)[0][0] != "rare"


def test_a_blend_with_a_weight_of_one_list_is_that_list() -> None:
    meaning, words = [("a", 0.9), ("b", 0.5)], [("b", 4.0), ("c", 2.0)]
    assert blend([meaning], [words], 1.0) == [("b", 1.0), ("c", 0.5), ("a", 0.0)]
    assert [one for one, _ in blend([meaning], [], 0.0)] == ["a", "b"]
    assert blend([], [], 0.5) == []


def test_where_all_cosines_are_alike_the_words_decide() -> None:
    assert blend([[("a", 0.7), ("b", 0.7)]], [[("b", 2.0), ("a", 1.0)]])[0][0] == "b"


def test_a_blend_of_several_indexes_measures_words_by_the_best_of_all() -> None:
    found = dict(blend([[("a", 0.5)], [("b", 0.9)]], [[("a", 1.0)], [("b", 4.0)]], 0.6))
    assert found == pytest.approx({"a": 0.15, "b": 0.6})
    with pytest.raises(ConfigError):
        blend([], [], 1.5)
