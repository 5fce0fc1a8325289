"""Dead letters: whole, counted, bounded, and readable by another process."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import ClosedError, StorageError, UnknownNameError
from headrace.stores.dead_letters import DeadLetter, DeadLetters

CHILD = """
import sys
from headrace.stores.dead_letters import DeadLetters
letters = DeadLetters(sys.argv[1])
number = 0
while True:
    letters.add("s", "push", 7, [("why", b"%d" % (number + n)) for n in range(3)])
    number += 3
    print(number, flush=True)
"""
FULL = """
import resource, sys
from headrace.errors import StorageError
from headrace.stores.dead_letters import DeadLetters
letters = DeadLetters(sys.argv[1])
letters.add("s", "push", 7, [("why", b"kept")])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    letters.add("s", "push", 7, [("why", b"x" * 1_000_000)])
except StorageError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
letters.add("s", "push", 7, [("why", b"again")])
print([one.raw for one in letters.list()])
"""


@pytest.fixture(params=["memory", "file"])
def letters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DeadLetters]:
    one = DeadLetters(None if request.param == "memory" else tmp_path / "dead.db", keep_bytes=100_000_000)
    yield one
    one.close()


def test_what_is_listed_is_what_was_added(letters: DeadLetters) -> None:
    letters.add("payment", "push", 5, [("bad", b"\x00\xff{"), ("wörse", b"")])
    assert letters.list() == [
        DeadLetter(1, "payment", "push", "bad", b"\x00\xff{", 5),
        DeadLetter(2, "payment", "push", "wörse", b"", 5),
    ]


def test_a_stream_is_paged_by_id(letters: DeadLetters) -> None:
    for stream in ("a", "b", "a", "b", "a"):
        letters.add(stream, "push", 0, [("why", b"")])
    assert [one.id for one in letters.list("a", limit=2)] == [1, 3]
    assert [one.id for one in letters.list("a", limit=2, after=3)] == [5]
    assert [one.id for one in letters.list(limit=2, after=3)] == [4, 5]


def test_removed_letters_are_gone_and_their_ids_not_given_again(letters: DeadLetters) -> None:
    letters.add("a", "push", 0, [("why", b"1"), ("why", b"2")])
    letters.remove([2, 99])
    letters.add("a", "push", 0, [("why", b"3")])
    assert [(one.id, one.raw) for one in letters.list()] == [(1, b"1"), (3, b"3")]


def test_counts_are_per_stream(letters: DeadLetters) -> None:
    letters.add("a", "push", 0, [("why", b"")] * 3)
    letters.add("b", "push", 0, [("why", b"")])
    letters.remove([1, 4])
    assert (letters.count(), letters.dropped) == ({"a": 2}, 0)


def test_50_mb_are_kept_whole_and_previewed_short(letters: DeadLetters) -> None:
    raw = b"0123456789" * 5_000_000
    letters.add("a", "push", 0, [("too long", raw)])
    assert letters.get(1).raw == raw
    assert letters.list(preview=12)[0].raw == b"012345678901"


def test_an_unknown_id_is_told(letters: DeadLetters) -> None:
    with pytest.raises(UnknownNameError, match="expected the id of a dead letter, found 7"):
        letters.get(7)


def test_nothing_added_is_nothing(letters: DeadLetters) -> None:
    letters.add("a", "push", 0, [])
    assert letters.list() == []


def test_a_closed_one_refuses(letters: DeadLetters) -> None:
    letters.close()
    letters.close()
    with pytest.raises(ClosedError, match="are closed: open the app again"):
        letters.count()


@pytest.mark.parametrize("path", [None, "dead.db"])
def test_the_oldest_are_dropped_and_counted(tmp_path: Path, path: str | None) -> None:
    letters = DeadLetters(path and tmp_path / path, keep_bytes=5_000)
    for n in range(10):
        letters.add("a", "push", 0, [("why", b"x" * 1_000)] * 2 if n else [("why", b"")])
    assert ([one.id for one in letters.list()], letters.count(), letters.dropped) == ([16, 17, 18, 19], {"a": 4}, 15)
    letters.close()


def test_one_that_never_fits_is_dropped_and_the_others_stay(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "dead.db", keep_bytes=5_000)
    letters.add("a", "push", 0, [("why", b"small"), ("why", b"x" * 6_000)])
    assert ([one.raw for one in letters.list()], letters.dropped) == ([b"small"], 1)
    letters.close()


def test_the_count_of_dropped_ones_survives(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "dead.db", keep_bytes=1)
    letters.add("a", "push", 0, [("why", b"")])
    letters.close()
    again = DeadLetters(tmp_path / "dead.db")
    assert again.dropped == 1
    again.close()


def test_another_process_reads_and_removes_while_this_one_writes(tmp_path: Path) -> None:
    """Two connections, as two processes have: what one does the other sees, counts included."""
    server, command = DeadLetters(tmp_path / "dead.db"), DeadLetters(tmp_path / "dead.db")
    server.add("a", "push", 0, [("why", b"1"), ("why", b"2")])
    command.remove([one.id for one in command.list(limit=1)])
    server.add("a", "push", 0, [("why", b"3")])
    assert ([one.raw for one in command.list()], server.count()) == ([b"2", b"3"], {"a": 2})
    server.close()
    command.close()


def test_many_threads_add_at_once(letters: DeadLetters) -> None:
    def work() -> None:
        for n in range(20):
            letters.add("a", "push", n, [("why", b"x"), ("why", b"y")])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert letters.count() == {"a": 240}


def test_what_was_added_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "dead.db"
    with subprocess.Popen([sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(20)]
        child.kill()
        said += child.stdout.read().splitlines(keepends=True)
    added = max(int(line) for line in said if line.endswith("\n"))
    letters = DeadLetters(path)
    found = [int(one.raw) for one in letters.list(limit=1_000_000)]
    assert len(found) >= added
    assert (found, len(found) % 3) == (list(range(len(found))), 0)
    letters.close()


def test_a_full_disk_is_told_and_then_it_goes_on(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "dead.db"], capture_output=True, text=True, check=True
    )
    message, kept = child.stdout.splitlines()
    assert message.startswith(f"cannot write the dead letters in {tmp_path}/dead.db: ")
    assert kept == "[b'kept', b'again']"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "dead.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError, match="file is not a database; restore it from a backup, or move the file away"):
        DeadLetters(tmp_path / "dead.db")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open database file; check that the directory exists"):
        DeadLetters(tmp_path / "none" / "dead.db")
