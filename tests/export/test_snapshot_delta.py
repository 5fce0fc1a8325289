"""Snapshots as versions of a Delta table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from exported import newsroom, store_at, stored, upsert, written

from headrace.errors import InputError, MissingDependencyError, StorageError
from headrace.runners.library.snapshot import snapshot
from headrace.stores.history import delta

deltalake = pytest.importorskip("deltalake")


def test_each_snapshot_is_a_version_of_the_table(tmp_path: Path) -> None:
    """The newest replaces what was there in one commit; Delta's own versions lead back."""
    store = store_at(tmp_path / "data")
    made = []
    for text in ("one", "two"):
        stored(store, [upsert("a", text), upsert("b", "same")])
        made.append(snapshot(newsroom(), tmp_path / "data", "library", tmp_path / "table", format="delta"))
    store.close()
    assert [(one.version, one.manifest["delta"]) for one in made] == [(2, 0), (3, 1)]
    texts = [one.frame().collect().select("key", "text").rows() for one in made]
    assert texts == [[("a", "one"), ("b", "same")], [("a", "two"), ("b", "same")]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "table"]


def test_the_commit_says_what_the_manifest_says(tmp_path: Path) -> None:
    """And its content is that of the Parquet snapshot of the same version."""
    data = written(tmp_path / "data", [upsert("a", "one", tags=("x",))])
    parquet = snapshot(newsroom(), data, "library", tmp_path / "files")
    made = snapshot(newsroom(), data, "library", tmp_path / "table", format="delta")
    told = delta.read_manifest(tmp_path / "table")
    assert (told, {**told, "delta": 0}) == (parquet.manifest, made.manifest)
    assert made.frame().collect().equals(parquet.frame().collect())


def test_what_is_no_delta_table_is_left_alone(tmp_path: Path) -> None:
    data = written(tmp_path / "data", [upsert("a", "one")])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="cannot write the Delta table"):
        snapshot(newsroom(), data, "library", tmp_path / "file", format="delta")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(StorageError, match="expected a Delta table of snapshots"):
        delta.read_manifest(tmp_path / "data")


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is read, with the line that installs it."""
    monkeypatch.setitem(sys.modules, "deltalake", None)
    data = written(tmp_path / "data", [upsert("a", "one")])
    with pytest.raises(MissingDependencyError, match=r'pip install "headrace\[delta\]"'):
        snapshot(newsroom(), data, "library", tmp_path / "table", format="delta", version=99)


def test_nothing_is_committed_when_it_fails(tmp_path: Path) -> None:
    data = written(tmp_path / "data", [upsert("a", "one")])
    snapshot(newsroom(), data, "library", tmp_path / "table", format="delta")
    with pytest.raises(InputError, match="its newest, found 9"):
        snapshot(newsroom(), data, "library", tmp_path / "table", format="delta", version=9)
    assert deltalake.DeltaTable(str(tmp_path / "table")).version() == 0
