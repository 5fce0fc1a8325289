"""Qdrant Edge in a process of its own: the contract, and shards that are sealed, built and merged."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from headrace.errors import ConfigError
from headrace.filters import parse
from headrace.stores.vectors import edge_engine
from headrace.stores.vectors.base import Query
from headrace.stores.vectors.edge import EdgeVectors
from headrace.stores.vectors.edge_engine import EdgeEngine
from headrace.stores.vectors.wire import Reader, id_bytes, id_text, pack_write
from headrace.testing.vector_data import COLUMNS, DIMENSION, ROWS, WORDS, exact, id_of, point, unit, words
from headrace.testing.vectors import VectorIndexContract

_PATIENCE = 60.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeVectors]:
    """A store whose process goes on from test to test, since an index in it is open."""
    store = EdgeVectors("edge:", path=tmp_path_factory.mktemp("edge"))
    kept = store.open("kept", DIMENSION, COLUMNS)
    yield store
    kept.close()


class TestEdge(VectorIndexContract):
    @pytest.fixture(autouse=True)
    def _shared(self, shared: EdgeVectors) -> None:
        self._store = shared

    def make(self) -> EdgeVectors:
        return self._store


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """By the shard's own log; the process is started again when it is next asked."""
    store = EdgeVectors(f"edge://{tmp_path}")
    with closing(store.open("a", DIMENSION, COLUMNS)) as index:
        index.write([point(n, "mill") for n in range(40)], [])
        index.write([point(3, "stone")], [id_of(5)])
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        found = index.search(Query(50, unit(1), words("mill")))
        assert {one for one, _ in found.dense} == {id_of(n) for n in range(40) if n != 5}
        assert {one for one, _ in found.sparse} == {id_of(n) for n in range(40) if n not in (3, 5)}


# -- the engine, without its process -----------------------------------------------------------------------------------


class _Held:
    """An engine, and the points that should be in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.points = {n: point(n) for n in range(0)}
        self.engine = EdgeEngine(path, DIMENSION, COLUMNS)

    def write(self, upserts: range, deletes: range = range(0), turn: int = 0) -> None:
        new = {n: point(n, WORDS[(n + turn) % 8], unit(n, turn), **ROWS[n % len(ROWS)]) for n in upserts}
        frame = Reader().feed(pack_write("a", DIMENSION, COLUMNS, list(new.values()), [id_of(n) for n in deletes]))
        assert frame is not None
        for _ in self.engine.write(frame):
            pass
        self.points = {n: one for n, one in (self.points | new).items() if n not in deletes}

    def settle(self) -> None:
        """Until no builder is at work, nor any due."""
        deadline = time.monotonic() + _PATIENCE
        while (pause := self.engine.background()) is not None and time.monotonic() < deadline:
            time.sleep(pause / 10)

    def reopen(self) -> None:
        self.engine.close()
        self.engine = EdgeEngine(self.path, DIMENSION, COLUMNS)

    def check(self) -> None:
        """It answers as the exact index does."""
        points = list(self.points.values())
        assert sorted(map(id_text, self.engine.ids())) == sorted(one.id for one in points)
        for condition in (None, {"year": {"gte": 2021}}):
            where = None if condition is None else parse(condition, COLUMNS)
            query = Query(1_000, unit(1), words("mill dam"), where)
            expected = exact(points, query)
            dense, sparse = self.engine.search(1_000, query.vector, query.terms, where)
            assert {id_text(one): score for one, score in dense} == pytest.approx(dict(expected.dense), abs=1e-4)
            assert {id_text(one): score for one, score in sparse} == pytest.approx(dict(expected.sparse), abs=1e-4)


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Held]:
    monkeypatch.setattr(edge_engine, "FRESH", 100)
    found = _Held(tmp_path / "index")
    yield found
    found.engine.close()


def test_a_full_shard_is_sealed_and_built(held: _Held) -> None:
    """What goes from it, or is replaced, before, while and after it is built is gone; also after a restart."""
    held.write(range(120))
    held.write(range(30, 35), range(10), turn=1)
    assert held.engine.background() is not None  # sealed, and being built
    held.write(range(200, 230), range(40, 50))
    held.write(range(50, 60), turn=2)
    held.check()
    held.settle()
    held.check()
    assert [shard.indexed for shard in held.engine._shards] == [True, False]
    held.write(range(60, 70), range(70, 80), turn=3)
    held.check()
    held.reopen()
    held.check()
    assert [shard.indexed for shard in held.engine._shards] == [True, False]


@pytest.mark.services
def test_shards_of_a_size_become_one(held: _Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those of which much is gone are written anew, so their number stays small."""
    monkeypatch.setattr(edge_engine, "_FAN", 2)
    for turn in range(3):
        held.write(range(turn * 100, turn * 100 + 100), turn=turn)
        held.settle()
    assert len(held.engine._shards) <= 3
    held.check()
    held.write(range(0), range(0, 200))
    held.settle()
    assert sum(len(shard.gone) for shard in held.engine._shards) < 200
    held.check()
    held.reopen()
    held.check()


@pytest.mark.services
def test_a_restart_while_a_shard_is_built_loses_nothing(held: _Held) -> None:
    """What the builder was making is thrown away, and made again."""
    held.write(range(150))
    assert held.engine.background() is not None
    held.reopen()
    held.check()
    held.settle()
    held.check()
    assert held.engine._shards[0].indexed


def test_a_death_between_a_new_point_and_the_old_one_is_found_out(held: _Held) -> None:
    """The new one counts."""
    held.write(range(120))
    held.engine.background()
    held.engine._files.add_gone = lambda entries: None  # type: ignore[method-assign]
    held.write(range(5), turn=9)
    held.reopen()
    held.check()
    assert held.engine._owner[id_bytes(id_of(2))] is held.engine._shards[-1]


@pytest.mark.services
def test_a_builder_that_fails_is_tried_again_later(held: _Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was to build is searched as it is."""
    held.write(range(120))
    monkeypatch.setattr(edge_engine, "job", lambda *_: b"not a job")
    assert held.engine.background() is not None
    assert held.engine._build is not None
    held.engine._build.process.wait(_PATIENCE)
    assert held.engine.background() == edge_engine._RETRY
    held.check()


def test_another_dimension_is_refused_without_harm(held: _Held) -> None:
    held.write(range(3))
    held.engine.close()
    with pytest.raises(ConfigError, match="16 numbers"):
        EdgeEngine(held.path, DIMENSION + 1, COLUMNS)
    held.engine = EdgeEngine(held.path, DIMENSION, COLUMNS)
    held.check()
