"""An app with documents, and what it should know: shared by the tests of the library."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import headrace as hr
from headrace.documents.identity import identified
from headrace.documents.states import Raw
from headrace.serving.live import Live


class Article(hr.Document):
    """A piece of news."""

    id: str
    title: str
    body: str
    lang: str = "en"
    year: int | None = None
    updated: datetime = datetime(2026, 1, 1, tzinfo=UTC)


def newsroom(**options: Any) -> hr.App:
    """An app with one table and one collection, in memory unless told otherwise."""
    app = hr.App("newsroom")
    articles = app.table(Article, key="id", **options.pop("table", {}))
    given = {"text": ["title", "body"], "embed": "hash", "index": "memory:", "chunk": hr.chunk(tokens=32, overlap=4)}
    app.collection("library", articles, **given | options)
    return app


def article(id: str, body: str, title: str = "News", **columns: Any) -> dict[str, Any]:
    return {"id": id, "title": title, "body": body, **columns}


def expected_ids(live: Live, rows: dict[str, dict[str, Any]]) -> set[str]:
    """The ids that the index must hold for these rows, by cleaning and chunking them all anew."""
    collection = live.app.collections["library"]
    space = next(iter(live.library.collections["library"].spaces.open.values()))
    found: set[str] = set()
    for key, row in rows.items():
        raw = Raw(key, "article", Article(**row), 1, 0)
        pieces = collection.handlers.pieces(collection.handlers.cleaned(raw), space.embedder)
        found |= {chunk.id for chunk in identified(f"library/{space.embedder.name}", key, pieces)}
    return found


def held_ids(live: Live) -> tuple[set[str], set[str]]:
    """What the records say is alive, and what the index holds."""
    running = live.library.collections["library"]
    running.wait(lambda: not running.sweeping(), 10)
    space = next(iter(running.spaces.open.values()))
    with running.records.moment() as moment:
        return set(moment.ids(space.number)), set(space.index.ids())


def open_at(path: Path | None, **options: Any) -> Live:
    return newsroom(**options).open(path)
