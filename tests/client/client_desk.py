"""The app of the tests of the client: a stream, a table, a memory, a context, and changes of all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from scripted_upstream import ScriptedUpstream

import headrace as hr
from headrace.serving.server import BackgroundServer
from headrace.testing.clock import VirtualClock

NOON = "2026-01-31T12:00:00Z"


class Payment(hr.Event):
    """One payment."""

    user_id: str
    amount: float
    shop: int = 0
    at: datetime = hr.event_time()


class Note(hr.Document):
    """A rule of the house."""

    id: str
    body: str


def desk(**chat: Any) -> hr.App:
    """The app; `chat` is what its chat endpoint is declared with, if it has one."""
    app = hr.App("client-desk", clock=VirtualClock(NOON))
    payments = app.stream(Payment)

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total_1h = hr.sum("amount", over="1h")
        last_at = hr.last("at", over="1d")

    @app.features(payments, key=["user_id", "shop"])
    class Repeated:
        """How often a user has paid in a shop."""

        times_1h = hr.count(over="1h")

    notes = app.table(Note)
    library = app.collection("library", notes, text="body", embed="hash", index="memory:")
    app.memory("talk", by="session_id", embed="hash", index="memory:")

    @app.context(budget=400)
    def case(user_id: str, question: str = "large payments") -> Any:
        """What is known of a user's question."""
        yield Spending(user_id)
        yield library.search(question, k=2)

    if chat:
        app.chat(**chat)
    return app


def paid(amount: float, user: str = "u1") -> dict[str, Any]:
    return {"user_id": user, "amount": amount, "at": NOON}


@contextlib.contextmanager
def served(upstream: ScriptedUpstream, **options: Any) -> Iterator[str]:
    """The app before a model server, with a payment of 5 and a note, served."""
    with desk(upstreams=[hr.Upstream(upstream.url)], **options).open() as live:
        live.push("note", {"id": "n1", "body": "Two people look at a large payment."})
        live.push("payment", paid(5.0))
        live.drain()
        with BackgroundServer(live) as server:
            yield server.url
