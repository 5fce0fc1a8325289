"""The contract of a vector index as a test suite: subclass it, and say how a store is made.

    class TestMine(VectorIndexContract):
        def make(self):
            return MyStore("mine://localhost")

What the suite says of every index:

- what is written is found at once: by meaning in the order of the cosine, by words in the order of BM25;
- after any writes, replacements and deletes, the answers are those of the exact index in memory, filtered or not;
- a filter means what `filters.passes` says, of nulls, lists and odd texts too, and k are found however rare they are;
- writing again what is there changes nothing, and deleting what is not there does nothing;
- searches go on while it is written;
- an index that is opened again holds what it held, and refuses vectors of another length.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from headrace.errors import ConfigError
from headrace.filters import passes
from headrace.stores.vectors.base import Found, Point, Query, VectorIndex, VectorStore
from headrace.stores.vectors.memory import MemoryVectors
from headrace.testing.vector_data import (
    COLUMNS,
    CONDITIONS,
    DIMENSION,
    ODD_TEXTS,
    ROWS,
    WORDS,
    exact,
    id_of,
    new_name,
    parsed,
    point,
    unit,
    words,
)

relaxed = settings(suppress_health_check=list(HealthCheck), deadline=None)

_PATIENCE = 30.0


class VectorIndexContract:
    """What every vector index promises; see the module for how to use it."""

    # Whether an index outlives the store that made it.
    durable: ClassVar[bool] = True
    # How far a cosine may be off: above float32's rounding where vectors are kept in fewer bits.
    tolerance: ClassVar[float] = 2e-3
    # Whether words are weighed by the exact frequencies of the live points; else only what is found is compared.
    exact_words: ClassVar[bool] = True
    # How many points the large write has.
    many: ClassVar[int] = 2_000
    # How many writes the test of concurrent searches makes.
    rounds: ClassVar[int] = 20

    def make(self) -> VectorStore:
        """A store; called again, another client of what it holds."""
        raise NotImplementedError

    @contextmanager
    def store(self) -> Iterator[VectorStore]:
        """A store, closed in the end if it can be."""
        made = self.make()
        try:
            yield made
        finally:
            close = getattr(made, "close", None)
            if close is not None:
                close()

    @contextmanager
    def index(self, *points: Point, dimension: int = DIMENSION) -> Iterator[VectorIndex]:
        """A new index with these points, dropped in the end."""
        with self.store() as store:
            opened = store.open(new_name(), dimension, COLUMNS)
            try:
                if points:
                    opened.write(points, [])
                yield opened
            finally:
                opened.drop()

    # -- answers ---------------------------------------------------------------------------------------------------

    def test_the_nearest_comes_first(self) -> None:
        """With its cosine, and no more than are asked for."""
        points = [point(n) for n in range(30)]
        question = unit(7)
        with self.index(*points) as index:
            found = index.search(Query(10, vector=question))
        expected = sorted(((float(one.vector @ question), one.id) for one in points), reverse=True)[:10]
        self._assert_ranked(found.dense, {one.id: float(one.vector @ question) for one in points}, self.tolerance)
        assert {one for one, _ in found.dense} == {one for _, one in expected}
        assert found.sparse == () or list(found.sparse) == []

    def test_words_are_found_by_bm25(self) -> None:
        """What is rare counts for more; what has none of the words is not found."""
        texts = ["river mill", "river river river", "river", "stone", "", "mill stone dam", "river wheel", "dam water"]
        points = [point(n, text) for n, text in enumerate(texts)]
        with self.index(*points) as index:
            for question in ("river", "mill", "river mill dam", "unheard", "mill mill river", ""):
                query = Query(20, terms=words(question))
                self._assert_like(index.search(query), exact(points, query))

    def test_both_are_answered_at_once(self) -> None:
        """By meaning and by words, each a list of its own."""
        points = [point(n, WORDS[n % 8]) for n in range(20)]
        with self.index(*points) as index:
            query = Query(20, unit(1), words("mill dam"))
            self._assert_like(index.search(query), exact(points, query))
            neither = index.search(Query(5))
            assert (list(neither.dense), list(neither.sparse)) == ([], [])

    def test_an_empty_index_finds_nothing(self) -> None:
        with self.index() as index:
            found = index.search(Query(5, unit(1), words("mill")))
            assert (list(found.dense), list(found.sparse), list(index.ids())) == ([], [], [])

    @given(data=st.data())
    @relaxed
    def test_answers_are_those_of_the_exact_index(self, data: DataObject) -> None:
        """After every write of a random sequence: insertions, replacements and deletes, filtered and not."""
        names = st.integers(0, 12)
        with self.index() as index, closing(MemoryVectors().open("a", DIMENSION, COLUMNS)) as oracle:
            for turn in range(data.draw(st.integers(1, 5), "writes")):
                upserts = {
                    name: point(name, data.draw(_TEXTS), unit(name, turn), **data.draw(st.sampled_from(ROWS)))
                    for name in data.draw(st.sets(names, max_size=6), "upserts")
                }
                deletes = [id_of(name) for name in data.draw(st.sets(names, max_size=4)) if name not in upserts]
                for each in (index, oracle):
                    each.write(list(upserts.values()), deletes)
                assert sorted(index.ids()) == sorted(oracle.ids())
                where = data.draw(st.none() | st.sampled_from(CONDITIONS).map(parsed), "where")
                query = Query(20, unit(turn, 5), words(data.draw(_TEXTS, "question")), where)
                self._assert_like(index.search(query), oracle.search(query))

    def test_a_large_write_is_found(self) -> None:
        """At once; and of the ten nearest of a question, all but a few."""
        points = [point(n, WORDS[n % 8], year=n % 50) for n in range(self.many)]
        matrix, found, expected = np.stack([one.vector for one in points]), 0, 0
        with self.index(*points) as index:
            assert sorted(index.ids()) == sorted(one.id for one in points)
            for n in range(20):
                question = unit(n, 77)
                nearest = {points[i].id for i in np.argsort(-(matrix @ question))[:10]}
                found += len(nearest & {one for one, _ in index.search(Query(10, question)).dense})
                expected += 10
            assert found >= 0.95 * expected
            index.write([], [one.id for one in points[: self.many // 2]])
            assert sorted(index.ids()) == sorted(one.id for one in points[self.many // 2 :])

    # -- writes ----------------------------------------------------------------------------------------------------

    def test_a_point_is_replaced_whole(self) -> None:
        """Its vector, its words and its payload: nothing of before is found."""
        with self.index(point(1, "river", unit(1), lang="en", year=1), point(2, "dam", unit(2))) as index:
            new = point(1, "stone", unit(3), lang="de")
            index.write([new], [])
            found = index.search(Query(5, unit(1), words("river")))
            assert dict(found.dense)[new.id] == pytest.approx(float(unit(3) @ unit(1)), abs=self.tolerance)
            assert list(found.sparse) == []
            stone = index.search(Query(5, unit(1), words("stone"), parsed({"lang": "de"})))
            assert ([one for one, _ in stone.dense], [one for one, _ in stone.sparse]) == ([new.id], [new.id])
            for gone in ({"lang": "en"}, {"year": 1}):
                assert list(index.search(Query(5, unit(1), where=parsed(gone))).dense) == []

    def test_writing_again_changes_nothing(self) -> None:
        """Nor does deleting twice, or what was never there."""
        points = [point(n, "mill") for n in range(5)]
        with self.index(*points) as index:
            for _ in range(2):
                index.write(points[:4], [points[4].id, id_of("never")])
            query = Query(10, unit(1), words("mill"))
            assert sorted(index.ids()) == sorted(one.id for one in points[:4])
            self._assert_like(index.search(query), exact(points[:4], query))
            index.write([], [])
            index.write([points[4]], [])
            self._assert_like(index.search(query), exact(points, query))

    def test_a_deleted_point_is_gone_at_once(self) -> None:
        """From every kind of answer; and its place is taken by the next best."""
        points = [point(n, "mill") for n in range(8)]
        with self.index(*points) as index:
            question = points[3].vector
            assert index.search(Query(1, question)).dense[0][0] == points[3].id
            index.write([], [points[3].id])
            found = index.search(Query(8, question, words("mill")))
            left = {one.id for one in points} - {points[3].id}
            assert ({one for one, _ in found.dense}, {one for one, _ in found.sparse}) == (left, left)

    # -- filters ---------------------------------------------------------------------------------------------------

    def test_filters_mean_what_the_tree_says(self) -> None:
        """Every comparison, of rows with values, nulls, lists and none of the columns."""
        points = [point(n, "mill", **row) for n, row in enumerate(ROWS)]
        wrong = {}
        with self.index(*points) as index:
            for condition in CONDITIONS:
                where = parsed(condition)
                expected = sorted(n for n, row in enumerate(ROWS) if passes(where, row))
                found = index.search(Query(50, unit(1), words("mill"), where))
                for kind in (found.dense, found.sparse):
                    numbers = sorted(n for n, one in enumerate(points) if one.id in dict(kind))
                    if numbers != expected or len(kind) != len(expected):
                        wrong[str(condition)] = (numbers, expected)
        assert wrong == {}, wrong

    def test_odd_texts_are_told_apart(self) -> None:
        """In columns and lists, as texts and as documents' keys."""
        points = [point(text, f"mill {text}", lang=text, tags=[text, "x"]) for text in ODD_TEXTS]
        with self.index(*points) as index:
            for one, text in zip(points, ODD_TEXTS, strict=True):
                for condition in ({"lang": text}, {"tags": text}, {"lang": {"in": [text, "never"]}}):
                    found = index.search(Query(50, unit(1), where=parsed(condition)))
                    assert [name for name, _ in found.dense] == [one.id], repr(text)

    def test_the_rare_ones_that_pass_are_all_found(self) -> None:
        """Though they are the farthest of all."""
        question = unit(1)
        points = sorted((point(n, "mill") for n in range(300)), key=lambda one: float(one.vector @ question))
        rare = [Point(one.id, one.vector, one.terms, {**one.payload, "lang": "la"}) for one in points[:5]]
        with self.index(*rare, *points[5:]) as index:
            found = index.search(Query(5, question, words("mill"), parsed({"lang": "la"})))
            expected = {one.id for one in rare}
            assert ({one for one, _ in found.dense}, {one for one, _ in found.sparse}) == (expected, expected)

    # -- threads ---------------------------------------------------------------------------------------------------

    def test_searches_go_on_while_it_is_written(self) -> None:
        """Each writer finds what it wrote; nobody finds what was never there, or the same twice."""
        always = [point(n, "river") for n in range(20)]
        allowed = {one.id for one in always} | {id_of(("new", n)) for n in range(self.rounds)}
        ended, errors = threading.Event(), list[BaseException]()
        with self.index(*always) as index:

            def search() -> None:
                while not ended.is_set():
                    found = [one for one, _ in index.search(Query(50, unit(1), words("river"))).dense]
                    assert len(set(found)) == len(found)
                    assert {one.id for one in always} <= set(found) <= allowed

            def write() -> None:
                for n in range(self.rounds):
                    new = point(("new", n), "dam")
                    index.write([new], [])
                    assert index.search(Query(1, new.vector)).dense[0][0] == new.id
                    index.write([always[n % 20]], [new.id])
                    assert new.id not in dict(index.search(Query(50, new.vector, words("dam"))).sparse)

            threads = [_thread(search, errors, ended) for _ in range(2)]
            writer = _thread(write, errors, ended)
            writer.join(_PATIENCE)
            ended.set()
            for each in threads:
                each.join(_PATIENCE)
            assert errors == []
            assert not writer.is_alive()

    # -- opening ---------------------------------------------------------------------------------------------------

    def test_what_was_written_is_there_when_it_is_opened_again(self) -> None:
        """By the same store, and by another one."""
        points = [point(n, WORDS[n % 8], **ROWS[n % len(ROWS)]) for n in range(20)]
        name, query = new_name(), Query(20, unit(1), words("mill dam"), parsed({"not": {"lang": None}}))
        with self.store() as store:
            with closing(store.open(name, DIMENSION, COLUMNS)) as index:
                index.write(points, [])
                index.write([], [points[0].id])
            with closing(store.open(name, DIMENSION, COLUMNS)) as index:
                self._assert_like(index.search(query), exact(points[1:], query))
                if not self.durable:
                    return
        with self.store() as store:
            index = store.open(name, DIMENSION, COLUMNS)
            assert sorted(index.ids()) == sorted(one.id for one in points[1:])
            self._assert_like(index.search(query), exact(points[1:], query))
            index.drop()

    def test_vectors_of_another_length_are_refused(self) -> None:
        """When it is opened, and when they are written; and the rest goes on."""
        name = new_name()
        with self.store() as store:
            with closing(store.open(name, DIMENSION, COLUMNS)) as index:
                index.write([point(1)], [])
            with pytest.raises(ConfigError, match=f"{DIMENSION}.*{DIMENSION + 1}"):
                store.open(name, DIMENSION + 1, COLUMNS)
            index = store.open(name, DIMENSION, COLUMNS)
            with pytest.raises(ConfigError, match=f"{DIMENSION}.*3"):
                index.write([point(2, vector=unit(1, dimension=3))], [])
            index.write([point(3)], [])
            assert sorted(index.ids()) == sorted([id_of(1), id_of(3)])
            index.drop()

    def test_an_index_that_was_dropped_is_empty(self) -> None:
        """And may have another dimension; one of another name is left alone."""
        name, other = new_name(), new_name()
        with self.store() as store:
            index, left = store.open(name, DIMENSION, COLUMNS), store.open(other, DIMENSION, COLUMNS)
            index.write([point(1, "mill")], [])
            left.write([point(2, "mill")], [])
            index.drop()
            index = store.open(name, DIMENSION + 3, COLUMNS)
            assert list(index.ids()) == []
            assert list(index.search(Query(5, unit(1, dimension=DIMENSION + 3), words("mill"))).dense) == []
            assert list(left.ids()) == [id_of(2)]
            index.drop()
            left.drop()

    def test_closing_twice_is_closing_once(self) -> None:
        """Also of an index that was never used, and of one that was dropped."""
        with self.store() as store:
            name = new_name()
            index = store.open(name, DIMENSION, COLUMNS)
            index.close()
            index.close()
            index = store.open(name, DIMENSION, COLUMNS)
            index.drop()
            index.close()

    # -- comparing -------------------------------------------------------------------------------------------------

    def _assert_like(self, found: Found, exact: Found) -> None:
        self._assert_ranked(found.dense, dict(exact.dense), self.tolerance)
        assert {one for one, _ in found.dense} == {one for one, _ in exact.dense}
        assert {one for one, _ in found.sparse} == {one for one, _ in exact.sparse}
        if self.exact_words:
            self._assert_ranked(found.sparse, dict(exact.sparse), 1e-3)

    def _assert_ranked(self, found: Sequence[tuple[str, float]], exact: Mapping[str, float], tolerance: float) -> None:
        """Best first, but for near ties, each once, with about the exact score."""
        assert len({one for one, _ in found}) == len(found)
        assert [score for _, score in found] == pytest.approx([exact[one] for one, _ in found], abs=tolerance)
        for (one, _), (other, _) in itertools.pairwise(found):
            assert exact[one] >= exact[other] - tolerance


_TEXTS = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)


def _thread(work: Callable[[], None], errors: list[BaseException], ended: threading.Event) -> threading.Thread:
    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - carried to the thread that joins
            errors.append(error)
            ended.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
