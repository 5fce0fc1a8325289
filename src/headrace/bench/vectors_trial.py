"""One trial of the `vectors` benchmark: chunks come and go at a rate while questions are asked at theirs.

Everything is open loop: a write and a question have their moments, and a latency counts from there. What was found is
compared afterwards with the exact answer over the chunks that were live during the question; a chunk that came or went
during it is in neither.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headrace.bench.harness import BenchError
from headrace.bench.openloop import call_on_schedule, precise_timer, wait_until
from headrace.bench.vectors_data import Chunks

K = 10
SEARCH_RATE = 50.0
TICK = 0.02
# After every so many ticks, the writer asks for what it has just written.
_PROBE = 5
_COMPARED = 200
_NEVER = 1 << 62


class System(Protocol):
    """What is measured: chunks by number."""

    def write(self, upserts: Sequence[int], deletes: Sequence[int]) -> None:
        """Chunks come and go; durable if the system can do that."""
        ...

    def search(self, question: npt.NDArray[np.float32], k: int) -> list[int]:
        """The nearest."""
        ...


@dataclass(frozen=True)
class Trial:
    """What one trial found; times in milliseconds."""

    search: npt.NDArray[np.float64]
    service: npt.NDArray[np.float64]
    searchable: npt.NDArray[np.float64]
    recall: float
    written: float
    held_up: float


class Churn:
    """Which chunks are live, and when each came and went (`time.perf_counter_ns`).

    Attributes:
        live: Their numbers.
    """

    def __init__(self, chunks: Chunks, count: int, seed: int) -> None:
        self.live = list(range(count))
        self.came: npt.NDArray[np.int64] = np.full(len(chunks.vectors), _NEVER)
        self.going: npt.NDArray[np.int64] = np.full(len(chunks.vectors), _NEVER)
        self.came[:count] = 0
        self.spare = list(range(count, len(chunks.vectors)))
        self._rng = np.random.default_rng(seed)

    def turn(self, count: int) -> tuple[list[int], list[int]]:
        """The next to come, and random ones that go; what has gone may come again in a later trial."""
        if len(self.spare) < count:
            raise BenchError("more chunks come than there are; give it more, or shorter rounds")
        new = [self.spare.pop() for _ in range(count)]
        old = []
        for _ in range(count):
            place = int(self._rng.integers(len(self.live)))
            self.live[place], self.live[-1] = self.live[-1], self.live[place]
            old.append(self.live.pop())
        return new, old

    def settle(self) -> None:
        """Between trials: what has come is simply live, and what has gone may come again."""
        gone = np.flatnonzero(self.going < _NEVER)
        self.spare[:0] = gone.tolist()
        self.came[gone], self.going[gone] = _NEVER, _NEVER
        self.came[self.live] = 0


def trial(system: System, chunks: Chunks, churn: Churn, rate: float, seconds: float) -> Trial:
    """Chunks come and go at `rate` a second each, for so long, while questions are asked.

    Raises:
        BenchError: The writer failed.
    """
    churn.settle()
    writer = _Writer(system, chunks, churn, rate, seconds)
    beat = _Heartbeat()
    asked: list[tuple[int, int, int, list[int]]] = []

    def ask(turn: int) -> None:
        number = turn % len(chunks.questions)
        begin = time.perf_counter_ns()
        found = system.search(chunks.questions[number], K)
        asked.append((number, begin, time.perf_counter_ns(), found))

    beat.start()
    writer.start()
    try:
        latencies = call_on_schedule(ask, SEARCH_RATE, int(SEARCH_RATE * seconds))
    finally:
        writer.join()
        beat.stop()
    if writer.error is not None:
        raise BenchError(f"writing failed: {writer.error}") from writer.error
    step = max(len(asked) // _COMPARED, 1)
    return Trial(
        latencies.scheduled / 1e3,
        latencies.service / 1e3,
        np.array(writer.searchable) / 1e6,
        recall(chunks, churn, asked[::step]),
        writer.rate(),
        beat.longest / 1e6,
    )


def recall(chunks: Chunks, churn: Churn, asked: Sequence[tuple[int, int, int, list[int]]]) -> float:
    """The share of the exact ten nearest that were found."""
    numbers = sorted({number for number, *_ in asked})
    alive = np.flatnonzero(churn.came < _NEVER)
    similar = chunks.vectors[alive] @ chunks.questions[numbers].T
    found = 0
    for number, begin, end, answer in asked:
        scores = similar[:, numbers.index(number)].copy()
        scores[(churn.came[alive] > begin) | (churn.going[alive] < end)] = -2.0
        best = alive[np.argpartition(-scores, K)[:K]]
        found += len(set(best.tolist()) & set(answer))
    return found / (K * max(len(asked), 1))


class _Writer(threading.Thread):
    """Writes what is due every 20 ms, and now and then asks for it until it is found."""

    def __init__(self, system: System, chunks: Chunks, churn: Churn, rate: float, seconds: float) -> None:
        super().__init__(name="bench-writer", daemon=True)
        self._system, self._chunks, self._churn, self._rate, self._seconds = system, chunks, churn, rate, seconds
        self.searchable: list[float] = []
        self.error: BaseException | None = None
        self._written = 0
        self._took = 1

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - carried to the thread that joins
            self.error = error

    def _run(self) -> None:
        precise_timer()
        count = int(self._rate * TICK)
        begin = time.perf_counter_ns()
        for turn in range(int(self._seconds / TICK) if count else 0):
            due = begin + int(turn * TICK * 1e9)
            new, old = self._churn.turn(count)
            wait_until(due)
            self._churn.going[old] = time.perf_counter_ns()
            self._system.write(new, old)
            self._churn.came[new] = time.perf_counter_ns()
            self._churn.live += new
            self._written += count
            if turn % _PROBE == 0:
                self.searchable.append(self._probe(new[-1], due))
        self._took = time.perf_counter_ns() - begin

    def _probe(self, number: int, due: int) -> float:
        while True:
            found = self._system.search(self._chunks.vectors[number], K)
            now = time.perf_counter_ns()
            if number in found:
                return float(now - due)
            if now - due > 5e9:
                raise BenchError(f"chunk {number} was written and not found within 5 s")

    def rate(self) -> float:
        """Chunks a second that were written."""
        return self._written / (self._took / 1e9)


class _Heartbeat(threading.Thread):
    """How long this process's other threads did not get the interpreter: what a feature engine here would feel."""

    def __init__(self, period: float = 0.002) -> None:
        super().__init__(name="bench-heartbeat", daemon=True)
        self.longest = 0
        self._period = period
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            before = time.perf_counter_ns()
            time.sleep(self._period)
            self.longest = max(self.longest, int(time.perf_counter_ns() - before - self._period * 1e9))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def loaded(system: System, count: int, batch: int, say: Callable[[str], Any]) -> float:
    """Seconds to write the first `count` chunks."""
    begin = time.perf_counter()
    for start in range(0, count, batch):
        system.write(range(start, min(start + batch, count)), [])
        if start and start % (batch * 100) == 0:
            say(f"  {start:,} of {count:,} in {time.perf_counter() - begin:.0f} s")
    return time.perf_counter() - begin
