"""`headrace bench context`: a pack, from when it was due until it is there, while events and edits arrive.

Contexts of three rows, six passages and a recall are asked for in an open loop, while a thread pushes 20,000 events a
second as Polars frames and another edits five documents a second, all in one process. Beside the latency stand the
share of packs that were read at one point, and the packer alone, on what was read for some of them.
"""

from __future__ import annotations

import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.assembly.packer import pack
from headrace.bench.context_app import BUDGET, HITS, SESSIONS, TURNS, Desk, Notes, Payments, check, desk, said
from headrace.bench.data import zipf
from headrace.bench.harness import BenchError, Report, percentiles, say
from headrace.bench.openloop import Pusher, call_on_schedule
from headrace.errors import MissingDependencyError
from headrace.serving.context import Contexts, Request
from headrace.serving.context_parts import parts
from headrace.serving.live import Live
from headrace.serving.token_counts import counter

SYSTEM = "headrace"
EVENTS, FRAME, EDITS = 20_000, 0.02, 5.0
RATE, SECONDS = 20.0, 15.0
CAPTURED, REPEATED = 100, 5
GOAL_P50, GOAL_P99, GOAL_PACKER = 8.0, 25.0, 1.0
_AT_ONCE = 1_000
_PATIENCE = 120.0


@dataclass(frozen=True)
class Trial:
    """A round's milliseconds, and what else was seen in it.

    Attributes:
        scheduled: From when each context was due until its pack was there.
        service: From the call to its return.
        consistent: The share of packs that were read at one point.
        tokens: The median of a pack.
        events: How many were pushed a second.
    """

    scheduled: NDArray[np.float64]
    service: NDArray[np.float64]
    consistent: float
    tokens: float
    events: float


def run(
    *,
    chunks: int = 100_000,
    keys: int = 10_000,
    runs: int = 3,
    seed: int = 1,
    seconds: float = SECONDS,
    rate: float = RATE,
    embed: str = "static",
    index: str = "local:",
) -> Report:
    """Measure.

    Args:
        chunks: Notes in the collection, one chunk each.
        runs: Rounds that count; one before them is thrown away.
        rate: Contexts a second.

    Raises:
        BenchError: A pack was wrong, or there is no embedder.
    """
    report = Report("context", seed, "a context's scheduled time → its pack, while events and edits arrive")
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        try:
            bench = Bench(desk(embed, index), Path(folder), chunks, keys, seed)
        except MissingDependencyError as error:
            raise BenchError(str(error)) from None
        try:
            # Models, files and caches are touched for the first time in it.
            bench.trial(rate, min(seconds, 2.0))
            rounds: list[Trial] = []
            for turn in range(runs):
                say(f"run {turn + 1} of {runs}: {rate:g} contexts/s")
                rounds.append(bench.trial(rate, seconds))
            packer = [bench.packer() for _ in range(runs)]
        finally:
            bench.close()
    add(report, rounds, packer)
    describe(report, chunks, keys, rate, seconds, embed, index)
    return report


