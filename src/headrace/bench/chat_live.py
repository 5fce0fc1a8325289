"""Headrace of the `chat` benchmark: a chat endpoint in front of the scripted model server, with or without a context.

The context is a small one: a sentence, a user's two features and three passages of a collection in memory.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Any

import headrace as hr
from headrace.bench.chat_upstream import FACT
from headrace.bench.child import serve
from headrace.serving.server import BackgroundServer

USERS = 100
_ARTICLES = 200
_WORDS = (
    "river",
    "mill",
    "wheel",
    "stone",
    "flour",
    "weir",
    "sluice",
    "grain",
    "leat",
    "wheat",
    "oat",
    "rye",
    "barley",
)
# Never the bound: what waits in our own queue would be measured with what is passed on.
_CONCURRENT = 2_000


class Payment(hr.Event):
    """What a user pays."""

    user_id: str
    amount: float
    at: datetime = hr.event_time()


class Article(hr.Document):
    """What is searched."""

    id: str
    body: str


def plain(url: str) -> hr.App:
    """An app that passes on what it is asked."""
    app = hr.App("bench-chat")
    app.chat(upstreams=[hr.Upstream(url, concurrent=_CONCURRENT)])
    return app


def with_context(url: str) -> hr.App:
    """An app that gives every request a context."""
    app = hr.App("bench-chat-context")
    payments = app.stream(Payment)
    articles = app.table(Article)

    @app.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total = hr.sum("amount", over="1h")
        count = hr.count(over="1h")

    library: Any = app.collection("library", articles, text=["body"], embed="hash", index="memory:")
    view: Any = Spending

    @app.context(budget=800)
    def support(user_id: str, question: str) -> Any:
        """What an assistant needs."""
        yield hr.text(FACT, trusted=True)
        yield view(user_id)
        yield library.search(question, k=3)

    app.chat(context="support", upstreams=[hr.Upstream(url, concurrent=_CONCURRENT)])
    return app


def fill(live: Any) -> None:
    """Load what the context reads, and wait until it can be read."""
    now = time.time_ns() // 1_000
    live.push("payment", [{"user_id": f"u{i}", "amount": 5.0 + i, "at": now - i} for i in range(USERS)])
    rows = [
        {"id": f"a{i}", "body": " ".join(_WORDS[(i * 7 + step * (i % 5 + 1)) % len(_WORDS)] for step in range(40))}
        for i in range(_ARTICLES)
    ]
    token = live.push("article", rows)
    live.search("library", "mill", k=1, after=token, timeout=60.0)
    live.drain()


def main(kind: str, url: str) -> None:
    app = with_context(url) if kind == "context" else plain(url)
    with app.open() as live:
        if kind == "context":
            fill(live)
        with BackgroundServer(live) as server:
            serve(_spent, port=int(server.url.rpartition(":")[2]))


def _spent() -> dict[str, float]:
    return {"cpu": time.process_time()}


if __name__ == "__main__":
    main(*sys.argv[1:])
