"""What a killed run has saved of an unfinished epoch is not gone on with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("bytewax", reason="bytewax has no wheel for this Python")

from bytewax.recovery import init_db_dir

from headrace.errors import StorageError
from headrace.runners.bytewax_recovery import forget_unfinished

Rows = dict[str, list[tuple[object, ...]]]


def partitions(folder: Path, *parts: Rows) -> Path:
    """Recovery partitions as Bytewax makes them, filled by hand."""
    folder.mkdir()
    init_db_dir(folder, len(parts))
    for number, rows in enumerate(parts):
        with closing(sqlite3.connect(folder / f"part-{number}.sqlite3")) as part, part:
            for table, lines in rows.items():
                columns = {
                    "exs": "ex_num, worker_count, resume_epoch",
                    "fronts": "ex_num, worker_index, worker_frontier",
                    "snaps": "step_id, state_key, snap_epoch, ser_change",
                }[table]
                marks = ", ".join("?" for _ in columns.split(","))
                part.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", lines)
    return folder


def saved(folder: Path) -> list[tuple[str, int]]:
    found = []
    for file in sorted(folder.glob("*.sqlite3")):
        with closing(sqlite3.connect(file)) as part:
            found += part.execute("SELECT state_key, snap_epoch FROM snaps").fetchall()
    return sorted(found)


def snap(key: str, epoch: int) -> tuple[object, ...]:
    return "flow.shards", key, epoch, b"state"


def test_epochs_that_not_all_workers_have_finished_are_forgotten(tmp_path: Path) -> None:
    """The second run began with epoch 4; one worker has come to 6, the other to 5, so 5 is to be done again."""
    folder = partitions(
        tmp_path / "recovery",
        {
            "exs": [(0, 2, 1)],
            "fronts": [(0, 0, 4), (0, 1, 4), (1, 0, 6)],
            "snaps": [snap("a", 3), snap("a", 5), snap("b", 4)],
        },
        {"exs": [(1, 2, 4)], "fronts": [(1, 1, 5)], "snaps": [snap("c", 6), snap("d", 4)]},
    )
    assert forget_unfinished(folder) == 2
    assert saved(folder) == [("a", 3), ("b", 4), ("d", 4)]
    assert forget_unfinished(folder) == 0


def test_a_worker_that_has_finished_nothing_is_where_its_run_began(tmp_path: Path) -> None:
    folder = partitions(
        tmp_path / "recovery",
        {"exs": [(0, 2, 1), (1, 2, 3)], "fronts": [(0, 0, 3), (0, 1, 3), (1, 0, 9)], "snaps": [snap("a", 2)]},
        {"snaps": [snap("b", 3), snap("c", 8)]},
    )
    assert forget_unfinished(folder) == 2
    assert saved(folder) == [("a", 2)]


def test_nothing_has_run_yet(tmp_path: Path) -> None:
    assert forget_unfinished(partitions(tmp_path / "recovery", {}, {})) == 0


def test_partitions_that_are_damaged(tmp_path: Path) -> None:
    folder = partitions(tmp_path / "recovery", {})
    (folder / "part-0.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="cannot be mended"):
        forget_unfinished(folder)
