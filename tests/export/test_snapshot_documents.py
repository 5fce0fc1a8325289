"""The clean documents of any version: what a snapshot holds, that it is whole, and that it is the same each time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from exported import NOW, Article, Standing, delete, newsroom, store_at, stored, upsert, written
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.states import Raw
from headrace.errors import InputError, StorageError, UnknownNameError
from headrace.runners.library import snapshot as snapshots
from headrace.runners.library.snapshot import snapshot
from headrace.stores.datadir import DataDir
from headrace.stores.history.folder import Folder
from headrace.stores.history.tables import TableHistory
from headrace.units import DAY

FOX = "The quick brown fox jumps over the lazy dog."

_KEYS = st.sampled_from(["a", "b", "ä/1", "", "z z"])
_CHANGES = st.lists(st.tuples(_KEYS, st.none() | st.text("xyz é\n#", max_size=8)), max_size=30)


@given(batches=st.lists(_CHANGES, max_size=6), share=st.floats(0, 1))
def test_a_version_is_the_history_replayed_up_to_it(batches: list[list[tuple[str, str | None]]], share: float) -> None:
    """For any history of upserts and deletes: the rows of version v are those of a dict after v changes."""
    with TemporaryDirectory() as folder:
        data = Path(folder)
        store = store_at(data)
        states: list[dict[str, str]] = [{}]
        for batch in batches:
            for key, body in batch:
                applied = stored(store, [delete(key) if body is None else upsert(key, body)])
                if applied.changed:
                    states.append({**states[-1], key: body} if body is not None else _without(states[-1], key))
        version = round(share * store.seq)
        made = snapshot(newsroom(), data, "library", data / "out", version=version)
        rows = made.frame().select("key", "text").collect().rows()
        store.close()
        assert rows == sorted(_cleaned(states[version]).items())


def _without(state: dict[str, str], key: str) -> dict[str, str]:
    return {one: body for one, body in state.items() if one != key}


def _cleaned(state: dict[str, str]) -> dict[str, str]:
    handlers = newsroom().collections["library"].handlers
    return {
        key: handlers.cleaned(Raw(key, "article", Article(id=key, title="", body=body), 1, 0)).text
        for key, body in state.items()
    }


def test_a_row_has_all_that_is_known_of_a_document(tmp_path: Path) -> None:
    """Text and title are clean; the columns that documents are filtered by are there with their types."""
    at = NOW - DAY
    article = upsert(
        "a",
        "It\u200b works.",
        "𝐁old",
        at,
        lang="de",
        year=2024,
        source="desk",
        tags=["x"],
        updated="2026-01-02T00:00:00Z",
    )
    made = snapshot(newsroom(), written(tmp_path / "data", [article]), "library", tmp_path / "out")
    assert made.frame().collect().to_dicts() == [
        {
            "key": "a",
            "kind": "article",
            "version": 1,
            "at": datetime(2026, 1, 9, tzinfo=UTC),
            "source": "test:a",
            "trusted": False,
            "title": "Bold",
            "text": "It works.",
            "format": "plain",
            "id": "a",
            "lang": "de",
            "year": 2024,
            "row_source": "desk",
            "tags": ["x"],
            "updated": datetime(2026, 1, 2, tzinfo=UTC),
        }
    ]


def test_the_manifest_says_what_is_in_it(tmp_path: Path) -> None:
    app = newsroom()
    made = snapshot(app, written(tmp_path / "data", [upsert("a", FOX)]), "library", tmp_path / "out")
    (file,) = made.manifest["files"]
    part = (tmp_path / "out" / "part-00000.parquet").read_bytes()
    assert file == {
        "name": "part-00000.parquet",
        "rows": 1,
        "bytes": len(part),
        "sha256": hashlib.sha256(part).hexdigest(),
    }
    shown = {name: made.manifest[name] for name in ("app", "collection", "table", "what", "version", "at", "rows")}
    assert shown == {
        "app": "newsroom",
        "collection": "library",
        "table": "article",
        "what": "documents",
        "version": 1,
        "at": "2026-01-09T00:00:00+00:00",
        "rows": 1,
    }
    assert made.manifest["pipeline"] == {"article": app.collections["library"].handlers.fingerprint("article")}


def test_the_same_version_makes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was written since, and however many parts it takes."""
    monkeypatch.setattr("headrace.stores.history.parquet.MOST_ROWS", 7)
    monkeypatch.setattr("headrace.stores.history.tables._PAGE", 5)
    store = store_at(tmp_path / "data")
    stored(store, [upsert(f"k{n:03}", f"{FOX} {n}") for n in range(40)])
    first = snapshot(newsroom(), tmp_path / "data", "library", tmp_path / "one", version=40)
    stored(store, [upsert("k005", "other"), delete("k006"), upsert("new", FOX)])
    second = snapshot(newsroom(), tmp_path / "data", "library", tmp_path / "two", version=40)
    store.close()
    names = sorted(path.name for path in first.path.iterdir())
    assert names == [*("manifest.json",), *(f"part-{n:05}.parquet" for n in range(len(names) - 1))]
    assert [(first.path / name).read_bytes() for name in names] == [(second.path / name).read_bytes() for name in names]


