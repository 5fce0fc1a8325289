"""The journal: whatever is appended, compacted and interrupted, it loads to what a dict would hold."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.stores.checkpoint import fold
from headrace.stores.journal import Checkpoint, Journal, Part

CHILD = Path(__file__).with_name("child_journal.py")
SCHEMA = {"k": pl.String, "tile": pl.Int64, "n": pl.Int64, "l": pl.List(pl.String)}
OTHER = {"k": pl.String, "tile": pl.Int64, "n": pl.Float64, "l": pl.List(pl.String)}

row = st.tuples(
    st.sampled_from(["a", "b", "c", "d", None]),
    st.integers(0, 5),
    st.integers(),
    st.none() | st.lists(st.none() | st.sampled_from(["x", "päth"]), max_size=2),
).map(lambda r: (r[0], r[1], r[2] % 1_000, r[3]))


@st.composite
def part(draw: st.DrawFn) -> Part:
    schema = draw(st.sampled_from([SCHEMA, SCHEMA, SCHEMA, OTHER]))
    by = draw(st.sampled_from([("k", "tile"), ("k", "tile"), ("k",), ()]))
    frame = pl.DataFrame(draw(st.lists(row, max_size=6)), schema=SCHEMA, orient="row").cast(schema)  # type: ignore[arg-type]
    return Part(frame, by, draw(st.none() | st.integers(-1, 5)) if by[1:] else None)


@st.composite
def checkpoint(draw: st.DrawFn) -> Checkpoint:
    names = st.sampled_from(["p", "q"])
    return Checkpoint(
        {"n": draw(st.integers(0, 9))},
        draw(st.dictionaries(names, part(), max_size=2)),
        tuple(draw(st.lists(names, max_size=1))) if draw(st.integers(0, 4)) == 0 else (),
    )


Model = dict[str, tuple[Any, dict[Any, tuple[Any, ...]]]]


def model(checkpoints: list[Checkpoint]) -> tuple[Any, Model]:
    """What the journal must hold, by the words of the contract and with dicts only."""
    meta, parts = None, Model()
    for one in checkpoints:
        meta = one.meta
        for name in one.dropped:
            parts.pop(name, None)
        for name, new in one.parts.items():
            kind = (new.by, new.frame.schema)
            before = parts.get(name)
            rows = before[1] if before and before[0] == kind and new.by else {}
            for number, values in enumerate(new.frame.iter_rows(named=True)):
                identity = tuple(values[column] for column in new.by) or (number,)
                rows[identity] = tuple(map(repr, values.values()))
            if new.drop_before is not None:
                rows = {i: r for i, r in rows.items() if int(r[1]) > new.drop_before}
            parts[name] = (kind, rows)
    return meta, parts


def content(loaded: Checkpoint | None) -> Any:
    if loaded is None:
        return None, {}
    return loaded.meta, {name: (p.by, p.frame.schema, bag(p.frame)) for name, p in loaded.parts.items()}


def bag(frame: pl.DataFrame) -> list[tuple[str, ...]]:
    return sorted(tuple(map(repr, values)) for values in frame.iter_rows())


def expected(checkpoints: list[Checkpoint]) -> Any:
    meta, parts = model(checkpoints)
    return meta, {name: (*kind, sorted(rows.values())) for name, (kind, rows) in parts.items()}


def load(folder: Path) -> Any:
    journal = Journal(folder)
    try:
        return content(journal.load())
    finally:
        journal.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path / "journal")
    yield one
    one.close()


def numbered(n: int, **parts: Part) -> Checkpoint:
    return Checkpoint({"n": n}, parts)


def keyed(*rows: tuple[int, int]) -> Part:
    return Part(pl.DataFrame(rows, schema={"k": pl.Int64, "n": pl.Int64}, orient="row"), ("k",))


class TestAgainstTheModel:
    @settings(max_examples=300, deadline=None)
    @given(st.lists(checkpoint(), max_size=10), st.data())
    def test_folding_is_what_a_dict_does_and_associative(
        self, checkpoints: list[Checkpoint], data: st.DataObject
    ) -> None:
        cut = data.draw(st.integers(0, len(checkpoints)), label="folded first")
        first = fold(checkpoints[:cut])
        both = fold(([first] if first else []) + checkpoints[cut:])
        assert content(both) == content(fold(checkpoints)) == expected(checkpoints)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.tuples(checkpoint(), st.sampled_from(["", "", "compact", "reopen"])), max_size=8))
    def test_any_sequence_loads_as_a_dict_would(self, steps: list[tuple[Checkpoint, str]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(Path(folder))
            for taken, (one, then) in enumerate(steps, 1):
                journal.append(one)
                if then == "compact":
                    journal.compact()
                if then == "reopen":
                    journal.close()
                    journal = Journal(Path(folder))
                assert content(journal.load()) == expected([c for c, _ in steps[:taken]])
            journal.close()

    @settings(max_examples=15, deadline=None)
    @given(st.lists(checkpoint(), min_size=1, max_size=6), st.data())
    def test_a_crash_at_any_step_of_a_compaction_changes_nothing(
        self, checkpoints: list[Checkpoint], data: st.DataObject
    ) -> None:
        """Every state of the folder between two file operations, with the files in flight torn."""
        first = data.draw(st.integers(0, len(checkpoints)), label="already compacted")
        with tempfile.TemporaryDirectory() as name:
            before, after = Path(name, "before"), Path(name, "after")
            journal = Journal(before)
            for one in checkpoints[:first]:
                journal.append(one)
            journal.compact()
            for one in checkpoints[first:]:
                journal.append(one)
            journal.close()
            shutil.copytree(before, after)
            journal = Journal(after)
            journal.compact()
            journal.close()
            for state in compaction_states(before, after):
                crashed = Path(name, "crashed")
                crashed.mkdir()
                for file, content_of in state.items():
                    (crashed / file).write_bytes(content_of)
                assert load(crashed) == expected(checkpoints)
                assert load(crashed) == expected(checkpoints)
                shutil.rmtree(crashed)

    @settings(max_examples=15, deadline=None)
    @given(st.lists(checkpoint(), min_size=1, max_size=4), st.floats(0, 1))
    def test_a_crash_in_a_checkpoint_leaves_the_one_before(self, checkpoints: list[Checkpoint], written: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(Path(folder))
            for one in checkpoints:
                journal.append(one)
            journal.close()
            last = sorted(Path(folder).glob("*.delta"))[-1]
            data = last.read_bytes()
            last.unlink()
            last.with_name(last.name + ".tmp").write_bytes(data[: int(len(data) * written)])
            assert load(Path(folder)) == expected(checkpoints[:-1])


def compaction_states(before: Path, after: Path) -> Iterator[dict[str, bytes]]:
    old = {path.name: path.read_bytes() for path in sorted(before.iterdir())}
    new = {path.name: path.read_bytes() for path in after.iterdir()}
    for name, data in new.items():
        if name not in old:
            yield old | {name + ".tmp": data[: len(data) // 2]}
            yield old | {name + ".tmp": data}
    gone = sorted(set(old) - set(new), key=lambda name: (not name.endswith("base"), name))
    for count in range(len(gone) + 1):
        yield {name: data for name, data in old.items() if name not in gone[:count]} | new


class TestFolding:
    def test_an_absent_part_is_unchanged(self, journal: Journal) -> None:
        journal.append(numbered(1, p=keyed((1, 1)), q=keyed((2, 2))))
        journal.append(numbered(2, p=keyed((1, 5))))
        loaded = journal.load()
        assert loaded is not None
        assert (loaded.meta, bag(loaded.parts["p"].frame), bag(loaded.parts["q"].frame)) == (
            {"n": 2},
            [("1", "5")],
            [("2", "2")],
        )

    def test_an_expired_tile_is_dropped_and_a_later_one_stays(self, journal: Journal) -> None:
        """The tile is the last column of the identity, whatever its name."""
        rows = pl.DataFrame({"start": [1, 2, 3], "k": [7, 7, 7]})
        journal.append(numbered(1, p=Part(rows, ("k", "start"))))
        journal.append(numbered(2, p=Part(rows.clear(), ("k", "start"), drop_before=2)))
        loaded = journal.load()
        assert loaded is not None
        assert bag(loaded.parts["p"].frame) == [("3", "7")]

    def test_nothing_is_none(self, journal: Journal) -> None:
        assert journal.load() is None

    def test_a_missing_column_is_told(self, journal: Journal) -> None:
        with pytest.raises(ConfigError, match=r"expected the columns k, tile in part 'p'.*found k, n: add tile"):
            journal.append(numbered(1, p=Part(keyed((1, 1)).frame, ("k", "tile"))))

    def test_a_bound_without_identity_is_told(self, journal: Journal) -> None:
        with pytest.raises(ConfigError, match="expected columns of identity, the tile last, in part 'p'"):
            journal.append(numbered(1, p=Part(keyed((1, 1)).frame, (), drop_before=3)))


class TestCompaction:
    def test_it_runs_by_itself_and_bounds_the_files(self, journal: Journal, tmp_path: Path) -> None:
        for n in range(1, 101):
            journal.append(numbered(n, p=keyed((n % 3, n))))
            if journal._compaction is not None:
                journal._compaction.join()
        assert len(list((tmp_path / "journal").iterdir())) < 10
        loaded = journal.load()
        assert loaded is not None
        assert (loaded.meta, bag(loaded.parts["p"].frame)) == ({"n": 100}, [("0", "99"), ("1", "100"), ("2", "98")])

    def test_checkpoints_go_on_while_it_runs(self, journal: Journal, tmp_path: Path) -> None:
        """Appends, loads and compactions at once end in the same state as one after another."""
        stop = threading.Event()
        seen: list[int] = []

        def look() -> None:
            while not stop.is_set():
                loaded = journal.load()
                seen.append(loaded.meta["n"] if loaded else 0)

        def merge() -> None:
            while not stop.is_set():
                journal.compact()

        threads = [threading.Thread(target=look), threading.Thread(target=merge)]
        for thread in threads:
            thread.start()
        for n in range(1, 61):
            journal.append(numbered(n, p=keyed((n % 7, n))))
        stop.set()
        for thread in threads:
            thread.join()
        journal.close()
        rows = sorted((repr(n % 7), repr(n)) for n in range(54, 61))
        assert seen == sorted(seen)
        assert load(tmp_path / "journal")[1]["p"][2] == rows


class TestDamage:
    def change(self, folder: Path, pattern: str, change: Callable[[bytes], bytes]) -> Path:
        path = sorted(folder.glob(pattern))[-1]
        path.write_bytes(change(path.read_bytes()))
        return path

    @pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.9, 0.999])
    def test_a_wrong_byte_names_the_file(self, journal: Journal, tmp_path: Path, at: float) -> None:
        journal.append(numbered(1, p=keyed(*((n, n) for n in range(50)))))

        def flip(data: bytes) -> bytes:
            place = int(len(data) * at)
            return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

        path = self.change(tmp_path / "journal", "*.delta", flip)
        with pytest.raises(StorageError, match=f"the checkpoint .*{path.name} is damaged: .*backup"):
            journal.load()

    def test_a_cut_file_is_refused_at_any_length(self, journal: Journal, tmp_path: Path) -> None:
        journal.append(numbered(1, p=keyed((1, 1))))
        path = next((tmp_path / "journal").glob("*.delta"))
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(StorageError, match="is damaged"):
                journal.load()

    def test_a_missing_file_is_told(self, journal: Journal, tmp_path: Path) -> None:
        for n in range(1, 4):
            journal.append(numbered(n))
        journal.close()
        (tmp_path / "journal" / "000000000002.delta").unlink()
        with pytest.raises(StorageError, match=r"expected checkpoint 2 .* found 000000000003.delta"):
            Journal(tmp_path / "journal")

    def test_a_failed_compaction_keeps_all(self, journal: Journal, tmp_path: Path) -> None:
        for n in range(1, 8):
            journal.append(numbered(n, p=keyed((n, n))))
        path = self.change(tmp_path / "journal", "*.delta", lambda data: data[:-1])
        with pytest.raises(StorageError, match=path.name):
            journal.compact()
        assert len(list((tmp_path / "journal").iterdir())) == 7

    def test_a_failed_append_is_as_if_it_never_was(self, journal: Journal, tmp_path: Path) -> None:
        journal.append(numbered(1))
        (tmp_path / "journal").rename(tmp_path / "away")
        with pytest.raises(StorageError, match=r"cannot write .*000000000002.delta: No such file"):
            journal.append(numbered(2))
        (tmp_path / "away").rename(tmp_path / "journal")
        journal.append(numbered(3))
        assert load(tmp_path / "journal") == ({"n": 3}, {})

    def test_a_closed_one_refuses(self, journal: Journal) -> None:
        journal.close()
        with pytest.raises(ClosedError, match="open the app again"):
            journal.append(numbered(1))


class TestKill:
    @pytest.mark.parametrize("seed", range(5))
    def test_what_was_appended_is_there_after_kill_9(self, tmp_path: Path, seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(2):
            child = subprocess.Popen([sys.executable, CHILD, tmp_path], stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(draw.randrange(1, 80))]
            child.kill()
            lines += child.stdout.read().splitlines(keepends=True)
            child.stdout.close()
            child.wait()
            durable = max(int(line) for line in lines if line.endswith("\n"))
            meta, parts = load(tmp_path)
            assert meta["n"] >= durable
            newest: dict[str, str] = {}
            for n in range(1, meta["n"] + 1):
                newest |= {repr(n % 7): repr(n), repr(n % 5): repr(n)}
            assert parts["p"][2] == sorted(newest.items())
