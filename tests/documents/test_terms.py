"""Words as terms: identifiers, versions, scripts without blanks; and BM25 as the sum of what is made of them."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.terms import AVERAGE_LENGTH, K1, B, expand, query_terms, terms


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Wheel", ["wheel"]),
        ("read_many", ["read_many", "read", "many"]),
        ("readManyRows", ["readmanyrows", "read", "many", "rows"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("__init__", ["__init__"]),
        ("3.11.7", ["3.11.7", "3.11"]),
        ("x", ["x"]),
        ("中文字", ["中文", "文字"]),
        ("水", ["水"]),
        ("Python中文", ["python", "中文"]),
        ("Straße", ["strasse"]),
    ],
)
def test_what_a_word_stands_for(word: str, expected: list[str]) -> None:
    assert expand(word) == expected


def test_weights_are_bm25s_own_part() -> None:
    ((ids, weights),) = terms(["water water wheel"])
    norm = K1 * (1 - B + B * 3 / AVERAGE_LENGTH)
    expected = {
        xxhash.xxh32_intdigest(b"water"): 2 * (K1 + 1) / (2 + norm),
        xxhash.xxh32_intdigest(b"wheel"): 1 * (K1 + 1) / (1 + norm),
    }
    assert dict(zip(ids.tolist(), weights.tolist(), strict=True)) == pytest.approx(expected)


def test_a_query_counts_what_is_asked_for() -> None:
    ids, weights = query_terms("Water, water or WHEEL?")
    assert sorted(weights.tolist()) == [1, 1, 2]
    assert set(ids.tolist()) >= set(query_terms("wheel")[0].tolist())


@given(st.lists(st.text(max_size=80), max_size=5))
def test_ids_ascend_and_stand_once(texts: list[str]) -> None:
    for ids, weights in [*terms(texts), *map(query_terms, texts)]:
        assert (ids.dtype, weights.dtype, ids.shape) == (np.uint32, np.float32, weights.shape)
        assert (np.diff(ids.astype(np.int64)) > 0).all()
        assert (weights > 0).all()


def test_a_dot_product_with_document_frequencies_is_bm25() -> None:
    texts = ["water turns the wheel", "the miller grinds grain", "water water everywhere and no grain to grind"]
    made = terms(texts)
    frequency = Counter(term for ids, _ in made for term in ids.tolist())
    for word in ("water", "grain", "wheel", "absent"):
        wanted = set(query_terms(word)[0].tolist())
        for text, (ids, weights) in zip(texts, made, strict=True):
            words = re.findall(r"\w+", text)
            idf = math.log(1 + (3 - frequency[min(wanted)] + 0.5) / (frequency[min(wanted)] + 0.5))
            count = words.count(word)
            norm = K1 * (1 - B + B * len(words) / AVERAGE_LENGTH)
            expected = idf * count * (K1 + 1) / (count + norm)
            found = sum(
                idf * weight for term, weight in zip(ids.tolist(), weights.tolist(), strict=True) if term in wanted
            )
            assert found == pytest.approx(expected)


@pytest.mark.parametrize("hostile", ["x" * 1_000_000, "_" * 1_000_000, "1." * 500_000, "aB" * 500_000, "中" * 300_000])
def test_hostile_texts_take_linear_time(hostile: str) -> None:
    ((ids, _),) = terms([hostile])
    assert 1 <= len(ids) <= len(hostile)
