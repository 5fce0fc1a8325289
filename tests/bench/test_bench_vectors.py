"""The `vectors` benchmark: what it makes, what it counts, and that it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.bench import vectors
from headrace.bench.vectors_data import Chunks, chunks, id_of, mixture, number_of, sentences, unit
from headrace.bench.vectors_trial import Churn, loaded, recall, trial


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.npy"
    np.save(path, mixture(900, 1))
    return path


def test_chunks_are_the_same_for_the_same_seed(base: Path) -> None:
    """Of length 1, each with words and columns of its own."""
    one, again = chunks(50, 3, base), chunks(50, 3, base)
    assert np.array_equal(one.vectors, again.vectors)
    assert np.linalg.norm(one.vectors, axis=1) == pytest.approx(np.ones(50), abs=1e-5)
    (point,), (same,) = one.points([7]), again.points([7])
    assert (point.id, point.terms.ids.tolist()) == (same.id, same.terms.ids.tolist())
    assert number_of(id_of(7)) == 7
    assert (np.diff(point.terms.ids.astype(np.int64)) > 0).all()


def test_sentences_are_of_the_standard_library() -> None:
    found = sentences(20, 1)
    assert len(found) == 20
    assert all(60 <= len(text) <= 160 for text in found)


def test_recall_is_of_what_was_live_throughout_the_question() -> None:
    """What came or went meanwhile is not asked for; what went before is wrong."""
    made = Chunks(np.eye(20, dtype=np.float32), unit(np.arange(1, 21, dtype=np.float32)[None, :]), "", 1)
    churn = Churn(made, 20, 1)
    churn.came[13], churn.going[14], churn.going[15] = 150, 150, 50
    live = [n for n in range(20) if n not in (13, 14, 15)]
    exact = np.array(live)[np.argsort(-(made.vectors[live] @ made.questions[0]))[:10]].tolist()
    assert recall(made, churn, [(0, 100, 200, exact)]) == 1.0
    assert recall(made, churn, [(0, 100, 200, [13, 14, 15])]) == 0.0


class _Late:
    """An index that finds what it was given, exactly."""

    def __init__(self, made: Chunks) -> None:
        self._made, self._live = made, set[int]()

    def write(self, upserts: object, deletes: object) -> None:
        self._live = (self._live | set(upserts)) - set(deletes)  # type: ignore[call-overload]

    def search(self, question: object, k: int) -> list[int]:
        live = np.array(sorted(self._live))
        return live[np.argsort(-(self._made.vectors[live] @ question))[:k]].tolist()  # type: ignore[operator]


def test_a_trial_of_an_exact_index_finds_everything(base: Path) -> None:
    """And writes as many as it should; what has gone may come again in the next one."""
    made = chunks(700, 1, base)
    system = _Late(made)
    loaded(system, 500, 100, lambda _: None)
    churn = Churn(made, 500, 1)
    for _ in range(2):
        found = trial(system, made, churn, 200, 0.4)
        assert found.recall >= 0.98
        assert len(found.searchable) == 4
        assert len(churn.live) == 500 == len(system._live)


def test_it_runs(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of ours and a peer, with the figures that the goals are about."""
    monkeypatch.setattr(vectors, "PEERS", {"usearch": vectors.PEERS["usearch"], "none": ("no-such-peer", None, 1)})
    report = vectors.run(count=600, runs=1, seed=1, seconds=0.4, rates=(100,), base=base)
    assert {figure.system for figure in report.figures} >= {"headrace local:", "headrace edge:"}
    assert report.value("headrace local:", "600, 100/s: recall@10") == pytest.approx(1.0, abs=0.03)
    assert (report.value("headrace edge:", "600, 100/s: searchable p99") or 0.0) > 0
    assert (report.value("headrace local:", "memory, 600") or 0.0) > 10
    assert report.left_out["none"] == "pip install no-such-peer"
