"""The app of the `context` benchmark, what is in it, and the check of what it answers.

A desk as a program would declare it: three views of one stream of payments, notes that are a chunk each, and a memory.
Notes are of made-up words, a few of which are frequent and most of which are rare, as in real texts; a question is some
words of a note. A session's turns name the session and a user's payments carry the user's number, so it can be seen
in a pack that what it says of a user is not another's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import headrace as hr
from headrace.assembly.pack import Pack
from headrace.bench.data import user_ids, zipf
from headrace.bench.harness import BenchError
from headrace.bench.reads_live import now_micros

BUDGET = 1_500
SESSIONS, TURNS = 50, 30
HITS = 6
_LATEST, _OLDER = 8, 3
_SYLLABLES = ["ba", "ce", "di", "fo", "gu", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "zu"]
_WORDS, _SENTENCE, _SENTENCES, _ASKED = 3_375, 12, 3, 6


class Paid(hr.Event):
    """A payment; `number` is the user's."""

    user_id: str
    number: float
    amount: float
    timestamp: datetime = hr.event_time(unit="us")


class Note(hr.Document):
    """A note, short enough to be one chunk."""

    id: str
    title: str
    body: str


@dataclass(frozen=True)
class Desk:
    """The app with its parts."""

    app: hr.App
    payments: Any
    notes: Any
    chat: Any
    context: Any


def desk(embed: Any, index: str) -> Desk:
    """Three views, a collection, a memory, and a context of all of them."""
    app = hr.App("bench-context", clock="wall")
    payments = app.stream(Paid, lateness="10s")
    notes = app.table(Note, name="notes")

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        number = hr.last("number")
        total_10m = hr.sum("amount", over="10m", every="1m")
        mean_10m = hr.mean("amount", over="10m", every="1m")

    @app.features(payments, key="user_id")
    class Activity:
        """How busy a user is."""

        number = hr.last("number")
        count_10m = hr.count(over="10m", every="1m")
        rate_1h = hr.rate(over="1h", every="1m")

    @app.features(payments, key="user_id")
    class Extremes:
        """A user's least and greatest payments."""

        number = hr.last("number")
        least_1h = hr.min("amount", over="1h", every="1m")
        most_1h = hr.max("amount", over="1h", every="1m")

    # A decorated class is a view, which a type checker does not see.
    views: tuple[Any, ...] = (Spending, Activity, Extremes)
    library = app.collection("library", notes, text=["title", "body"], embed=embed, index=index)
    chat = app.memory("chat", embed=embed, index=index, turns=_LATEST)

    @app.context(budget=BUDGET)
    def support(user_id: str, question: str, session: str) -> Iterator[Any]:
        """All that is needed to answer a user."""
        for view in views:
            yield view(user_id)
        yield library.search(question, k=HITS)
        yield chat.recall(session, question, k=_OLDER)

    return Desk(app, payments, notes, chat, support)


class Notes:
    """Notes by number, and questions; the same ones for a seed."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self._rng = np.random.default_rng(seed)
        one = np.array(_SYLLABLES)
        self._words = np.array([a + b + c for a in one for b in one for c in one])
        share = np.arange(1, _WORDS + 1, dtype=np.float64) ** -0.8
        self._upto = np.cumsum(share) / share.sum()
        self._bodies: dict[int, str] = {}

    def row(self, number: int) -> dict[str, str]:
        """A note as it is pushed; another text each time."""
        drawn = np.searchsorted(self._upto, self._rng.random(_SENTENCE * _SENTENCES)).clip(max=_WORDS - 1)
        words = self._words[drawn].tolist()
        said = [" ".join(words[start : start + _SENTENCE]) for start in range(0, len(words), _SENTENCE)]
        body = "".join(f"{one.capitalize()}. " for one in said).strip()
        self._bodies[number] = body
        return {"id": f"n{number:07d}", "title": f"Note {number}", "body": body}

    def edit(self) -> dict[str, str]:
        """A note that is there, with another text."""
        return self.row(int(self._rng.integers(self.count)))

    def questions(self, count: int) -> list[str]:
        """Some words of a note each."""
        found = []
        for number in self._rng.integers(self.count, size=count).tolist():
            words = self._bodies[number].replace(".", "").lower().split()
            found.append(" ".join(self._rng.choice(words, _ASKED, replace=False).tolist()))
        return found


class Payments:
    """Payments by number, whose time is that of their push."""

    def __init__(self, numbers: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._frame = pl.DataFrame(
            {
                "user_id": user_ids(numbers),
                "number": numbers.astype(np.float64),
                "amount": rng.integers(100, 9_000, len(numbers)) / 100,
            }
        )

    @classmethod
    def drawn(cls, count: int, keys: int, rng: np.random.Generator) -> Payments:
        return cls(zipf(count, keys, 1.2, rng), rng)

    def frame(self, start: int, stop: int) -> pl.DataFrame:
        return self._frame[start:stop].with_columns(timestamp=pl.lit(now_micros()))


def said(session: str) -> list[dict[str, str]]:
    """A session's turns."""
    roles = ("user", "assistant")
    return [
        {"role": roles[turn % 2], "content": f"In {session} this was said as number {turn}, about the parcel."}
        for turn in range(TURNS)
    ]


def check(pack: Pack, number: int, session: str) -> None:
    """Whether a pack is what was asked for.

    Raises:
        BenchError: It has more tokens than its budget, lacks a part, or has what is another user's or session's.
    """
    if not pack.tokens <= pack.budget == BUDGET:
        raise BenchError(f"a pack has {pack.tokens} tokens, and its budget is {pack.budget}")
    items = {kind: [one.item for part in pack.sections if part.kind == kind for one in part.items] for kind in _KINDS}
    rows = items["features"]
    user = f"u{number:07d}"
    # The number is of the newest event: a row can be told from another's by its values, and not by its key alone.
    wrong = [one.id for one in rows if not one.data or (one.data["user_id"], one.data["number"]) != (user, number)]
    if len(rows) != 3 or wrong:
        raise BenchError(f"expected three rows of {user}, found {[one.id for one in rows]}; of another user: {wrong}")
    if not items["passages"]:
        raise BenchError("expected passages in a pack, found none")
    turns = items["turns"] + items["recalled"]
    if not turns or any(f"In {session} " not in one.text for one in turns):
        raise BenchError(f"expected turns of {session} in a pack, found {[one.text for one in turns]}")


_KINDS = ("features", "passages", "turns", "recalled")
