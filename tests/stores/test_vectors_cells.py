"""Cells: whatever comes and goes, every vector is in one cell, and the nearest are found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stores.vectors import cells as module
from headrace.stores.vectors.cells import Cells

DIMENSION = 24


def _vectors(count: int, *seed: int) -> np.ndarray:
    """Clusters of a few dimensions, and a little in all."""
    rng = np.random.default_rng(seed or (1,))
    shape = np.random.default_rng(0)
    centres, spread = shape.standard_normal((20, 6)), shape.standard_normal((6, DIMENSION))
    inside = (centres[rng.integers(0, 20, count)] + 0.5 * rng.standard_normal((count, 6))) @ spread
    found = (inside + 0.2 * rng.standard_normal((count, DIMENSION))).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _check(cells: Cells, held: dict[int, np.ndarray]) -> None:
    """Each slot is where the tables say, with its vector, and nothing else is anywhere."""
    _, members, vectors = cells.dump()
    seen = {int(slot): rows[n] for slots, rows in zip(members, vectors, strict=True) for n, slot in enumerate(slots)}
    assert sum(map(len, members)) == len(held) == len(seen)
    assert all(np.array_equal(seen[slot], vector) for slot, vector in held.items())
    assert all(cells._cells[cells._cell[slot]].slots[cells._row[slot]] == slot for slot in held), (
        "a slot is not where it is said to be"
    )


@pytest.fixture(autouse=True)
def _small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 24)
    monkeypatch.setattr(module, "SMALLEST", 4)


@given(turns=st.lists(st.tuples(st.integers(0, 120), st.floats(0, 1)), min_size=1, max_size=8))
def test_every_vector_is_in_one_cell(turns: list[tuple[int, float]]) -> None:
    """After any insertions and deletes; with so few, a search is exact."""
    cells, held, free = Cells(DIMENSION), dict[int, np.ndarray](), list(range(2_000))
    for turn, (count, gone) in enumerate(turns):
        vectors, slots = _vectors(count, turn), [free.pop() for _ in range(count)]
        cells.add(np.array(slots, np.int32), vectors)
        held.update(zip(slots, vectors, strict=True))
        leaving = [slot for slot in held if np.random.default_rng((turn, slot)).random() < gone]
        cells.remove(leaving)
        for slot in leaving:
            del held[slot]
        free += leaving
        _check(cells, held)
        question = _vectors(1, 99, turn)[0]
        expected = sorted((float(vector @ question) for vector in held.values()), reverse=True)[:5]
        assert [score for _, score in cells.search(question, 5)] == pytest.approx(expected, abs=1e-5)


def test_a_large_index_is_searched_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few per cent of it, and nearly all of the nearest are found; of those that pass a filter, too."""
    monkeypatch.setattr(module, "SCAN", 600)
    monkeypatch.setattr(module, "FEW", 64)
    monkeypatch.setattr(module, "PASSING", 100)
    monkeypatch.setattr(module, "PER_ANSWER", 4)
    vectors, cells = _vectors(10_000), Cells(DIMENSION)
    for start in range(0, len(vectors), 500):
        cells.add(np.arange(start, start + 500, dtype=np.int32), vectors[start : start + 500])
    sizes = [len(one) for one in cells.dump()[1]]
    assert max(sizes) <= 2 * module.LARGEST
    assert np.mean(sizes) > module.LARGEST / 4
    for share in (1, 7, 500):
        passing = None if share == 1 else np.arange(len(vectors)) % share == 0
        found = 0
        for question in _vectors(50, 2):
            scores = vectors @ question
            if passing is not None:
                scores[~passing] = -2
            exact = set(np.argsort(-scores)[:10].tolist())
            found += len(exact & {slot for slot, _ in cells.search(question, 10, passing)})
        assert found >= 0.95 * 500, share


def test_equal_vectors_do_not_multiply_cells() -> None:
    """A thousand times the same text is a few full cells, not one for each."""
    cells, one = Cells(DIMENSION), _vectors(1)
    for start in range(0, 1_000, 10):
        cells.add(np.arange(start, start + 10, dtype=np.int32), np.repeat(one, 10, axis=0))
    assert len(cells) <= 1_000 / (module.LARGEST / 2) + 1
    assert len({slot for slot, _ in cells.search(one[0], 1_000)}) == 1_000


def test_cells_that_were_dumped_are_loaded() -> None:
    """Their points numbered as they lie."""
    vectors, cells = _vectors(500), Cells(DIMENSION)
    cells.add(np.arange(500, dtype=np.int32), vectors)
    centroids, members, rows = cells.dump()
    again = Cells.load(centroids, [len(one) for one in members], np.concatenate(rows))
    order = np.concatenate(members)
    _check(again, {n: vectors[slot] for n, slot in enumerate(order)})
    again.remove([0, 250, 499])
    again.add(np.array([250, 600], np.int32), vectors[:2])
    assert len(again.search(vectors[0], 600)) == 499
