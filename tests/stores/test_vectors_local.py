"""The index of one's own in a process of its own: the contract, and what it survives."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from headrace.errors import ConfigError, LockedError, StorageError
from headrace.filters import parse
from headrace.stores.vectors import child, local_engine
from headrace.stores.vectors.base import Query
from headrace.stores.vectors.child import locked
from headrace.stores.vectors.local import LocalVectors
from headrace.stores.vectors.local_engine import LocalEngine
from headrace.stores.vectors.wire import Reader, id_text, pack_write
from headrace.testing.vector_data import COLUMNS, DIMENSION, ROWS, WORDS, exact, id_of, point, unit, words
from headrace.testing.vectors import VectorIndexContract


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVectors]:
    """A store whose process goes on from test to test, since an index in it is open."""
    store = LocalVectors("local:", path=tmp_path_factory.mktemp("local"))
    kept = store.open("kept", DIMENSION, COLUMNS)
    yield store
    kept.close()


class TestLocal(VectorIndexContract):
    @pytest.fixture(autouse=True)
    def _shared(self, shared: LocalVectors) -> None:
        self._store = shared

    def make(self) -> LocalVectors:
        return self._store


# -- processes ---------------------------------------------------------------------------------------------------------


def test_a_killed_process_is_started_again_and_has_all_that_it_acknowledged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is asked next, of any index that was open, by a search or a write."""
    store = LocalVectors(f"local://{tmp_path}")
    index, other = store.open("a", DIMENSION, COLUMNS), store.open("b", DIMENSION, COLUMNS)
    other.write([point("other")], [])
    caplog.set_level(logging.ERROR)
    for n in range(3):
        index.write([point(n, "mill"), point(9)], [id_of(8)])
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        if n % 2:
            assert {one for one, _ in index.search(Query(9, unit(1), words("mill"))).sparse} == {
                id_of(one) for one in range(n + 1)
            }
    assert list(other.ids()) == [id_of("other")]
    index.close()
    other.close()
    assert store.pid is None


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    """However that ends; then another may have the directory."""
    program = f"""
        import os, signal
        from headrace.stores.vectors.local import LocalVectors
        from headrace.testing.vector_data import *
        store = LocalVectors("local:", path={str(tmp_path)!r})
        store.open("a", DIMENSION, COLUMNS).write([point(1)], [])
        print(store.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip().isdigit()) == (-signal.SIGKILL, True), done.stderr
    # Taking the lock waits until it is let go of.
    locked(tmp_path).close()
    with closing(LocalVectors("local:", path=tmp_path).open("a", DIMENSION, COLUMNS)) as index:
        assert list(index.ids()) == [id_of(1)]


def test_a_directory_has_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_LOCK_PATIENCE", 0.0)
    held = locked(tmp_path)
    with pytest.raises(LockedError, match="another process has the vector indexes"):
        locked(tmp_path)
    held.close()


def test_an_index_is_opened_once(tmp_path: Path) -> None:
    store = LocalVectors("local:", path=tmp_path)
    with closing(store.open("a", DIMENSION, COLUMNS)), pytest.raises(ConfigError, match="open already"):
        store.open("a", DIMENSION, COLUMNS)


@pytest.mark.parametrize(
    ("url", "path", "message"),
    [
        ("local:", None, "which there is none of"),
        ("local://host/path", None, 'expected "local:" or "local:///absolute/path"'),
        ("local:here", None, 'expected "local:" or "local:///absolute/path"'),
    ],
)
def test_a_url_names_a_directory(url: str, path: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LocalVectors(url, path=path)


def test_a_name_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        LocalVectors("local:", path=tmp_path).open("../a", DIMENSION, COLUMNS)


# -- files -------------------------------------------------------------------------------------------------------------


def _engine(path: Path) -> LocalEngine:
    return LocalEngine(path, DIMENSION, COLUMNS)


def _write(engine: LocalEngine, upserts: range, deletes: range = range(0)) -> None:
    points = [point(n, WORDS[n % 8], **ROWS[n % len(ROWS)]) for n in upserts]
    frame = Reader().feed(pack_write("a", DIMENSION, COLUMNS, points, [id_of(n) for n in deletes]))
    assert frame is not None
    for _ in engine.write(frame):
        pass


def _answers(engine: LocalEngine) -> object:
    where = parse({"not": {"tags": "a"}}, COLUMNS)
    dense, sparse = engine.search(500, unit(1), words("mill dam"), where)
    return [(id_text(one), round(score, 4)) for kind in (dense, sparse) for one, score in sorted(kind)]


def test_a_checkpoint_and_the_log_behind_it_are_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was logged before it is gone from the disk; what came while it was made is in the log."""
    monkeypatch.setattr(local_engine, "WORTH_SAVING", 1)
    # A copy of a process with many threads, such as this one, is not what is tested.
    monkeypatch.setattr(os, "fork", lambda: _saved_here(engine))
    monkeypatch.setattr(os, "waitpid", lambda pid, flags: (pid, 0))
    engine = _engine(tmp_path)
    _write(engine, range(200), range(1))
    _write(engine, range(300, 310), range(50, 100))
    assert engine.background() is not None
    _write(engine, range(1), range(300, 305))
    assert engine.background() is None
    expected = _answers(engine)
    engine.close()
    assert sorted(path.name[:-12] for path in tmp_path.iterdir() if path.suffix != ".json") == ["checkpoint-", "log-"]
    again = _engine(tmp_path)
    assert _answers(again) == expected
    assert len(list(again.ids())) == 200 - 50 + 5
    # And goes on: with new points in the places of old ones.
    _write(again, range(600, 700), range(10, 40))
    expected = _answers(again)
    again.close()
    last = _engine(tmp_path)
    assert _answers(last) == expected
    last.close()


