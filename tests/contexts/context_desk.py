"""The app of the tests of contexts: payments, articles, a memory, and contexts over them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import headrace as hr
from headrace.testing.clock import VirtualClock

NOON = "2026-01-31T12:00:00Z"
PAID = [
    {"user_id": "u1", "amount": 5.0, "merchant": "a", "at": "2026-01-31T11:59:00Z"},
    {"user_id": "u1", "amount": 2000.0, "merchant": "b", "at": "2026-01-31T11:59:58Z"},
]
ARTICLES = [
    {"id": "launch", "title": "Launch", "body": "The launch slipped by a week, because it rained on the rails."},
    {"id": "refund", "title": "Refunds", "body": "A refund takes three days, and is paid to the card that was used."},
]


class Payment(hr.Event):
    """One payment."""

    user_id: str
    amount: float
    merchant: str = ""
    at: datetime = hr.event_time()


class Article(hr.Document):
    """One article of the help pages."""

    id: str
    title: str
    body: str


def desk(clock: VirtualClock | str = "wall", **options: Any) -> hr.App:
    """An app with one view, one collection, one memory, and the context `support`."""
    app = hr.App("desk", clock=clock)  # type: ignore[arg-type]  # a clock, or "wall"
    payments = app.stream(Payment)
    articles = app.table(Article)

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total_10m = hr.sum("amount", over="10m", every="1m")
        count_1h = hr.count(over="1h")

    embed = options.pop("embed", "hash")
    library = app.collection("library", articles, text=["title", "body"], embed=embed, index="memory:")
    chat = app.memory("chat", embed="hash", index="memory:")

    @app.context(**options)
    def support(user_id: str, question: str, session: str = "", k: int = 2):  # type: ignore[no-untyped-def]
        """All that an assistant needs to answer a customer's question."""
        yield hr.section(hr.text("Answer in one sentence.", trusted=True), title="Manner")
        yield Spending(user_id)  # type: ignore[call-arg]  # to mypy a decorated class stays one
        yield hr.section(library.search(question, k=k), priority=2, ceiling=400)
        if session:
            yield chat.recall(session, question)

    return app
