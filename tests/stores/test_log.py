"""The push log: durable, in order, delivered once, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import ClosedError, StorageError
from headrace.stores import disk
from headrace.stores.log import FileLog, MemoryLog, Record

CHILD = Path(__file__).with_name("child_log.py")


def frame(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"v": values}, schema={"v": pl.Int64})


def ignore(_: Record) -> None:
    pass


def values(log: FileLog, after: int = 0) -> list[tuple[int, list[int]]]:
    return [(record.position, record.frame["v"].to_list()) for record in log.replay(after)]


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[Callable[..., FileLog]]:
    opened: list[FileLog] = []

    def opener(deliver: Callable[[Record], None] = ignore, **options: object) -> FileLog:
        opened.append(FileLog(tmp_path / "log", deliver, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield opener
    for log in opened:
        log.close()


def unsynced(_: int) -> None:
    """For tests that open hundreds of logs and cut no power."""


def stored(folder: Path) -> list[tuple[int, list[int]]]:
    log = FileLog(folder, ignore, sync=unsynced)
    try:
        return values(log)
    finally:
        log.close()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


class TestAppend:
    def test_positions_count_from_one(self, open_log: Callable[..., FileLog]) -> None:
        log = open_log()
        assert [log.append("s", frame(n), 0) for n in range(3)] == [1, 2, 3]

    def test_what_is_replayed_is_what_was_appended(self, open_log: Callable[..., FileLog]) -> None:
        many = pl.DataFrame({"t": ["a", None], "l": [[1], []], "s": [{"x": 1.5}, None]})
        log = open_log()
        log.append("päyments", many, 123)
        log.append("empty", many.clear(), -5)
        log.close()
        got = [(r.position, r.stream, r.received, r.frame.schema, r.frame.rows()) for r in open_log().replay(0)]
        assert got == [
            (1, "päyments", 123, many.schema, many.rows()),
            (2, "empty", -5, many.schema, []),
        ]

    def test_a_record_is_delivered_after_its_sync_and_before_append_returns(
        self, open_log: Callable[..., FileLog]
    ) -> None:
        happened: list[str] = []
        log = open_log(
            lambda record: happened.append(f"deliver {record.position}"),
            sync=lambda descriptor: happened.append("sync") or disk.sync(descriptor),
        )
        happened.clear()  # recovery syncs as well
        for n in (1, 2):
            log.append("s", frame(n), 0)
            happened.append(f"returned {n}")
        assert happened == ["sync", "deliver 1", "returned 1", "sync", "deliver 2", "returned 2"]

    def test_the_same_frame_from_many_threads_does_not_deadlock(self, open_log: Callable[..., FileLog]) -> None:
        """Polars stands still if one thread writes a frame while another asks its height; a clone each does not."""
        log, shared = open_log(), frame(*range(1_000))

        def work() -> None:
            for _ in range(50):
                log.append("s", shared, 0)
                assert shared.height == 1_000

        in_threads(8, work)
        assert log.position == 400

    def test_changing_a_frame_after_the_push_changes_nothing(self, open_log: Callable[..., FileLog]) -> None:
        got: list[Record] = []
        mine = frame(1)
        open_log(got.append).append("s", mine, 0)
        mine.replace_column(0, pl.Series("v", [99]))
        assert got[0].frame["v"].to_list() == [1]


def in_threads(count: int, work: Callable[[], None]) -> None:
    failures: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


class TestGroupCommit:
    def test_eight_threads_share_syncs_and_keep_one_order(self, open_log: Callable[..., FileLog]) -> None:
        """While the first delivery is held up, all that comes later gathers in one batch."""
        syncs: list[int] = []
        delivered: list[int] = []
        held, go = threading.Event(), threading.Event()

        def deliver(record: Record) -> None:
            held.set()
            go.wait()
            delivered.append(record.position)

        log = open_log(deliver, sync=lambda descriptor: syncs.append(1) or disk.sync(descriptor))
        syncs.clear()  # recovery syncs as well
        first = threading.Thread(target=log.append, args=("s", frame(0), 0))
        first.start()
        held.wait()
        threads = [threading.Thread(target=log.append, args=("s", frame(n), 0)) for n in range(7)]
        for thread in threads:
            thread.start()
        wait_until(log, lambda: len(log._next.entries) == 7)
        assert all(thread.is_alive() for thread in [first, *threads])
        go.set()
        for thread in [first, *threads]:
            thread.join()
        assert (delivered, len(syncs)) == (list(range(1, 9)), 2)

    def test_every_position_is_given_once(self, open_log: Callable[..., FileLog]) -> None:
        got: list[tuple[int, int]] = []
        delivered: list[tuple[int, int]] = []
        log = open_log(lambda r: delivered.append((r.position, r.frame["v"][0])), segment_bytes=5_000)
        counter = iter(range(10_000))

        def work() -> None:
            for _ in range(50):
                value = next(counter)
                got.append((log.append("s", frame(value), 0), value))

        in_threads(8, work)
        assert sorted(got) == delivered == [(p, v[0]) for p, v in values(log)]
        assert [position for position, _ in delivered] == list(range(1, 401))

    def test_appends_wait_while_too_much_is_waiting(self, open_log: Callable[..., FileLog]) -> None:
        held, go = threading.Event(), threading.Event()

        def deliver(_: Record) -> None:
            held.set()
            go.wait()

        log = open_log(deliver, waiting_bytes=1)
        threads = [threading.Thread(target=log.append, args=("s", frame(n), 0)) for n in range(4)]
        for thread in threads:
            thread.start()
        held.wait()
        wait_until(log, lambda: len(log._room._waiters) == 3)  # type: ignore[attr-defined]
        assert log._next.entries == []
        go.set()
        for thread in threads:
            thread.join()
        assert log.position == 4

    def test_close_finishes_what_is_in_flight(self, open_log: Callable[..., FileLog]) -> None:
        held, go = threading.Event(), threading.Event()
        delivered: list[int] = []

        def deliver(record: Record) -> None:
            held.set()
            go.wait()
            delivered.append(record.position)

        log = open_log(deliver)
        threads = [threading.Thread(target=log.append, args=("s", frame(n), 0)) for n in range(3)]
        for thread in threads:
            thread.start()
        held.wait()
        wait_until(log, lambda: log._position + len(log._next.entries) == 3)
        closing = threading.Thread(target=log.close)
        closing.start()
        go.set()
        for thread in [*threads, closing]:
            thread.join()
        assert delivered == [1, 2, 3]

    def test_a_closed_log_refuses(self, open_log: Callable[..., FileLog]) -> None:
        log = open_log()
        log.close()
        log.close()
        with pytest.raises(ClosedError, match="open the app again"):
            log.append("s", frame(1), 0)


def wait_until(log: FileLog, reached: Callable[[], bool]) -> None:
    """Yield to the other threads until the log is in a state that nothing announces."""
    for _ in range(10_000_000):
        with log._lock:
            if reached():
                return
        os.sched_yield()
    raise AssertionError("the log did not come to that state")


class TestKill:
    @pytest.mark.parametrize("seed", range(20))
    def test_what_was_acknowledged_is_there_after_kill_9(self, tmp_path: Path, seed: int) -> None:
        """Twice in a row on the same directory, so that what a recovery leaves is also recovered from."""
        draw = random.Random(seed)
        acknowledged: dict[int, int] = {}
        for _ in range(2):
            acknowledged |= self.run_and_kill(tmp_path / "log", draw.choice([1, 4]), draw.randrange(1, 150))
            found = stored(tmp_path / "log")
            assert [position for position, _ in found] == list(range(1, len(found) + 1))
            assert {p: v for p, [v] in found if p in acknowledged} == acknowledged

    def run_and_kill(self, folder: Path, threads: int, lines: int) -> dict[int, int]:
        child = subprocess.Popen(
            [sys.executable, CHILD, "push", folder, str(threads)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        read = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        # What it said between our last line and its death was acknowledged too; the last line may be torn.
        read += child.stdout.read().splitlines(keepends=True)
        child.stdout.close()
        child.wait()
        return {int(p): int(v) for p, v in (line.split() for line in read if line.endswith("\n"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three records, each in a batch of its own."""
    folder = tmp_path_factory.mktemp("whole") / "log"
    log = FileLog(folder, ignore)
    for n in (1, 2, 3):
        log.append("s", frame(n), 0)
    log.close()
    return folder