def _saved_here(engine: LocalEngine) -> int:
    """What the copy does, done here."""
    from headrace.stores.disk import write_whole

    write_whole(engine._files._named("checkpoint-", engine._files._number), engine._write_image)
    return 1


def test_a_copy_of_the_process_writes_the_checkpoint(tmp_path: Path) -> None:
    """While it goes on; and the index that is opened again reads it."""
    program = f"""
        import time
        from pathlib import Path
        from headrace.stores.vectors import local_engine
        from headrace.stores.vectors.local_engine import LocalEngine
        from headrace.stores.vectors.wire import Reader, pack_write
        from headrace.testing.vector_data import *
        local_engine.WORTH_SAVING = 1
        engine = LocalEngine(Path({str(tmp_path)!r}), DIMENSION, COLUMNS)
        points = [point(n, "mill") for n in range(300)]
        list(engine.write(Reader().feed(pack_write("a", DIMENSION, COLUMNS, points, []))))
        local_engine.WORTH_SAVING = 1 << 30
        engine._save()
        deadline = time.monotonic() + 30
        while engine.background() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        engine.close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)
    names = {path.name for path in tmp_path.iterdir()}
    assert "checkpoint-000000000002" in names
    assert "log-000000000001" not in names
    engine = _engine(tmp_path)
    assert sorted(map(id_text, engine.ids())) == sorted(id_of(n) for n in range(300))
    engine.close()


def test_a_write_that_was_not_whole_was_not_made(tmp_path: Path) -> None:
    """The log ends before it, wherever it was cut or damaged, and goes on from there."""
    engine = _engine(tmp_path)
    _write(engine, range(3))
    log = next(tmp_path.glob("log-*"))
    good = log.read_bytes()
    _write(engine, range(3, 6))
    engine.close()
    whole = log.read_bytes()
    for cut in (len(good) + 1, len(good) + 12, len(whole) - 1):
        log.write_bytes(whole[:cut])
        again = _engine(tmp_path)
        assert sorted(map(id_text, again.ids())) == sorted(id_of(n) for n in range(3))
        again.close()
    log.write_bytes(good + whole[len(good) :].replace(b"lang", b"long"))
    again = _engine(tmp_path)
    _write(again, range(8, 9))
    again.close()
    again = _engine(tmp_path)
    assert sorted(map(id_text, again.ids())) == sorted(id_of(n) for n in (0, 1, 2, 8))
    again.close()


def test_a_full_disk_is_said_and_nothing_is_kept_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches go on, and so do writes once there is room."""
    engine = _engine(tmp_path)
    _write(engine, range(3))
    real = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) > 8:
            real(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StorageError, match="free some space"):
            _write(engine, range(3, 6))
    assert len(list(engine.ids())) == 3
    _write(engine, range(6, 8))
    engine.close()
    again = _engine(tmp_path)
    assert sorted(map(id_text, again.ids())) == sorted(id_of(n) for n in (0, 1, 2, 6, 7))
    again.close()


def test_a_column_that_is_of_another_type_now_is_null_in_what_was_written_before(tmp_path: Path) -> None:
    """Rather than compared as what it is not; one that is new is null as well."""
    from headrace.document import Column

    engine = _engine(tmp_path)
    _write(engine, range(8))
    engine.close()
    changed = {**COLUMNS, "lang": Column("int"), "fresh": Column("str")}
    again = LocalEngine(tmp_path, DIMENSION, changed)
    found, _ = again.search(50, unit(1), None, parse({"lang": None, "fresh": None}, changed))
    assert len(found) == 8
    again.close()


def test_what_is_damaged_says_what_to_do(tmp_path: Path) -> None:
    engine = _engine(tmp_path)
    _write(engine, range(3))
    engine.close()
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(StorageError, match="drop the index"):
        _engine(tmp_path)


def test_answers_are_exact_after_much_churn(tmp_path: Path) -> None:
    """Words, columns and vectors of the same slots, used many times."""
    engine = _engine(tmp_path)
    for turn in range(30):
        _write(engine, range(turn * 5, turn * 5 + 20), range(turn * 5))
    engine.close()
    live = range(145, 165)
    assert {id_text(one) for one in engine.ids()} == {id_of(n) for n in live}
    points = [point(n, WORDS[n % 8], **ROWS[n % len(ROWS)]) for n in live]
    query = Query(50, unit(1), words("mill dam river"), parse({"year": {"gte": 2021}}, COLUMNS))
    expected = exact(points, query)
    dense, sparse = engine.search(50, query.vector, query.terms, query.where)
    assert {id_text(one): score for one, score in dense} == pytest.approx(dict(expected.dense), abs=1e-5)
    assert {id_text(one): score for one, score in sparse} == pytest.approx(dict(expected.sparse), abs=1e-5)
