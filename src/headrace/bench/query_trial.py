"""One size of the `query` benchmark, loaded on both sides and asked in three ways.

The payments that arrive while a side is asked come from numbered slots: the same slot holds the same payments wherever
they are made, so in the end each side is held to the answer over what it was given.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from headrace.bench import query_data
from headrace.bench.child import Child
from headrace.bench.harness import BenchError
from headrace.bench.httpload import Load as Requests
from headrace.bench.httpload import requests
from headrace.bench.query_report import LIVE, SQL
from headrace.bench.query_sql import Postgres
from headrace.units import HOUR, SECOND

HOST = "127.0.0.1"
PATH = "/v1/features/spending"
CHECKED = 200
_AT_ONCE = 1e9  # a second: all are due now, so one connection sends them back to back
_LOT = 200


@dataclass(frozen=True)
class Load:
    """How much of everything.

    Attributes:
        size: Payments held.
        keys: How many users there can be.
        seed: Of the payments.
        seconds: The length of a round.
    """

    size: int
    keys: int
    seed: int
    seconds: float

    @property
    def arriving(self) -> int:
        """Payments that arrive within a round, where any do: at the rate of the hour's."""
        return round(self.seconds * self.size * SECOND / HOUR)


@dataclass
class Trial:
    """Postgres and Headrace with the same payments."""

    load: Load
    postgres: Postgres
    child: Child
    http: Requests
    frame: pl.DataFrame
    who: query_data.Asked
    _slots: Iterator[int] = field(default_factory=itertools.count)
    # Which slots each process was sent.
    _sent: dict[str, list[int]] = field(default_factory=lambda: {SQL: [], LIVE: []})

    @classmethod
    @contextmanager
    def of(cls, postgres: Postgres, load: Load) -> Iterator[Trial]:
        """Both loaded, and one connection to Headrace's server."""
        frame = query_data.payments(load.size, load.keys, load.seed)
        who = query_data.asked(query_data.answers(frame), load.seed)
        postgres.load(frame)
        arguments = [f"--events={load.size}", f"--keys={load.keys}", f"--seed={load.seed}"]
        with contextlib.ExitStack() as stack:
            data = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-"))
            child = stack.enter_context(Child("headrace.bench.query_live", *arguments, f"--data={data}"))
            http = stack.enter_context(closing(Requests(HOST, child.ready["port"], 1)))
            yield cls(load, postgres, child, http, frame, who)

    @property
    def tiles(self) -> int:
        """Rows that Headrace holds for the question."""
        return int(self.child.ready["tiles"])

    def users(self, kind: str) -> list[str]:
        """Whom to ask about, again from the start when they are all used."""
        return [self.who.hot] if kind == "hot" else self.who.typical

    def reads(self, side: str, kind: str, rate: float, arriving: bool) -> dict[str, list[float]]:
        """The percentiles of a round of questions at a rate."""
        seconds, users = self.load.seconds, self.users(kind)
        events = self.load.arriving if arriving else 0
        slot = self._slot(side) if arriving else 0
        if side == SQL:
            incoming = self._arriving(slot) if arriving else self.frame.clear()
            return self.postgres.reads(users, rate, seconds, incoming).to_dict()
        if side == LIVE:
            asked = {"users": users, "rate": rate, "seconds": seconds, "events": events, "slot": slot}
            latency: dict[str, list[float]] = self.child.ask(what="reads", **asked)["latency"]
            return latency
        pushed = self.child.start(what="push", events=events, seconds=seconds, slot=slot)
        named = list(itertools.islice(itertools.cycle(users), int(rate * seconds)))
        latencies, failed = self.http.run(requests(PATH, named, 1, HOST), rate)
        pushed()
        _all_answered(failed)
        return latencies.to_dict()

    def busy(self, side: str, kind: str) -> dict[str, Any]:
        """Questions back to back: how many, and the processor time of the side that answers."""
        seconds, users = self.load.seconds / 4, self.users(kind)
        if side == SQL:
            return self.postgres.busy(users, seconds)
        if side == LIVE:
            return self.child.ask(what="busy", users=users, seconds=seconds)
        prepared = itertools.cycle(requests(PATH, users[:10_000], 1, HOST))
        done, before, begin = 0, self.child.ask(what="cpu")["cpu"], time.perf_counter()
        while done == 0 or time.perf_counter() - begin < seconds:
            _all_answered(self.http.run(list(itertools.islice(prepared, _LOT)), _AT_ONCE)[1])
            done += _LOT
        return {"cpu": self.child.ask(what="cpu")["cpu"] - before, "count": done}

    def check(self) -> None:
        """Hold both sides to the oracle, over what each was given.

        Raises:
            BenchError: An answer is not the oracle's.
        """
        users = [self.who.hot, *self.who.typical[:CHECKED], "u-nobody"]
        found = {SQL: self.postgres.values(users), LIVE: self.child.ask(what="values", users=users)["values"]}
        for side, values in found.items():
            given = pl.concat([self.frame, *(self._arriving(slot) for slot in self._sent[side])])
            typed = {user: (total, count, most) for user, (total, count, most) in values.items()}
            if error := query_data.wrong(typed, query_data.answers(given)):
                raise BenchError(f"{side}: the answer is not the oracle's: {error}")

    def _slot(self, side: str) -> int:
        slot = next(self._slots)
        self._sent[SQL if side == SQL else LIVE].append(slot)
        return slot

    def _arriving(self, slot: int) -> pl.DataFrame:
        load = self.load
        return query_data.arriving(load.arriving, load.keys, load.seed, slot)


def _all_answered(failed: int) -> None:
    if failed:
        raise BenchError(f"expected every answer to have status 200, found {failed:,} others")