class Bench:
    """The app on disk, with all that is there at first."""

    def __init__(self, made: Desk, folder: Path, chunks: int, keys: int, seed: int) -> None:
        self._desk, self._keys = made, keys
        self._rng = np.random.default_rng(seed)
        self._notes = Notes(chunks, seed)
        self._live: Live = made.app.open(folder)
        try:
            self._load(chunks)
        except BaseException:
            self._live.close()
            raise

    def _load(self, chunks: int) -> None:
        live = self._live
        say(f"loading {chunks:,} chunks and {self._keys:,} keys")
        for start in range(0, chunks, _AT_ONCE):
            rows = [self._notes.row(number) for number in range(start, min(start + _AT_ONCE, chunks))]
            token = live.push(self._desk.notes, rows)
            live.search("library", "loaded", k=1, mode="words", after=token, timeout=_PATIENCE)
        # One event of each key, so that every row has something to say.
        everyone = Payments(np.arange(self._keys), self._rng)
        live.push(self._desk.payments, everyone.frame(0, self._keys))
        for number in range(SESSIONS):
            live.remember(self._desk.chat, f"s{number}", said(f"s{number}"))
        live.drain()

    def trial(self, rate: float, seconds: float) -> Trial:
        """A round: contexts at `rate` a second, events and edits beside them.

        Raises:
            BenchError: A pack was wrong.
        """
        live, made, count = self._live, self._desk, max(int(rate * seconds), 1)
        # More than the round takes: the pushers are stopped when the last pack is there.
        most = 2 * seconds + 2
        payments = Payments.drawn(int(EVENTS * most), self._keys, self._rng)
        asked = self._asked(count)
        edits = [self._notes.edit() for _ in range(int(EDITS * most))]
        gc.collect()
        begin = time.perf_counter_ns()
        pushers = (
            Pusher(
                lambda start, stop: live.push(made.payments, payments.frame(start, stop)),
                int(EVENTS * most),
                EVENTS,
                begin,
                FRAME,
            ),
            Pusher(lambda start, stop: live.push(made.notes, edits[start:stop]), len(edits), EDITS, begin, FRAME),
        )
        for pusher in pushers:
            pusher.start()
        found = []
        try:
            taken = call_on_schedule(
                lambda turn: found.append(
                    live.context(made.context, user_id=asked[turn][1], question=asked[turn][2], session=asked[turn][3])
                ),
                rate,
                count,
            )
        finally:
            for pusher in pushers:
                pusher.stop()
        for one, (number, _, _, session) in zip(found, asked, strict=True):
            check(one, number, session)
        return Trial(
            taken.scheduled / 1e3,
            taken.service / 1e3,
            sum(one.point.consistent for one in found) / count,
            float(np.median([one.tokens for one in found])),
            pushers[0].sent / ((pushers[0].finished - begin) / 1e9),
        )

    def _asked(self, count: int) -> list[tuple[int, str, str, str]]:
        """A user by number and by id, a question and a session for each context."""
        numbers = zipf(count, self._keys, 1.2, self._rng).tolist()
        sessions = self._rng.integers(SESSIONS, size=count).tolist()
        questions = self._notes.questions(count)
        return [
            (number, f"u{number:07d}", question, f"s{session}")
            for number, question, session in zip(numbers, questions, sessions, strict=True)
        ]

    def packer(self) -> NDArray[np.float64]:
        """Milliseconds of the packer alone, on what is read for some contexts, with nothing else going on."""
        contexts, counts = Contexts(self._live), counter(None)
        taken = []
        try:
            for _, user, question, session in self._asked(CAPTURED):
                given = {"user_id": user, "question": question, "session": session}
                made = self._desk.context
                request = Request.of(self._live, made, None, None, None, None, 10.0, None, given)
                # What a pack is made of is nowhere else to be had: a pack keeps what is in it, and no more.
                read, point, _ = contexts._read(request, parts(self._live.app, made, request.arguments), 10.0)
                for _ in range(REPEATED):
                    begin = time.perf_counter_ns()
                    pack(read, BUDGET, counts, point)
                    taken.append((time.perf_counter_ns() - begin) / 1e6)
        finally:
            contexts.close()
        return np.array(taken)

    def close(self) -> None:
        self._live.close()


def add(report: Report, rounds: list[Trial], packer: list[NDArray[np.float64]]) -> None:
    """The figures, and how they stand to their goals."""
    percentiles(report, SYSTEM, "pack", "ms", [one.scheduled for one in rounds])
    for name, q in (("p50", 50.0), ("p99", 99.0)):
        report.add(SYSTEM, f"pack, service {name}", "ms", [float(np.percentile(one.service, q)) for one in rounds])
    report.add(SYSTEM, "consistent packs", "%", [100 * one.consistent for one in rounds])
    report.add(SYSTEM, "median of a pack", "tokens", [one.tokens for one in rounds])
    report.add(SYSTEM, "pushed meanwhile", "events/s", [one.events for one in rounds])
    for name, q in (("p50", 50.0), ("p99", 99.0)):
        report.add(SYSTEM, f"the packer alone {name}", "ms", [float(np.percentile(one, q)) for one in packer])
    goals = (
        ("pack p50", GOAL_P50),
        ("pack p99", GOAL_P99),
        ("the packer alone p50", GOAL_PACKER),
    )
    for metric, goal in goals:
        found = report.value(SYSTEM, metric)
        if found is not None:
            report.ratios[f"{metric}, of its goal of {goal:g} ms"] = found / goal


def describe(report: Report, chunks: int, keys: int, rate: float, seconds: float, embed: str, index: str) -> None:
    """What a reader of the figures must know."""
    report.notes += [
        f"a context: 3 views' rows, {HITS} hits of a hybrid search and a recall, {BUDGET:,} tokens; "
        f"{chunks:,} chunks ({embed}, {index}), {keys:,} keys, {SESSIONS} sessions of {TURNS} turns",
        f"open loop, {rate:g} contexts/s from one thread, {seconds:g} s a round; meanwhile {EVENTS:,} events/s in "
        f"frames of {FRAME * 1e3:g} ms and {EDITS:g} document edits/s, all in one process",
        "'pack' is from the scheduled time, 'service' from the call",
        "every pack had at most its budget's tokens, three rows of the user asked for, and turns of no other session",
        f"the packer alone: on what was read for {CAPTURED} contexts, {REPEATED} times each, after the rounds",
    ]
