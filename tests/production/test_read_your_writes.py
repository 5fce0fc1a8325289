"""Every write is seen by whoever has its token: read, search and context, while others write as fast as they can.

HEADRACE_ROUNDS says how many rounds are gone; a third each is a read, a search and a context.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

import headrace as hr
from headrace.serving.live import Live

ROUNDS = int(os.environ.get("HEADRACE_ROUNDS", "600"))
OTHERS = 50
WAIT = 30.0


class Payment(hr.Event):
    """One payment."""

    user_id: str
    amount: float
    at: datetime = hr.event_time()


class Article(hr.Document):
    """One article of the help pages."""

    id: str
    title: str
    body: str


def desk() -> hr.App:
    """One view, one collection, and a context over both."""
    app = hr.App("desk")
    payments = app.stream(Payment)
    articles = app.table(Article)

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        count_2d = hr.count(over="2d")
        total_2d = hr.sum("amount", over="2d")

    library = app.collection("library", articles, text=["title", "body"], embed="hash", index="memory:")

    @app.context()
    def support(user_id: str, question: str):  # type: ignore[no-untyped-def]
        """All that an assistant needs to answer a customer's question."""
        yield Spending(user_id)  # type: ignore[call-arg]  # to mypy a decorated class stays one
        yield library.search(question, k=3)

    return app


class Writer:
    """The one whose writes are looked for: it knows what has to be seen."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._paid = 0
        self._edit = 0
        self.edit()

    def pay(self) -> hr.Token:
        """A payment of 2."""
        self._paid += 1
        return self._live.push("payment", {"user_id": "own", "amount": 2.0, "at": datetime.now(UTC)})

    def edit(self) -> hr.Token:
        """The next text of an article."""
        self._edit += 1
        return self._live.push("article", {"id": "own", "title": "Gates", "body": f"The gate is at {self._word}."})

    @property
    def _word(self) -> str:
        return f"notch{self._edit}x"

    def read(self) -> str:
        """Pays and reads; returns what was stale, if anything was."""
        row: Any = self._live.read("spending", "own", after=self.pay(), timeout=WAIT)
        return self._wrong(row.count_2d, row.total_2d)

    def search(self) -> str:
        """Edits and searches."""
        hits = self._live.search("library", f"gate {self._word}", k=3, after=self.edit(), timeout=WAIT)
        found = [hit.text for hit in hits if hit.document == "own"]
        return "" if any(self._word in text for text in found) else f"{self._word} is not in {found}"

    def context(self) -> str:
        """Pays and edits, in turn the one or the other last, and has the last one's token: both are seen."""
        pays_first = self._paid // 2 % 2 == 0
        first, last = (self.pay, self.edit) if pays_first else (self.edit, self.pay)
        first()
        token = last()
        pack = self._live.context(
            "support", user_id="own", question=f"gate {self._word}", after=token, timeout=WAIT, on_stale="refuse"
        )
        features, passages = ([item.item for item in section.items] for section in pack.sections)
        row = features[0].data or {}
        missed = {name for name, at in token.positions.items() if pack.point.positions.get(name, -1) < at}
        if missed:
            return f"the pack is not behind its token at {missed}"
        whole = pack.point.consistent
        if not any(self._word in item.text for item in passages):
            return f"{self._word} is not in the pack; of one point: {whole}"
        wrong = self._wrong(row["count_2d"], row["total_2d"])
        return f"{wrong}; of one point: {whole}" if wrong else ""

    def _wrong(self, number: int, total: float) -> str:
        right = (number, total) == (self._paid, 2.0 * self._paid)
        return "" if right else f"{number} payments, {total} in all; {self._paid} were made"


@contextmanager
def load(*work: Callable[[int], object]) -> Iterator[list[int]]:
    """Does each work over and over, in a thread of its own; says at the end how often, and raises what failed."""
    ended = threading.Event()
    done = [0] * len(work)
    failed: list[BaseException] = []

    def repeat(place: int) -> None:
        try:
            for number in count():
                if ended.is_set():
                    return
                work[place](number)
                done[place] += 1
        except BaseException as error:  # noqa: BLE001 - of a thread; raised below
            failed.append(error)

    threads = [threading.Thread(target=repeat, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        ended.set()
        for thread in threads:
            thread.join(WAIT)
    if failed:
        raise failed[0]
    assert not any(thread.is_alive() for thread in threads)


def test_every_write_is_seen_under_load() -> None:
    with desk().open() as live:

        def pay(number: int) -> None:
            now = datetime.now(UTC)
            paid = [{"user_id": f"u{each}", "amount": 1.0, "at": now} for each in range(OTHERS)]
            token = live.push("payment", paid)
            if number % 8 == 0:  # no faster than the engine follows
                live.read("spending", "u1", after=token, timeout=WAIT)

        def edit(number: int) -> None:
            body = f"The mill stands still since day {number}."
            token = live.push("article", {"id": f"a{number % OTHERS}", "title": "Mill", "body": body})
            if number % 2 == 0:
                live.search("library", "mill", after=token, timeout=WAIT)

        writer = Writer(live)
        rounds = (writer.read, writer.search, writer.context)
        with load(pay, edit) as done:
            stale = [wrong for number in range(ROUNDS) if (wrong := rounds[number % 3]())]
    print(
        f"{ROUNDS:,} rounds, {len(stale)} stale; meanwhile {done[0] * OTHERS:,} other events, {done[1]:,} other edits"
    )
    assert stale == []
    assert min(done) > 0
