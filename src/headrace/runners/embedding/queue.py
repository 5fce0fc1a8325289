"""The queue in front of an embedder: what is known is not embedded again, and what is new goes in good batches.

A call of `embed` looks its texts up in the cache by their hashes, and queues the others; a text that two calls want is
embedded once. Batches are made of one lane at a time: live edits go before a backfill, which waits for no longer than
one batch. A search's query does not queue at all: embedders may be used from any thread, so it runs in the caller's.

What goes wrong is told apart by whose fault it is. A batch that the embedder refuses (InputError) is halved until the
text that it cannot take is alone: that one is the call's answer in its place, and the others have their vectors. An
embedder that is out of reach (StorageError) is tried again, with growing pauses; after `patience` seconds without any
success the calls that wait are told, and what was embedded for them until then is in the cache when they come again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from headrace.documents.embed.base import Embedder, Vectors
from headrace.errors import ClosedError, InputError, StorageError
from headrace.runners.embedding.lanes import Call, Item, Lane, Lanes, Vector
from headrace.runners.embedding.sizes import BatchSize
from headrace.stores.embeddings import EmbeddingCache

logger = logging.getLogger("headrace")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_LONGEST_BATCH, _LONGEST_REMOTE_BATCH = 1.0, 10.0
_QUERIES = 1_024
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class EmbedFigures:
    """What a queue has done, since it was made.

    Attributes:
        texts: Embedded.
        tokens: Of them, about: four characters count as one.
        hits: Texts that were in the cache.
        misses: Texts that were not.
        seconds: Spent in the embedder, over all threads.
        errors: Calls of the embedder that failed and were tried again.
        refused: Texts that cannot be embedded.
        queries: Embedded for searches.
        query_hits: Queries that were remembered.
        queued: Texts that wait now.
        running: Texts that are being embedded now.
        batch: Tokens of a batch now.
        cache_errors: Reads and writes of the cache that failed; its texts were embedded anew.
    """

    texts: int = 0
    tokens: int = 0
    hits: int = 0
    misses: int = 0
    seconds: float = 0.0
    errors: int = 0
    refused: int = 0
    queries: int = 0
    query_hits: int = 0
    queued: int = 0
    running: int = 0
    batch: int = 0
    cache_errors: int = 0


class EmbedQueue:
    """Embeds texts for any number of threads.

    Args:
        embedder: The model.
        cache: Where vectors are kept; None for nowhere.
        in_flight: Batches at a time; what the embedder says, or 1.
        depth: Texts that may wait; who brings more waits until there is room.
        patience: Seconds of failing after which those who wait are told.
    """

    def __init__(
        self,
        embedder: Embedder,
        cache: EmbeddingCache | None = None,
        *,
        in_flight: int | None = None,
        depth: int = 10_000,
        patience: float = 15.0,
    ) -> None:
        self.embedder = embedder
        self.problem: str | None = None
        self._cache = cache
        self._workers = in_flight or int(getattr(embedder, "in_flight", 1))
        self._depth = depth
        self._patience = patience
        self._size = BatchSize(_LONGEST_BATCH if self._workers == 1 else _LONGEST_REMOTE_BATCH)
        self._changed = threading.Condition()
        self._lanes = Lanes()
        self._figures = EmbedFigures()
        self._queries: OrderedDict[str, Vector] = OrderedDict()
        self._failing: float | None = None  # since when
        self._attempts = 0
        self._not_before = 0.0
        self._closed = False
        self._threads: list[threading.Thread] = []

    def embed(
        self, texts: Sequence[tuple[bytes, str]], *, lane: Lane = "live", timeout: float | None = None
    ) -> list[Vector | InputError]:
        """The vector of each text, or why it has none; waits for them.

        Args:
            texts: Each with its hash, 16 bytes: equal hashes are equal texts.
            lane: "backfill" lets everything live go before.
            timeout: Seconds; None waits as long as the embedder gets on.

        Raises:
            StorageError: The embedder is out of reach, or `timeout` is over.
            ClosedError: The queue was closed.
        """
        wanted = dict(texts)
        found: dict[bytes, Vector | InputError] = dict(self._known(list(wanted)))
        missing = sorted((hash for hash in wanted if hash not in found), key=lambda hash: len(wanted[hash]))
        self._count(hits=len(wanted) - len(missing), misses=len(missing))
        if missing:
            found |= self._wait_for([(hash, wanted[hash]) for hash in missing], lane, timeout)
        return [found[hash] for hash, _ in texts]

    def query(self, text: str, *, timeout: float = 10.0) -> Vector:
        """The vector of a search's query; the last thousand are remembered.

        Raises:
            InputError: It cannot be embedded.
            StorageError: The embedder is out of reach, for `timeout` seconds.
            ClosedError: The queue was closed.
        """
        with self._changed:
            self._check_open()
            known = self._queries.get(text)
            if known is not None:
                self._queries.move_to_end(text)
                self._figures = replace(self._figures, query_hits=self._figures.query_hits + 1)
                return known
        deadline = time.monotonic() + timeout
        for attempt in range(1 << 30):
            try:
                vector: Vector = self._asked([text], "query")[0]
                break
            except StorageError:
                pause = _pause(attempt)
                with self._changed:
                    self._check_open()
                    if time.monotonic() + pause > deadline:
                        raise
                    self._changed.wait_for(lambda: self._closed, pause)
        with self._changed:
            self._figures = replace(self._figures, queries=self._figures.queries + 1)
            self._queries[text] = vector
            while len(self._queries) > _QUERIES:
                self._queries.popitem(last=False)
        return vector

    def figures(self) -> EmbedFigures:
        """What it has done, and what waits now."""
        with self._changed:
            queued, running = self._lanes.queued, self._lanes.running
            return replace(self._figures, queued=queued, running=running, batch=self._size.tokens)

    def close(self) -> None:
        """Ends; who waits gets ClosedError. The embedder and the cache belong to others. Again does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    # The callers' side.

    def _known(self, hashes: list[bytes]) -> dict[bytes, Vector]:
        if self._cache is None:
            return {}
        try:
            found = self._cache.get(self.embedder.name, hashes)
        except StorageError as error:
            self._without_cache(error)
            return {}
        return {hash: vector for hash, vector in found.items() if len(vector) == self.embedder.dimension}

    def _wait_for(
        self, texts: list[tuple[bytes, str]], lane: Lane, timeout: float | None
    ) -> dict[bytes, Vector | InputError]:
        deadline = None if timeout is None else time.monotonic() + timeout
        call = Call(len(texts))
        limit = self.embedder.limit
        with self._changed:
            try:
                for hash, text in texts:
                    self._wait(lambda: self._lanes.queued < self._depth or call.error is not None, deadline)
                    if call.error is None:
                        self._lanes.add(hash, text, min(len(text) // 4 + 1, limit), lane, call)
                        self._start()
                        self._changed.notify_all()
                self._wait(lambda: not call.remaining or call.error is not None, deadline)
                if call.error is not None:
                    raise call.error
            finally:
                self._lanes.leave(call, [hash for hash, _ in texts])
                self._changed.notify_all()
        return call.results

    def _wait(self, ready: Any, deadline: float | None) -> None:
        while not (self._closed or ready()):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                why = f": {self.problem}" if self.problem else f" ({self._lanes.queued} texts wait)"
                raise StorageError(f"the embedder {self.embedder.name} has not got to all texts in time{why}")
            self._changed.wait(left)
        self._check_open()

    def _start(self) -> None:
        while len(self._threads) < self._workers:
            name = f"headrace-embed-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
            self._threads[-1].start()

    # The workers' side.

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            self._run(batch)

    def _take(self) -> list[Item] | None:
        """The next batch, of the first lane that has something; None when the queue is closed."""
        with self._changed:
            while not self._closed:
                pause = self._not_before - time.monotonic()
                if pause > 0:
                    self._changed.wait(pause)
                    continue
                if batch := self._lanes.take(self._size.tokens):
                    self._changed.notify_all()
                    return batch
                self._changed.wait()
            return None

    def _run(self, batch: list[Item]) -> None:
        """One batch; halves of it where it holds what cannot be embedded."""
        begin = time.monotonic()
        try:
            vectors = self._asked([item.text for item in batch], "document")
        except InputError as error:
            if len(batch) == 1:
                self._count(refused=1)
                self._finish({batch[0].hash: error})
                return
            middle = len(batch) // 2
            self._run(batch[:middle])
            self._run(batch[middle:])
        except StorageError as error:
            self._again(batch, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            self._tell(batch, error)
        else:
            self._succeeded(batch, vectors, time.monotonic() - begin)

    def _asked(self, texts: list[str], kind: Literal["document", "query"]) -> Vectors:
        """What the embedder answers, if it is one vector a text."""
        vectors = self.embedder.embed(texts, kind)
        expected = (len(texts), self.embedder.dimension)
        if not isinstance(vectors, np.ndarray) or vectors.shape != expected:
            found = getattr(vectors, "shape", type(vectors).__name__)
            raise StorageError(
                f"expected {expected[0]} vectors of {expected[1]} numbers from the embedder {self.embedder.name}, "
                f"found {found}; nothing of it was used"
            )
        if not np.isfinite(vectors).all():
            raise InputError(f"the embedder {self.embedder.name} answers this text with numbers that are not finite")
        return vectors

    def _succeeded(self, batch: list[Item], vectors: Vectors, seconds: float) -> None:
        tokens = sum(item.tokens for item in batch)
        with self._changed:
            self._size.took(tokens, seconds)
            self._failing, self._attempts, self.problem = None, 0, None
        self._count(texts=len(batch), tokens=tokens, seconds=seconds)
        # A row of its own: a view would keep the whole batch.
        results = {item.hash: vector.copy() for item, vector in zip(batch, vectors, strict=True)}
        if self._cache is not None:
            try:
                self._cache.put(self.embedder.name, list(results.items()))
            except (StorageError, ClosedError) as error:
                self._without_cache(error)
        self._finish(results)

    def _finish(self, results: dict[bytes, Any]) -> None:
        with self._changed:
            self._lanes.finish(results)
            self._changed.notify_all()

    def _again(self, batch: list[Item], error: StorageError) -> None:
        """The batch waits first in its lane; past all patience, those who wait are told."""
        logger.warning("the embedder %s failed and is tried again: %s", self.embedder.name, error)
        now = time.monotonic()
        with self._changed:
            self._figures = replace(self._figures, errors=self._figures.errors + 1)
            self.problem = str(error)
            self._size.failed()
            self._not_before = now + _pause(self._attempts)
            self._attempts += 1
            self._failing = self._failing or now
            self._lanes.give_back(batch)
            if now - self._failing >= self._patience:
                for call in self._lanes.calls():
                    call.error = error
            self._changed.notify_all()

    def _tell(self, batch: list[Item], error: Exception) -> None:
        with self._changed:
            for call in self._lanes.drop(batch):
                call.error = error
            self._changed.notify_all()

    def _without_cache(self, error: Exception) -> None:
        logger.warning("texts are embedded anew: %s", error)
        self._count(cache_errors=1)

    def _count(self, **more: float) -> None:
        with self._changed:
            now = {name: getattr(self._figures, name) + count for name, count in more.items()}
            self._figures = replace(self._figures, **now)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the queue of the embedder {self.embedder.name} is closed: open the app again")


def _pause(attempt: int) -> float:
    """Exponential, with half of it random: those who failed together do not come back together."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 16))
    return random.uniform(longest / 2, longest)
