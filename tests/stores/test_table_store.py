"""A table at rest: its newest rows, its history, and where its sources stand, in step whatever is interrupted."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ClosedError, StorageError
from headrace.stores.tables import Feed, TableStore, Write

PUSH = Feed("push")


@pytest.fixture
def store(tmp_path: Path):
    store = TableStore(tmp_path / "table.db")
    yield store
    store.close()


def row(key: str, body: str | None, version: int | None = None, at: int = 1) -> Write:
    return Write(key, "article", None if body is None else body.encode(), at, version)


def current(store: TableStore) -> dict[str, str]:
    return {one.key: one.body.decode() for one in store.since(0, 10_000, 1 << 30)[0] if one.body is not None}


class TestWriting:
    def test_a_row_takes_the_place_of_the_one_with_its_key(self, store):
        store.apply([row("a", "1"), row("b", "1"), row("a", "2")], PUSH, 5)
        assert current(store) == {"a": "2", "b": "1"}

    def test_a_deleted_row_stays_as_a_mark(self, store):
        store.apply([row("a", "1")], PUSH, 5)
        store.apply([row("a", None)], PUSH, 6)
        assert [(one.key, one.body) for one in store.since(1, 10, 1000)[0]] == [("a", None)]
        assert (store.count(), store.get(["a"])) == (0, {})

    def test_a_row_told_again_changes_nothing(self, store):
        first = store.apply([row("a", "1")], PUSH, 5)
        again = store.apply([row("a", "1")], PUSH, 6)
        assert (again.seq, again.changed, again.same) == (first.seq, 0, 1)

    def test_deleting_what_is_not_there_changes_nothing(self, store):
        assert store.apply([row("a", None)], PUSH, 5).seq == 0

    def test_an_older_version_does_not_win(self, store):
        applied = store.apply([row("a", "new", 2), row("a", "old", 1)], PUSH, 5)
        assert (current(store), applied.older) == ({"a": "new"}, 1)

    def test_a_message_told_again_does_not_bring_back_what_was_deleted(self, store):
        store.apply([row("a", "1", 1), row("a", None), row("a", "1", 1)], PUSH, 5)
        assert current(store) == {}

    def test_a_deletion_that_overtakes_its_row_is_remembered(self, store):
        store.apply([row("a", None, 2), row("a", "1", 1)], PUSH, 5)
        assert current(store) == {}


class TestFollowing:
    def test_each_row_is_told_once_as_it_is_now(self, store):
        store.apply([row("a", "1"), row("b", "1")], PUSH, 5)
        store.apply([row("a", "2")], PUSH, 6)
        assert [(one.key, one.seq) for one in store.since(0, 10, 1000)[0]] == [("b", 2), ("a", 3)]

    def test_batches_are_bounded_by_rows_and_bytes(self, store):
        store.apply([row(str(n), "x" * 100) for n in range(10)], PUSH, 5)
        assert len(store.since(0, 3, 1 << 20)[0]) == 3
        assert len(store.since(0, 10, 250)[0]) == 2
        assert len(store.since(0, 10, 1)[0]) == 1
        assert (store.waiting(4), store.waiting(10)) == (6, 0)

    def test_a_row_that_moved_on_is_told_where_it_was(self, store):
        """A token of the first change of `a` names 1; who has followed up to 2 must have seen `a`."""
        store.apply([row("a", "1"), row("b", "1"), row("c", "1")], PUSH, 5)
        store.apply([row("a", "2")], PUSH, 6)
        revisions, upto = store.since(0, 1, 1000)
        assert upto == 2
        assert {one.key: one.body for one in revisions} == {"b": b"1", "a": b"2"}

    def test_rows_up_to_a_change_are_told_as_they_were_then(self, store):
        store.apply([row("a", "1"), row("b", "1"), row("c", "1")], PUSH, 5)
        store.apply([row("a", "2"), row("c", None)], PUSH, 6)
        store.apply([row("b", "2"), row("d", "1")], PUSH, 7)

        def told(after, limit, stop):
            revisions, upto = store.since(after, limit, 1000, stop)
            return {one.key: (one.seq, one.body) for one in revisions}, upto

        assert told(0, 10, 3) == ({"a": (1, b"1"), "b": (2, b"1"), "c": (3, b"1")}, 3)
        assert told(0, 10, 4) == ({"a": (4, b"2"), "b": (2, b"1"), "c": (3, b"1")}, 4)
        assert told(3, 10, 6) == ({"a": (4, b"2"), "c": (5, None), "b": (6, b"2")}, 6)
        assert told(3, 1, 6) == ({"a": (4, b"2")}, 4)
        assert told(6, 10, 6) == ({}, 6)
        assert told(6, 10, 100) == ({"d": (7, b"1")}, 7)

    def test_what_was_erased_is_not_told_as_it_was(self, store):
        store.apply([row("a", "secret"), row("b", "1")], PUSH, 5)
        store.apply([row("a", None)], PUSH, 6)
        store.erase(["a"])
        revisions, upto = store.since(0, 10, 1000, 2)
        assert ({one.key: one.body for one in revisions}, upto) == ({"b": b"1"}, 2)
        assert [(one.key, one.body) for one in store.since(2, 10, 1000, 3)[0]] == [("a", None)]

    def test_pushes_from_many_threads_are_numbered_one_after_the_other(self, store):
        threads = [
            threading.Thread(target=lambda n=n: [store.apply([row(f"{n}-{m}", "1")], PUSH, 1) for m in range(30)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [one.seq for one in store.since(0, 1000, 1 << 20)[0]] == list(range(1, 121))


class TestSources:
    def test_a_position_is_written_with_its_rows(self, tmp_path):
        store = TableStore(tmp_path / "table.db")
        store.apply([row("a", "1")], Feed("kafka", {"0": 7}), 5)
        store.close()
        again = TableStore(tmp_path / "table.db")
        assert (again.position("kafka"), again.position("push"), again.seq) == ({"0": 7}, None, 1)
        again.close()

    def test_nothing_is_written_if_the_batch_fails(self, store):
        def half():
            yield row("a", "1")
            raise StorageError("the source broke")

        with pytest.raises(StorageError):
            store.apply(half(), Feed("kafka", {"0": 7}), 5)
        assert (current(store), store.position("kafka"), store.seq) == ({}, None, 0)

    def test_a_complete_snapshot_takes_away_what_it_did_not_tell(self, store):
        store.apply([row("a", "1"), row("b", "1")], Feed("dir", 1, begins=True, complete=True), 5)
        store.apply([row("pushed", "1")], PUSH, 5)
        store.apply([row("a", "1")], Feed("dir", 2, begins=True), 6)
        assert current(store) == {"a": "1", "b": "1", "pushed": "1"}
        store.apply([], Feed("dir", 3, complete=True), 6)
        assert current(store) == {"a": "1", "pushed": "1"}

    def test_truncate_takes_away_what_came_from_that_source(self, store):
        store.apply([row("a", "1"), row("b", "1")], Feed("pg", 1), 5)
        store.apply([row("c", "1")], PUSH, 5)
        store.apply([None, row("d", "1")], Feed("pg", 2), 6)
        assert current(store) == {"c": "1", "d": "1"}

    def test_rows_that_come_again_after_a_truncate_are_there_again(self, store):
        store.apply([row("a", "1", 7)], Feed("q", 1), 5)
        store.apply([None], Feed("q", 2), 6)
        store.apply([row("a", "1", 7)], Feed("q", 3), 7)
        assert current(store) == {"a": "1"}


class TestHistory:
    def test_rows_as_they_were(self, store):
        store.apply([row("a", "1"), row("b", "1")], PUSH, 100)
        store.apply([row("a", "2"), row("b", None)], PUSH, 200)
        assert {one.key: one.body for one in store.as_of(seq=2)} == {"a": b"1", "b": b"1"}
        assert {one.key: one.body for one in store.as_of(stored=150)} == {"a": b"1", "b": b"1"}
        assert {one.key: one.body for one in store.as_of()} == {"a": b"2"}

    def test_what_held_at_the_horizon_is_kept(self, store):
        for number, time in enumerate((100, 200, 300), 1):
            store.apply([row("a", str(number))], PUSH, time)
        assert store.prune(250, 3) == 1
        assert {one.body for one in store.as_of(stored=260)} == {b"2"}
        assert list(store.as_of(stored=150)) == []

    def test_marks_of_deletions_go_once_all_have_passed(self, store):
        store.apply([row("a", "1")], PUSH, 100)
        store.apply([row("a", None)], PUSH, 200)
        store.prune(300, 1)
        assert len(store.since(0, 10, 100)[0]) == 1
        store.prune(300, 2)
        assert store.since(0, 10, 100)[0] == []

    def test_erasing_forgets_all_revisions_of_what_was_deleted(self, store):
        store.apply([row("a", "secret"), row("b", "kept")], PUSH, 100)
        store.apply([row("a", None)], PUSH, 200)
        assert store.erase(["a", "b"]) == 1
        assert {one.key for one in store.as_of(seq=2)} == {"b"}


KEYS = st.sampled_from("abcd")
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.sampled_from(["1", "2", "3"])),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("reopen"), st.none(), st.none()),
    ),
    max_size=25,
)


@given(operations=OPERATIONS)
def test_a_follower_that_asks_now_and_then_knows_the_table(tmp_path_factory, operations):
    path = tmp_path_factory.mktemp("table") / "t.db"
    store, oracle, versions = TableStore(path), {}, {0: {}}
    followed, known = 0, {}
    behind, then = 0, {}
    seen: list[tuple[int, dict]] = []
    for number, (what, key, value) in enumerate(operations):
        if what == "reopen":
            store.close()
            store = TableStore(path)
        else:
            store.apply([row(key, value)], PUSH, number)
            if value is None:
                oracle.pop(key, None)
            else:
                oracle[key] = value
            versions[store.seq] = dict(oracle)
        if number % 3 == 0:
            changes, followed = store.since(followed, 2, 1000)
            known |= {one.key: one.body for one in changes}
            seen.append((followed, {key: body and body.decode() for key, body in known.items()}))
            rows, behind = store.since(behind, 2, 1000, max(behind, store.seq - 1))
            then |= {one.key: one.body for one in rows}
            # Who wants rows as they were has just what the table was at that change.
            assert {key: body.decode() for key, body in then.items() if body is not None} == versions[behind]
    for one in store.since(followed, 100, 1000)[0]:
        known[one.key] = one.body
    assert {key: body.decode() for key, body in known.items() if body is not None} == oracle == current(store)
    for followed, rows in seen:
        # Whoever has followed up to a change has seen every row as it was then, or as it was later.
        for key in "abcd":
            assert rows.get(key) in [later.get(key) for seq, later in versions.items() if seq >= followed]
    for seq, rows in versions.items():
        assert {one.key: one.body.decode() for one in store.as_of(seq=seq)} == rows
    store.close()


def test_a_closed_store_says_so(tmp_path):
    store = TableStore(tmp_path / "table.db")
    store.close()
    with pytest.raises(ClosedError, match="open the app again"):
        store.apply([row("a", "1")], PUSH, 1)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "table.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="restore it from a backup"):
        TableStore(tmp_path / "table.db")
