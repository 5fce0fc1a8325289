"""The queue in front of an embedder, with a real embedder that is told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.embed.base import Vectors
from headrace.documents.embed.hashed import HashEmbedder
from headrace.errors import ClosedError, InputError, StorageError
from headrace.runners.embedding import queue as queues
from headrace.runners.embedding.queue import EmbedQueue
from headrace.runners.embedding.sizes import BatchSize
from headrace.stores.embeddings import EmbeddingCache

PATIENCE = 20.0


class Model(HashEmbedder):
    """A hash embedder that remembers what it was asked, can be held, and can fail."""

    def __init__(self) -> None:
        super().__init__("hash:32")
        self.asked: list[list[str]] = []
        self.faults: list[Callable[[Sequence[str]], None]] = []
        self.held = threading.Event()  # set while nobody holds it
        self.held.set()
        self.entered = threading.Semaphore(0)
        self.poison: str | None = None

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Vectors:
        self.asked.append(list(texts))
        self.entered.release()
        if kind == "document":
            assert self.held.wait(PATIENCE)
        if self.faults:
            self.faults.pop(0)(texts)
        if self.poison is not None and any(self.poison in text for text in texts):
            raise InputError("poison")
        return super().embed(texts, kind)


def down(texts: Sequence[str]) -> None:
    raise StorageError("out of reach")


def keyed(*texts: str) -> list[tuple[bytes, str]]:
    return [(xxhash.xxh3_128_digest(text.encode()), text) for text in texts]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_FIRST_PAUSE", 0.001)


@pytest.fixture
def queue(model: Model) -> Iterator[EmbedQueue]:
    made = EmbedQueue(model, EmbeddingCache(None))
    yield made
    model.held.set()
    made.close()


class Waiting:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.found: Any = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self.found = call()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def result(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.found


def same(found: Sequence[Any], texts: Sequence[str]) -> bool:
    return bool(np.allclose(np.stack(found), HashEmbedder("hash:32").embed(texts)))


def test_texts_are_embedded_in_their_order(queue: EmbedQueue) -> None:
    texts = ["a long text of words", "b", "a long text of words", "", "c d"]
    assert same(queue.embed(keyed(*texts)), texts)


def test_no_texts(queue: EmbedQueue, model: Model) -> None:
    assert queue.embed([]) == []
    assert model.asked == []


def test_equal_texts_are_embedded_once_ever(queue: EmbedQueue, model: Model) -> None:
    queue.embed(keyed("a", "b", "a"))
    queue.embed(keyed("b", "c"))
    assert [sorted(batch) for batch in model.asked] == [["a", "b"], ["c"]]
    figures = queue.figures()
    assert (figures.texts, figures.hits, figures.misses) == (3, 1, 3)


@given(st.lists(st.lists(st.text(max_size=5), max_size=30), max_size=5))
def test_whatever_the_calls_each_gets_its_own(calls: list[list[str]]) -> None:
    model = Model()
    queue = EmbedQueue(model, EmbeddingCache(None), in_flight=3, depth=7)
    waiting = [Waiting(lambda texts=texts: queue.embed(keyed(*texts))) for texts in calls]
    assert [same(each.result(), texts) for each, texts in zip(waiting, calls, strict=True) if texts] == [
        True for texts in calls if texts
    ]
    assert sorted(text for batch in model.asked for text in batch) == sorted({t for texts in calls for t in texts})
    queue.close()


def test_poison_is_alone_in_its_fate(queue: EmbedQueue, model: Model) -> None:
    model.poison = "poison"
    texts = [f"text {number}" for number in range(50)] + ["poison one", "poison two"]
    found = queue.embed(keyed(*texts))
    assert [str(each) for each in found[50:]] == ["poison", "poison"]
    assert same(found[:50], texts[:50])
    assert queue.figures().refused == 2


def test_numbers_that_are_not_finite_are_the_texts_fault(
    queue: EmbedQueue, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(texts: Sequence[str], kind: str = "document") -> Vectors:
        vectors = HashEmbedder("hash:32").embed(texts)
        vectors[[text == "bad" for text in texts]] = np.nan
        return vectors

    monkeypatch.setattr(model, "embed", embed)
    good, bad = queue.embed(keyed("good", "bad"))
    assert same([good], ["good"])
    assert isinstance(bad, InputError)


def test_what_is_out_of_reach_is_tried_again(queue: EmbedQueue, model: Model) -> None:
    model.faults = [down, down, down]
    assert same(queue.embed(keyed("a", "b")), ["a", "b"])
    assert (queue.figures().errors, queue.problem) == (3, None)


def test_past_all_patience_those_who_wait_are_told(model: Model) -> None:
    queue = EmbedQueue(model, patience=0.02)
    model.faults = [down] * 1_000
    with pytest.raises(StorageError, match="out of reach"):
        queue.embed(keyed("a", "b"))
    assert queue.problem == "out of reach"
    assert queue.figures().queued == 0
    model.faults = []
    assert same(queue.embed(keyed("a")), ["a"])
    queue.close()


def test_wrong_dimensions_are_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = EmbedQueue(model, patience=0.01)
    monkeypatch.setattr(model, "embed", lambda texts, kind: np.zeros((len(texts), 31), dtype=np.float32))
    with pytest.raises(StorageError, match=r"expected 1 vectors of 32 numbers .* found \(1, 31\)"):
        queue.embed(keyed("a"))
    queue.close()


def test_an_embedder_that_breaks_does_not_stop_the_queue(queue: EmbedQueue, model: Model) -> None:
    def broken(texts: Sequence[str]) -> None:
        raise ZeroDivisionError("a mistake")

    model.faults = [broken]
    with pytest.raises(ZeroDivisionError):
        queue.embed(keyed("a"))
    assert same(queue.embed(keyed("a")), ["a"])


def test_live_goes_before_a_backfill(queue: EmbedQueue, model: Model) -> None:
    model.held.clear()
    words = "word " * 400
    backfill = Waiting(lambda: queue.embed(keyed(*(f"{n} {words}" for n in range(60))), lane="backfill"))
    assert model.entered.acquire(timeout=PATIENCE)  # its first batch
    live = Waiting(lambda: queue.embed(keyed("live")))
    while queue.figures().queued + queue.figures().running < 61:
        threading.Event().wait(0.001)
    model.held.set()
    live.result()
    backfill.result()
    assert model.asked[1] == ["live"]


def test_what_a_backfill_waits_for_can_be_wanted_sooner(queue: EmbedQueue, model: Model) -> None:
    model.held.clear()
    words = "word " * 400
    texts = [f"{n} {words}" for n in range(60)]
    backfill = Waiting(lambda: queue.embed(keyed(*texts), lane="backfill"))
    assert model.entered.acquire(timeout=PATIENCE)
    while queue.figures().queued + queue.figures().running < 60:
        threading.Event().wait(0.001)
    last = max(texts, key=lambda text: (len(text), text))
    live = Waiting(lambda: queue.embed(keyed(last)))
    while not any(last == text for batch in model.asked[1:] for text in batch):
        model.held.set()
        threading.Event().wait(0.001)
    assert same(live.result(), [last])
    assert same(backfill.result(), texts)
    assert sorted(text for batch in model.asked for text in batch) == sorted(texts)


def test_a_query_waits_for_nobody(queue: EmbedQueue, model: Model) -> None:
    model.held.clear()
    backfill = Waiting(lambda: queue.embed(keyed("a", "b"), lane="backfill"))
    assert model.entered.acquire(timeout=PATIENCE)
    assert same([queue.query("what"), queue.query("what")], ["what", "what"])
    assert (queue.figures().queries, queue.figures().query_hits) == (1, 1)
    model.held.set()
    backfill.result()


def test_a_query_is_tried_again_and_given_up(queue: EmbedQueue, model: Model) -> None:
    model.faults = [down]
    assert same([queue.query("what")], ["what"])
    model.faults = [down] * 1_000
    with pytest.raises(StorageError, match="out of reach"):
        queue.query("which", timeout=0.02)


def test_no_more_wait_than_there_is_room_for(model: Model) -> None:
    queue = EmbedQueue(model, depth=10)
    model.held.clear()
    texts = [str(number) for number in range(1_000)]
    call = Waiting(lambda: queue.embed(keyed(*texts)))
    assert model.entered.acquire(timeout=PATIENCE)
    assert queue.figures().queued <= 10
    model.held.set()
    assert same(call.result(), texts)
    queue.close()


def test_a_call_gives_up_in_time_and_leaves_nothing(queue: EmbedQueue, model: Model) -> None:
    model.held.clear()
    first = Waiting(lambda: queue.embed(keyed("first")))
    assert model.entered.acquire(timeout=PATIENCE)
    with pytest.raises(StorageError, match="not got to all texts in time"):
        queue.embed(keyed("second"), timeout=0.01)
    assert queue.figures().queued == 0
    model.held.set()
    first.result()
    assert model.asked == [["first"]]


def test_closing_ends_those_who_wait(model: Model) -> None:
    queue = EmbedQueue(model)
    model.faults = [down] * 1_000
    call = Waiting(lambda: queue.embed(keyed("a")))
    assert model.entered.acquire(timeout=PATIENCE)
    queue.close()
    with pytest.raises(ClosedError):
        call.result()
    with pytest.raises(ClosedError):
        queue.embed(keyed("b"))
    with pytest.raises(ClosedError):
        queue.query("b")


def test_without_its_cache_it_goes_on(model: Model) -> None:
    cache = EmbeddingCache(None)
    queue = EmbedQueue(model, cache)
    queue.embed(keyed("a"))
    cache._database.execute("DROP TABLE entries")
    assert same(queue.embed(keyed("a")), ["a"])
    assert queue.figures().cache_errors == 2
    queue.close()


def run(size: BatchSize, batches: int, seconds: Callable[[int], float]) -> list[int]:
    sizes = []
    for _ in range(batches):
        sizes.append(size.tokens)
        size.took(size.tokens, seconds(size.tokens))
    return sizes


def test_a_size_grows_while_it_pays() -> None:
    """A call costs 50 ms by itself and 10 µs a token: past 16,384 tokens there is little to gain."""
    sizes = run(BatchSize(10.0), 200, lambda tokens: 0.05 + tokens * 1e-5)
    assert max(sizes) >= 32_768


def test_a_size_that_does_not_pay_is_left() -> None:
    sizes = run(BatchSize(10.0), 200, lambda tokens: tokens * 1e-5 * (1 if tokens <= 4_096 else 1.5))
    assert sum(size <= 4_096 for size in sizes) > 180


def test_a_batch_that_takes_too_long_is_halved() -> None:
    sizes = run(BatchSize(0.1), 100, lambda tokens: tokens * 1e-4)
    assert sizes[-1] * 1e-4 <= 0.1


def test_failing_makes_batches_small() -> None:
    size = BatchSize(1.0)
    for _ in range(10):
        size.failed()
    assert size.tokens == 512