def test_a_point_in_time_is_the_version_of_that_time(tmp_path: Path) -> None:
    store = store_at(tmp_path / "data")
    for day in (2, 4, 6):
        stored(store, [upsert("a", f"day {day}")], day)
    store.close()
    made = snapshot(newsroom(), tmp_path / "data", "library", tmp_path / "out", at=datetime(2026, 1, 5, tzinfo=UTC))
    assert (made.version, made.frame().collect()["text"].to_list()) == (2, ["day 4"])


def test_before_the_first_change_there_is_nothing(tmp_path: Path) -> None:
    data = written(tmp_path / "data", [upsert("a", FOX)])
    made = snapshot(newsroom(), data, "library", tmp_path / "out", at=datetime(2026, 1, 3, tzinfo=UTC))
    assert (made.version, made.manifest["at"], made.frame().collect().height) == (0, None, 0)


def test_it_reads_beside_a_process_that_holds_the_directory(tmp_path: Path) -> None:
    """The app's process has the lock and goes on writing; another one takes a snapshot."""
    held = DataDir(tmp_path / "data")
    store = store_at(tmp_path / "data")
    stored(store, [upsert("a", FOX)])
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from exported import newsroom\n"
        "from headrace.runners.library.snapshot import snapshot\n"
        "print(snapshot(newsroom(), Path(sys.argv[2]), 'library', sys.argv[3]).rows)"
    )
    arguments = [str(Path(__file__).parent), str(tmp_path / "data"), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    stored(store, [upsert("b", FOX)])
    store.close()
    held.close()
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_directory_that_cannot_be_written_is_read_as_it_stands(tmp_path: Path) -> None:
    """A copy on a read-only disk: SQLite can make none of its side files there."""
    data = written(tmp_path / "data", [upsert("a", FOX)])
    # In the place of a file that it would make: also who may write everywhere cannot.
    (data / "tables" / "article.db-shm").mkdir()
    assert snapshot(newsroom(), data, "library", tmp_path / "out").rows == 1


def test_only_what_is_wanted(tmp_path: Path) -> None:
    """A condition is that of a search, and what it leaves out is counted."""
    rows = [upsert("a", FOX, lang="en", trusted=True), upsert("b", FOX, lang="de", trusted=True), upsert("c", FOX)]
    data = written(tmp_path / "data", rows)
    made = snapshot(newsroom(), data, "library", tmp_path / "out", where=pl.col("lang") == "en", trusted=True)
    assert made.frame().collect()["key"].to_list() == ["a"]
    assert made.manifest["removed"] == {"filtered": 1, "untrusted": 1}
    assert made.manifest["where"] == {"lang": {"eq": "en"}}


def test_a_row_that_cannot_be_cleaned_is_counted_and_named(tmp_path: Path) -> None:
    store = store_at(tmp_path / "data")
    stored(store, [upsert("a", FOX)])
    stored(store, [upsert("b", FOX, year=2**70)])
    store.close()
    made = snapshot(newsroom(), tmp_path / "data", "library", tmp_path / "out")
    assert (made.rows, made.manifest["removed"]) == (1, {"failed": 1})
    assert made.manifest["failures"][0]["key"] == "b"


def test_what_was_forgotten_is_refused(tmp_path: Path) -> None:
    """A version whose revisions may be gone is an error, and the message says which is the oldest that is whole."""
    store = store_at(tmp_path / "data")
    for day in (1, 2, 8, 9):
        stored(store, [upsert("a", f"day {day}")], day)
    app = newsroom(history="5d")
    store.prune(app.clock.now() - app.tables["article"].history, store.seq)
    store.close()
    with pytest.raises(InputError, match=r"version 1 is older .* take version 3 or a later one"):
        snapshot(app, tmp_path / "data", "library", tmp_path / "one", version=1)
    # Version 2 was still current five days ago.
    made = snapshot(app, tmp_path / "data", "library", tmp_path / "two", version=2)
    assert made.frame().collect()["text"].to_list() == ["day 2"]
    at = snapshot(app, tmp_path / "data", "library", tmp_path / "three", at=datetime(2026, 1, 6, tzinfo=UTC))
    assert at.version == 2


def test_an_old_version_of_which_nothing_is_gone_is_given(tmp_path: Path) -> None:
    store = store_at(tmp_path / "data")
    for day in (1, 2, 3):
        stored(store, [upsert("a", f"day {day}")], day)
    store.close()
    made = snapshot(newsroom(history="1d"), tmp_path / "data", "library", tmp_path / "out", version=1)
    assert made.frame().collect()["text"].to_list() == ["day 1"]


def test_what_is_forgotten_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are read one by one: if the history passes the version meanwhile, there is no snapshot."""
    store = store_at(tmp_path / "data")
    stored(store, [upsert("a", "old")], 2)
    stored(store, [upsert("a", "new"), upsert("b", "new")], 6)
    clock = Standing()
    app = newsroom(clock, history="5d")
    rows = TableHistory.rows

    def late(history: TableHistory, version: int) -> object:
        yield from rows(history, version)
        clock.time += 3 * DAY
        store.prune(clock.now() - app.tables["article"].history, store.seq)

    monkeypatch.setattr(TableHistory, "rows", late)
    with pytest.raises(InputError, match="version 1 is older"):
        snapshot(app, tmp_path / "data", "library", tmp_path / "out", version=1)
    store.close()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"collection": "libary"}, "did you mean 'library'"),
        ({"version": 2}, r"expected a version from 0 to 1, its newest, found 2"),
        ({"version": -1}, r"expected a version from 0 to 1"),
        ({"at": NOW + 1}, "expected a time that has passed"),
        ({"at": NOW, "version": 1}, "found both"),
        ({"what": "words"}, 'expected what="documents" or "chunks"'),
        ({"where": {"language": "en"}}, "no column 'language'"),
        ({"path": "taken"}, "expected a new or empty directory"),
        ({"data": "nowhere"}, "expected a data directory, found none"),
        ({"data": "empty"}, "expected the table 'article'"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path: Path, asked: dict[str, object], message: str) -> None:
    written(tmp_path / "data", [upsert("a", FOX)])
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    data = tmp_path / str(asked.pop("data", "data"))
    out = tmp_path / str(asked.pop("path", "out"))
    with pytest.raises((InputError, UnknownNameError), match=message):
        snapshot(newsroom(), data, str(asked.pop("collection", "library")), out, **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_table_of_another_format_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "data", [upsert("a", FOX)])
    (data / "tables" / "article.db").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(StorageError, match="cannot read the table 'article'"):
        snapshot(newsroom(), data, "library", tmp_path / "out")


def test_what_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or absent: an error on the way leaves no directory, hidden ones included."""
    data = written(tmp_path / "data", [upsert("a", FOX)])

    def broken(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(snapshots, "content", broken)
    (tmp_path / "room").mkdir()
    with pytest.raises(StorageError, match="the disk is full"):
        snapshot(newsroom(), data, "library", tmp_path / "room" / "out")
    assert list((tmp_path / "room").iterdir()) == []


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """Its lock went with it; a run that still goes on keeps its own."""
    program = (
        "import os, sys; from pathlib import Path; from headrace.stores.history.folder import Folder\n"
        "Folder(Path(sys.argv[1])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "out")], timeout=60, check=False)
    left = list(tmp_path.iterdir())
    with Folder(tmp_path / "out") as running, Folder(tmp_path / "out") as other:
        assert (len(left), left[0].exists(), running.path.exists(), other.path.exists()) == (1, False, True, True)
    assert os.listdir(tmp_path) == []
