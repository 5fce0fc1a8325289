"""The app of the tests of MCP, and its client."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

import headrace as hr

NOW = "2026-01-31T12:00:00Z"
ERAS = ("legacy", "2026-07-28")


class Payment(hr.Event):
    """One payment."""

    user_id: str
    amount: float
    at: datetime = hr.event_time()


class Note(hr.Document):
    """A rule of the house."""

    id: str
    body: str


class Gate:
    """A rerank that can be held shut: a search that waits for as long as a test wants."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Semaphore(0)

    def __call__(self, query: str, texts: list[str]) -> list[float]:
        self.waiting.release()
        assert self.open.wait(30)
        return [1.0] * len(texts)


def desk(gate: Gate | None = None) -> hr.App:
    app = hr.App("desk", clock="event")
    payments = app.stream(Payment)

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total_1h = hr.sum("amount", over="1h")
        mean_1h = hr.mean("amount", over="1h")
        recent = hr.latest(2, "amount", "at", over="1d")

    notes = app.table(Note)
    options: dict[str, Any] = {} if gate is None else {"rerank": gate}
    library = app.collection(
        "library", notes, text="body", embed="hash", index="memory:", about="Rules of the house.", **options
    )

    @app.context(budget=500)
    def case(user_id: str, question: str, hits: int = 2) -> Any:
        """What is known of a user's question."""
        yield Spending(user_id)
        yield library.search(question, k=hits)

    return app


app = desk()


def paid(live: hr.Live, amount: float, user: str = "u1") -> None:
    live.push("payment", {"user_id": user, "amount": amount, "at": NOW})
    live.drain()


@asynccontextmanager
async def client(
    url: str, mode: str = "legacy", key: str | None = None, answers: list[Any] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """A client; what the server answers it is noted in `answers`."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}

    async def note(answer: Any) -> None:
        if answers is not None:
            answers.append(answer)

    async with (
        httpx2.AsyncClient(headers=headers, timeout=30, event_hooks={"response": [note]}) as http,
        Client(streamable_http_client(url + "/mcp", http_client=http), mode=mode, **options) as connected,
    ):
        yield connected
