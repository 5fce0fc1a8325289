"""Inverted lists: exact BM25, whatever comes and goes, and by the shorter way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stores.vectors import postings as module
from headrace.stores.vectors.base import Terms
from headrace.stores.vectors.postings import Postings, idf


def _terms(words: dict[int, float]) -> Terms:
    ids = sorted(words)
    return Terms(np.array(ids, np.uint32), np.array([words[one] for one in ids], np.float32))


_TEXTS = st.dictionaries(st.integers(0, 6) | st.just(2**32 - 1), st.sampled_from([0.5, 1.0, 2.0]), max_size=5)
_WRITES = st.lists(st.dictionaries(st.integers(0, 11), st.none() | _TEXTS, max_size=8), min_size=1, max_size=6)


@pytest.fixture(autouse=True)
def _short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORTH_CLEANING", 2)
    monkeypatch.setattr(module, "_LONG", 0)


@given(writes=_WRITES, question=_TEXTS, k=st.integers(1, 5), odd=st.booleans())
def test_the_best_are_those_of_the_formula(
    writes: list[dict[int, dict[int, float] | None]], question: dict[int, float], k: int, odd: bool
) -> None:
    """Slots are used again at once, which only their stamps tell."""
    held: dict[int, dict[int, float]] = {}
    stamps, stamp, postings = np.zeros(12, np.uint32), 0, Postings()
    for write in writes:
        for slot, text in write.items():
            if slot in held:
                stamps[slot] = 0
                postings.remove([_terms(held.pop(slot)).ids], stamps)
            if text is not None:
                stamp += 1
                stamps[slot] = stamp
                postings.add([_terms(text)], [slot], [stamp])
                held[slot] = text
    frequency = {word: sum(word in text for text in held.values()) for word in question}
    scores = {
        slot: sum(weight * text.get(word, 0.0) * idf(len(held), frequency[word]) for word, weight in question.items())
        for slot, text in held.items()
    }
    assert {word: postings.frequency(word) for word in question} == frequency
    view = postings.view(_terms(question), len(held))
    assert {n: score for n, score in enumerate(view.scores(stamps).tolist()) if score} == pytest.approx(
        {slot: score for slot, score in scores.items() if score}, rel=1e-5
    )
    passing = np.arange(12) % 2 == 1 if odd else None
    expected = sorted((score for slot, score in scores.items() if score and (slot % 2 or not odd)), reverse=True)[:k]
    found = view.best(k, stamps, passing, lambda slot: _terms(held[slot]))
    assert [score for _, score in found] == pytest.approx(expected, rel=1e-5)
    assert [scores[slot] for slot, _ in found] == pytest.approx(expected, rel=1e-5)


def test_lists_that_add_too_little_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that nearly all have is looked up in the few that can still be among the best."""
    monkeypatch.setattr(module, "_LONG", 100)
    postings, stamps = Postings(), np.arange(1, 1_001, dtype=np.uint32)
    texts = [_terms({1: 1.0} | ({2: 1.0 + n / 1_000} if n % 50 == 0 else {})) for n in range(1_000)]
    postings.add(texts, range(1_000), stamps.tolist())
    looked_up: list[int] = []

    def weights_of(slot: int) -> Terms:
        looked_up.append(slot)
        return texts[slot]

    view = postings.view(_terms({1: 1.0, 2: 1.0}), 1_000)
    found = view.best(3, stamps, None, weights_of)
    assert [slot for slot, _ in found] == [950, 900, 850]
    assert 3 <= len(looked_up) <= 20
    scores = view.scores(stamps)
    assert [score for _, score in found] == pytest.approx([float(scores[slot]) for slot, _ in found])
