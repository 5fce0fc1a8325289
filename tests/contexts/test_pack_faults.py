"""A fault in the app's own code, met while one pack is compared, does not end the watch over all."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import headrace as hr
from headrace.serving.live_changes import Change, Changes


class Article(hr.Document):
    id: str
    body: str


class Order:
    """A reranker that breaks when told to."""

    def __init__(self) -> None:
        self.broken = False
        self.failed = threading.Event()

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        if self.broken:
            self.failed.set()
            raise ZeroDivisionError(query)
        return [float(len(text)) for text in texts]


def until(changes: Changes, what: str) -> Change:
    while (change := changes.next(30)) is not None:
        if any(one["what"] == what for one in change.data["changed"]):
            return change
    raise AssertionError(what)


def test_the_others_are_told_and_it_is_when_the_fault_is_gone() -> None:
    order = Order()
    app = hr.App("faults")
    articles = app.table(Article)
    library = app.collection("library", articles, text=["body"], embed="hash", index="memory:", rerank=order)
    chat = app.memory("chat", embed="hash", index="memory:")

    @app.context()
    def found(question: str):  # type: ignore[no-untyped-def]
        """What is found."""
        yield library.search(question, k=2)

    @app.context()
    def said(session: str):  # type: ignore[no-untyped-def]
        """What was said."""
        yield chat.recall(session)

    with app.open() as live:
        live.push("article", {"id": "a", "body": "A parcel takes three days."})
        live.drain()
        pack, other = live.context("found", question="parcel"), live.context("said", session="s1")
        with live.changes(pack=pack.id) as changes, live.changes(pack=other.id) as others:
            order.broken = True
            live.push("article", {"id": "b", "body": "Another parcel takes four days."})
            assert order.failed.wait(30)
            live.remember("chat", "s1", "user", "Hello.")
            assert until(others, "new turn").data["pack"] == other.id
            order.broken = False
            assert until(changes, "new passage").data["pack"] == pack.id