class TestTornTail:
    def ends(self, tmp_path: Path) -> list[int]:
        """The file's size after each of the three records."""
        log = FileLog(tmp_path / "sizes", ignore)
        sizes = []
        for n in (1, 2, 3):
            log.append("s", frame(n), 0)
            sizes.append(segments(tmp_path / "sizes")[0].stat().st_size)
        log.close()
        return sizes

    def test_a_tail_cut_at_any_byte_loses_only_the_last_record(self, whole: Path, tmp_path: Path) -> None:
        _, second, third = self.ends(tmp_path)
        data = segments(whole)[0].read_bytes()
        assert len(data) == third
        for size in range(second, third):
            path = self.copy(whole, tmp_path, data[:size])
            log = FileLog(path.parent, ignore, sync=unsynced)
            assert values(log) == [(1, [1]), (2, [2])]
            assert log.append("s", frame(9), 0) == 3
            log.close()
            assert stored(path.parent) == [(1, [1]), (2, [2]), (3, [9])]

    def test_a_tail_with_any_byte_wrong_loses_only_the_last_record(self, whole: Path, tmp_path: Path) -> None:
        _, second, third = self.ends(tmp_path)
        data = segments(whole)[0].read_bytes()
        for at in range(second, third):
            path = self.copy(whole, tmp_path, data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
            assert stored(path.parent) == [(1, [1]), (2, [2])]

    @settings(max_examples=60, deadline=None)
    @given(garbage=st.binary(min_size=1, max_size=300), zeros=st.integers(0, 5_000))
    def test_garbage_and_zeros_behind_the_end_are_cut(self, whole: Path, garbage: bytes, zeros: int) -> None:
        """A file system may show zeros where data was never written."""
        folder = whole.parent / "garbage"
        data = segments(whole)[0].read_bytes()
        for tail in (garbage, bytes(zeros) + garbage, bytes(zeros)):
            path = self.copy(whole, folder, data + tail)
            assert stored(path.parent) == [(1, [1]), (2, [2]), (3, [3])]
            assert path.read_bytes() == data

    def test_damage_before_a_whole_record_is_refused_at_any_byte(self, whole: Path, tmp_path: Path) -> None:
        first, second, _ = self.ends(tmp_path)
        data = segments(whole)[0].read_bytes()
        for at in range(first, second):
            path = self.copy(whole, tmp_path, data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
            with pytest.raises(StorageError, match=f"damaged: .*{path.name} at byte {first}: .*backup"):
                FileLog(path.parent, ignore)
            assert path.stat().st_size == len(data)

    def copy(self, whole: Path, tmp_path: Path, data: bytes) -> Path:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path = folder / segments(whole)[0].name
        path.write_bytes(data)
        return path


class TestSegments:
    def filled(self, open_log: Callable[..., FileLog], **options: int) -> FileLog:
        log = open_log(segment_bytes=600, **options)
        for n in range(1, 11):
            log.append("s", frame(n), 0)
        return log

    @pytest.mark.parametrize("after", range(12))
    def test_replay_begins_after_any_position(
        self, open_log: Callable[..., FileLog], tmp_path: Path, after: int
    ) -> None:
        log = self.filled(open_log)
        assert len(segments(tmp_path / "log")) > 3
        assert values(log, after) == [(n, [n]) for n in range(after + 1, 11)]

    def test_truncate_deletes_whole_segments_only(self, open_log: Callable[..., FileLog], tmp_path: Path) -> None:
        log = self.filled(open_log, keep_bytes=0)
        starts = [int(path.stem) for path in segments(tmp_path / "log")]
        log.truncate(starts[2] - 2)
        assert (log.first, values(log)[0][0]) == (starts[1], starts[1])
        log.truncate(starts[2] - 1)
        assert (log.first, values(log)[0][0]) == (starts[2], starts[2])

    def test_truncate_keeps_the_asked_history(self, open_log: Callable[..., FileLog], tmp_path: Path) -> None:
        log = self.filled(open_log, keep_bytes=1_500)
        log.truncate(10)
        sizes = [path.stat().st_size for path in segments(tmp_path / "log")]
        assert sum(sizes) >= 1_500 > sum(sizes[1:])

    def test_positions_go_on_after_all_was_truncated(self, open_log: Callable[..., FileLog]) -> None:
        log = self.filled(open_log, keep_bytes=0)
        log.truncate(10)
        log.close()
        assert open_log().append("s", frame(11), 0) == 11

    def test_damage_in_an_older_segment_is_found_by_replay(
        self, open_log: Callable[..., FileLog], tmp_path: Path
    ) -> None:
        self.filled(open_log).close()
        second = segments(tmp_path / "log")[1]
        data = bytearray(second.read_bytes())
        data[-1] ^= 1
        second.write_bytes(data)
        with pytest.raises(StorageError, match=f"{second.name} at byte .*checksum"):
            values(open_log())

    def test_a_missing_segment_is_found_by_replay(self, open_log: Callable[..., FileLog], tmp_path: Path) -> None:
        self.filled(open_log).close()
        files = segments(tmp_path / "log")
        files[1].unlink()
        with pytest.raises(StorageError, match=f"{files[0].name} at byte .*expected records up to"):
            values(open_log())

    def test_what_an_interrupted_start_of_a_segment_left_is_removed(
        self, open_log: Callable[..., FileLog], tmp_path: Path
    ) -> None:
        self.filled(open_log).close()
        left = tmp_path / "log" / "00000000000000000011.log.tmp"
        left.write_bytes(b"HRL")
        assert open_log().position == 10
        assert not left.exists()


class TestFailingDisk:
    def test_a_full_disk_refuses_and_then_goes_on(self, tmp_path: Path) -> None:
        """A limit on file sizes fails a write part way, as a full disk does."""
        child = subprocess.run(
            [sys.executable, CHILD, "fill", tmp_path / "log", "20000"], capture_output=True, text=True, check=True
        )
        refusal, position, delivered = child.stdout.splitlines()
        before, full, message = refusal.split(" ", 2)
        count = int(before)
        assert count > 1
        assert full == "True"
        assert "bytes were needed" in message
        assert message.endswith("then push again: nothing of this push was taken")
        assert (int(position), delivered) == (count + 1, str(list(range(1, count + 2))))
        assert [p for p, _ in stored(tmp_path / "log")] == list(range(1, count + 2))

    def test_a_failed_sync_stops_the_log(self, open_log: Callable[..., FileLog]) -> None:
        delivered: list[int] = []
        broken = False

        def sync(descriptor: int) -> None:
            if broken:
                raise OSError(errno.EIO, "Input/output error")
            disk.sync(descriptor)

        log = open_log(lambda record: delivered.append(record.position), sync=sync)
        log.append("s", frame(1), 0)
        broken = True
        with pytest.raises(StorageError, match="may or may not be stored"):
            log.append("s", frame(2), 0)
        broken = False
        with pytest.raises(StorageError, match="no more pushes are taken until a restart"):
            log.append("s", frame(3), 0)
        assert delivered == [1]

    def test_an_engine_that_fails_stops_the_log_and_loses_nothing(self, open_log: Callable[..., FileLog]) -> None:
        def deliver(record: Record) -> None:
            if record.position == 2:
                raise RuntimeError("boom")

        log = open_log(deliver)
        log.append("s", frame(1), 0)
        with pytest.raises(ClosedError, match=r"RuntimeError: boom.*processed after a restart: do not push it again"):
            log.append("s", frame(2), 0)
        with pytest.raises(ClosedError, match="no more pushes are taken until a restart"):
            log.append("s", frame(3), 0)
        log.close()
        assert values(open_log(), 1) == [(2, [2])]

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match=r"cannot use .*file/log as a directory: Not a directory"):
            FileLog(tmp_path / "file" / "log", ignore)


class TestMemoryLog:
    def test_it_delivers_in_order_and_keeps_nothing(self) -> None:
        got: list[int] = []
        log = MemoryLog(lambda record: got.append(record.position))
        in_threads(4, lambda: [log.append("s", frame(n), 0) for n in range(25)] and None)
        log.truncate(50)
        assert (got, log.position, log.first, list(log.replay(0))) == (list(range(1, 101)), 100, 101, [])

    def test_a_closed_one_refuses(self) -> None:
        log = MemoryLog(ignore)
        log.close()
        with pytest.raises(ClosedError, match="open the app again"):
            log.append("s", frame(1), 0)
