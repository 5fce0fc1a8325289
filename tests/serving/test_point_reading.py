"""Features, collections and tables read at one point: every write before it is seen, and none after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count, cycle
from typing import Any

import pytest

import headrace as hr
from headrace.documents.embed.base import Vectors
from headrace.documents.embed.hashed import HashEmbedder
from headrace.errors import ClosedError, StaleError, UnknownNameError
from headrace.runners.library.search import Asked
from headrace.serving.live import Live
from headrace.serving.point import point
from headrace.serving.read_point import ReadPoint

START = datetime(2026, 1, 1, tzinfo=UTC)


class Note(hr.Document):
    id: str
    body: str


class Left(hr.Event):
    key: str
    n: int
    at: datetime = hr.event_time()


class Right(hr.Event):
    key: str
    n: int
    at: datetime = hr.event_time()


class GatedEmbedder:
    """The hash embedder, which waits for leave before each batch of documents."""

    limit = 512

    def __init__(self) -> None:
        self._inner = HashEmbedder("hash")
        self.name, self.dimension = "gated", self._inner.dimension
        self._leave = threading.Semaphore(0)
        self._open = threading.Event()
        self.waiting = threading.Event()

    def offsets(self, text: str) -> Any:
        return self._inner.offsets(text)

    def embed(self, texts: Sequence[str], kind: str = "document") -> Vectors:
        if kind == "document" and not self._open.is_set():
            self.waiting.set()
            self._leave.acquire()
        return self._inner.embed(texts)

    def give_leave(self) -> None:
        self._leave.release()

    def open(self) -> None:
        self._open.set()
        self._leave.release()


def make_app(embedder: Any, **options: Any) -> hr.App:
    app = hr.App("points", **options)
    left, right = app.stream(Left), app.stream(Right)
    notes = app.table(Note, key="id", name="notes")
    other = app.table(Note, key="id", name="other")

    @app.features(left, key="key")
    class LeftView:
        n = hr.last("n")
        count = hr.count(over="1h", every="1m")

    @app.features(right, key="key")
    class RightView:
        n = hr.last("n")

    app.collection("notes_found", notes, text="body", embed=embedder, index="memory:")
    app.collection("other_found", other, text="body", embed="hash", index="memory:")
    assert (LeftView.name, RightView.name) == ("left_view", "right_view")
    return app


@contextmanager
def opened(**options: Any) -> Iterator[tuple[Live, GatedEmbedder]]:
    embedder = GatedEmbedder()
    with make_app(embedder, **options).open() as live:
        try:
            yield live, embedder
        finally:
            embedder.open()


def event(n: int) -> dict[str, Any]:
    return {"key": "k", "n": n, "at": datetime.now(UTC)}


def write(live: Live, what: str, n: int) -> hr.Token:
    if what == "notes":
        return live.push("notes", {"id": "one", "body": f"number {n}"})
    return live.push(what, event(n))


def lookups(live: Live) -> list[Any]:
    return [(live.app.views["left_view"], "k"), (live.app.views["right_view"], "k")]


def found(live: Live, read: ReadPoint, collection: str = "notes_found") -> list[int]:
    asked = Asked.of(live.library.collections[collection], "number", 1000, None, "words", 0.0)
    return sorted(int(hit.text.split()[-1]) for hit in read.search(collection, asked))


def state(live: Live, read: ReadPoint) -> dict[str, int]:
    left, right = (row.n or 0 for row in read.rows)
    return {"notes": max(found(live, read), default=0), "left": left, "right": right}


def is_prefix(seen: dict[str, int], order: Sequence[str]) -> bool:
    """Whether writes of 1, 2, 3 … to each in that order, all before some place and none after, make this."""
    numbers = [seen[what] for what in order]
    return numbers == sorted(numbers, reverse=True) and numbers[-1] >= numbers[0] - 1


ORDERS = [("notes", "left", "right"), ("left", "right", "notes"), ("left", "notes", "right")]


@pytest.mark.parametrize("order", ORDERS, ids=["-".join(one) for one in ORDERS])
@pytest.mark.parametrize("readers", [1, 2])
def test_every_point_is_a_prefix_of_the_writes(order: tuple[str, ...], readers: int) -> None:
    done, problems = threading.Event(), []
    tally: list[bool] = []
    written: list[int] = []
    with opened() as (live, embedder):

        def writing() -> None:
            try:
                while len(tally) < 500:
                    written.append(len(written) + 1)
                    for what in order:
                        write(live, what, written[-1])
            finally:
                done.set()

        def reading() -> None:
            try:
                for number in cycle(range(10)):
                    if done.is_set():
                        return
                    # The embedder waits for leave, which only a reader gives.
                    with point(live, lookups(live), ["notes_found"], [], patience=0.1) as read:
                        seen = state(live, read)
                    tally.append(read.consistent)
                    if read.consistent and not is_prefix(seen, order):
                        problems.append(seen)
                    if number % 3 == 0:
                        embedder.give_leave()
            finally:
                embedder.give_leave()

        with point(live, lookups(live), ["notes_found"], []):
            pass  # from here on the history is kept
        threads = [threading.Thread(target=writing), *(threading.Thread(target=reading) for _ in range(readers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        embedder.open()
        live.drain(10)
        with point(live, lookups(live), ["notes_found"], []) as read:
            last = state(live, read)
    assert problems == []
    assert set(last.values()) == {len(written)}
    # The embedder may be waiting for leave when a read runs out of patience: that is said, and never counted.
    assert sum(tally) > 0.5 * len(tally)


def test_features_are_read_as_of_what_the_collection_has() -> None:
    with opened() as (live, embedder):
        write(live, "notes", 1)
        embedder.give_leave()
        write(live, "left", 1)
        live.drain(10)
        with point(live, lookups(live), ["notes_found"], []) as read:
            assert state(live, read) == {"notes": 1, "left": 1, "right": 0}
        write(live, "right", 1)
        write(live, "notes", 2)
        last = write(live, "left", 2)
        live.read("left_view", "k", after=last)
        with point(live, lookups(live), ["notes_found"], ["notes"]) as read:
            assert (read.consistent, read.why) == (True, "")
            assert state(live, read) == {"notes": 1, "left": 1, "right": 1}
            assert read.table_seq("notes") == 1
            assert read.positions == {"push": 2, "table/notes": 1}


def test_a_held_point_stays_where_it_is() -> None:
    with opened() as (live, embedder):
        embedder.open()
        write(live, "notes", 1)
        live.drain(10)
        with point(live, lookups(live), ["notes_found"], []) as read:
            live.push("notes", {"id": "two", "body": "number 2"})
            live.delete("notes", ["one"])
            live.drain(10)
            assert found(live, read) == [1]
        with point(live, [], ["notes_found"], []) as read:
            assert found(live, read) == [2]


def test_after_a_token_the_point_is_behind_its_write() -> None:
    with opened() as (live, embedder):
        embedder.open()
        for n in range(1, 30):
            write(live, "notes", n)
            write(live, "left", n)
            token = write(live, "right", n)
            with point(live, lookups(live), ["notes_found"], [], after=token) as read:
                assert state(live, read) == {"notes": n, "left": n, "right": n}


def test_after_a_token_of_a_table() -> None:
    with opened() as (live, embedder):
        embedder.open()
        for n in range(1, 30):
            token = write(live, "notes", n)
            with point(live, lookups(live), ["notes_found"], ["notes"], after=token) as read:
                assert found(live, read) == [n]
                assert read.table_seq("notes") == n


def test_a_token_that_is_not_reached_in_time() -> None:
    with opened() as (live, _):
        token = write(live, "notes", 1)
        reading = point(live, [], ["notes_found"], [], after=token, timeout=0.05)
        with pytest.raises(StaleError, match="notes_found"), reading:
            pass
        with point(live, lookups(live), ["notes_found"], [], timeout=0.05):
            pass  # from here on the history is kept
        token = write(live, "left", 1)
        reading = point(live, lookups(live), ["notes_found"], [], after=token, timeout=0.05)
        with pytest.raises(StaleError, match="behind the write of the token"), reading:
            pass


def test_without_a_history_that_reaches_back_the_point_says_so() -> None:
    with opened() as (live, _embedder):
        write(live, "notes", 1)
        last = write(live, "left", 1)
        live.read("left_view", "k", after=last)
        with point(live, lookups(live), ["notes_found"], [], timeout=0.05) as read:
            assert not read.consistent
            assert "notes_found" in read.why
            assert state(live, read) == {"notes": 0, "left": 1, "right": 0}


def test_a_history_that_is_full_forgets_the_oldest() -> None:
    with opened() as (live, _embedder):
        with point(live, lookups(live), ["notes_found"], []) as read:
            assert read.consistent
        history = live._runner.engine.history
        history.most_bytes = 10_000
        write(live, "notes", 1)
        for n in range(1, 100):
            live.read("left_view", "k", after=write(live, "left", n))
        assert 0 < history.bytes <= 10_000
        with point(live, lookups(live), ["notes_found"], [], timeout=0.05) as read:
            assert not read.consistent


def test_nothing_is_kept_when_nothing_is_on_its_way() -> None:
    with opened() as (live, embedder):
        with point(live, lookups(live), ["notes_found"], []):
            pass
        history = live._runner.engine.history
        write(live, "notes", 1)
        live.read("left_view", "k", after=write(live, "left", 1))
        assert len(history) == 1
        embedder.open()
        live.drain(10)
        live.read("left_view", "k", after=write(live, "left", 2))
        assert (len(history), history.bytes) == (0, 0)


def test_two_collections_that_are_apart() -> None:
    with opened() as (live, embedder):
        write(live, "notes", 1)
        live.push("other", {"id": "x", "body": "number 7"})
        live.library.followed("other_found", 1, 10)
        with point(live, [], ["notes_found", "other_found"], [], timeout=0.05) as read:
            assert not read.consistent
            assert "notes_found" in read.why
        embedder.open()
        with point(live, [], ["notes_found", "other_found"], []) as read:
            assert read.consistent
            assert (found(live, read), found(live, read, "other_found")) == ([1], [7])


def test_one_point_is_waited_for_without_patience() -> None:
    with opened() as (live, embedder):
        write(live, "notes", 1)
        live.push("other", {"id": "x", "body": "number 7"})
        live.library.followed("other_found", 1, 10)
        reading = point(live, [], ["notes_found", "other_found"], [], timeout=0.05, patience=None)
        with pytest.raises(StaleError, match=r"one point within 0\.05 s; notes_found"), reading:
            pass
        assert embedder.waiting.wait(10)
        reads: list[ReadPoint] = []

        def read() -> None:
            with point(live, [], ["notes_found", "other_found"], [], timeout=30, patience=None) as one:
                reads.append(one)

        reader = threading.Thread(target=read)
        reader.start()
        embedder.open()
        reader.join()
        assert [one.consistent for one in reads] == [True]


class BrokenEmbedder(HashEmbedder):
    """Cannot embed what it does not like, and has no way to say so."""

    def embed(self, texts: Sequence[str], kind: str = "document") -> Vectors:
        if any("broken" in text for text in texts):
            raise RuntimeError("this is a defect")
        return super().embed(texts)


def test_a_collection_that_has_stopped_is_not_waited_for() -> None:
    with make_app(BrokenEmbedder("hash")).open() as live:
        stopped = live.library.collections["notes_found"]
        live.push("notes", {"id": "one", "body": "broken"})
        with pytest.raises(ClosedError, match="notes_found"):
            stopped.wait(lambda: False, 30)
        live.push("other", {"id": "x", "body": "number 7"})
        live.library.followed("other_found", 1, 10)
        with point(live, lookups(live), ["notes_found", "other_found"], [], timeout=30, patience=None) as read:
            assert not read.consistent
            assert "has stopped" in read.why


def test_two_collections_meet_though_others_write_without_a_pause() -> None:
    done = threading.Event()
    with opened() as (live, embedder):
        embedder.open()

        def writing() -> None:
            for n in count(1):
                if done.is_set():
                    return
                write(live, "notes", n)
                write(live, "left", n)
                live.push("other", {"id": "one", "body": f"number {n}"})
                write(live, "right", n)

        writer = threading.Thread(target=writing)
        writer.start()
        try:
            for _ in range(30):
                collections = ["notes_found", "other_found"]
                with point(live, lookups(live), collections, [], timeout=30, patience=None) as read:
                    seen = {**state(live, read), "other": max(found(live, read, "other_found"), default=0)}
                assert read.consistent
                assert is_prefix(seen, ("notes", "left", "other", "right"))
        finally:
            done.set()
            writer.join()


def test_the_newest_of_each_when_asked_for() -> None:
    with opened() as (live, _):
        write(live, "notes", 1)
        live.read("left_view", "k", after=write(live, "left", 1))
        with point(live, lookups(live), ["notes_found"], ["notes"], consistent=False) as read:
            assert (read.consistent, state(live, read)["left"], read.table_seq("notes")) == (False, 1, 0)


def test_a_condition_holds_at_the_moment_though_the_index_has_moved_on() -> None:
    app = hr.App("filtered")

    class Story(hr.Document):
        id: str
        body: str
        lang: str = "en"

    app.table(Story, key="id")
    app.collection("stories", app.tables["story"], text="body", embed="hash", index="memory:")
    with app.open() as live:
        live.push("story", {"id": "a", "body": "number 1", "lang": "en"})
        live.drain(10)
        asked = Asked.of(live.library.collections["stories"], "number", 5, {"lang": "en"}, "words", 0.0)
        with point(live, [], ["stories"], []) as read:
            live.push("story", {"id": "a", "body": "number 1", "lang": "de"})
            live.drain(10)
            assert [hit.columns["lang"] for hit in read.search("stories", asked)] == ["en"]
        with point(live, [], ["stories"], []) as read:
            assert read.search("stories", asked) == []


def test_names_that_are_not_there() -> None:
    with opened() as (live, _):
        with pytest.raises(UnknownNameError, match="notes_found"), point(live, [], ["note_found"], []):
            pass
        with pytest.raises(UnknownNameError, match="name it when reading"), point(live, [], [], []) as read:
            read.table_seq("notes")


def test_everything_is_let_go_of_when_the_block_raises() -> None:
    with opened() as (live, embedder):
        embedder.open()
        with pytest.raises(ValueError, match="mine"), point(live, lookups(live), ["notes_found"], []):
            raise ValueError("mine")
        collection = live.library.collections["notes_found"]
        assert collection.readers.gone_before(collection.readers.epoch)
