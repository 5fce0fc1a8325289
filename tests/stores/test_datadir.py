"""The data directory: one process at a time, and a clear message when it cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.errors import LockedError, StorageError
from headrace.stores.datadir import DataDir, Layout

HOLDER = """
import sys
from headrace.stores.datadir import DataDir
held = DataDir(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_it_is_made_with_its_parents(tmp_path: Path) -> None:
    held = DataDir(tmp_path / "a" / "b")
    held.close()
    assert (held.path, held.log, held.journal, held.dead_letters) == (
        tmp_path / "a" / "b",
        tmp_path / "a" / "b" / "log",
        tmp_path / "a" / "b" / "journal",
        tmp_path / "a" / "b" / "dead_letters.db",
    )


def test_the_layout_is_known_without_opening(tmp_path: Path) -> None:
    assert Layout(tmp_path / "none").dead_letters == tmp_path / "none" / "dead_letters.db"
    assert not (tmp_path / "none").exists()


def test_it_can_be_opened_again_after_close(tmp_path: Path) -> None:
    for _ in range(2):
        held = DataDir(tmp_path / "data")
        (held.path / "log").mkdir(exist_ok=True)
        held.close()
        held.close()


def test_a_second_opening_in_the_same_process_is_refused(tmp_path: Path) -> None:
    held = DataDir(tmp_path)
    with pytest.raises(LockedError, match=rf"this process \(pid {os.getpid()}\) has {tmp_path} open already"):
        DataDir(tmp_path)
    held.close()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(LockedError) as caught:
            DataDir(tmp_path)
        child.kill()
        child.wait()
        DataDir(tmp_path).close()
    assert str(caught.value) == (
        f"another process (pid {child.pid}) has {tmp_path} open: stop it, or use another --data"
    )


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=f"expected a directory for the data, found a file: {tmp_path}/file"):
        DataDir(tmp_path / "file")


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot make the data directory .*Not a directory"):
        DataDir(tmp_path / "file" / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied; make it writable"):
        DataDir(tmp_path)


def test_a_directory_of_somebody_elses_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StorageError, match=r"expected a data directory or an empty one, found thesis.tex in"):
        DataDir(tmp_path)


def test_a_refused_directory_is_not_left_locked(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StorageError):
        DataDir(tmp_path)
    (tmp_path / "thesis.tex").unlink()
    DataDir(tmp_path).close()


def test_an_interrupted_first_start_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1")
    (tmp_path / "headrace.json.tmp").write_text("{")
    DataDir(tmp_path).close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 2}', "expected data of format 1 in .* found format 2: it was written by another version"),
        ("nonsense", "expected .*headrace.json to hold .* found b'nonsense'"),
        ("[]", "expected .*headrace.json to hold"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "headrace.json").write_text(text)
    with pytest.raises(StorageError, match=message):
        DataDir(tmp_path)
