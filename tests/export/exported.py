"""A table with a history on the disk, and an app that declares it: shared by the tests of exports."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import headrace as hr
from headrace.stores.tables import Applied, Feed, TableStore, Write
from headrace.units import SECOND, to_micros

NOW = to_micros(datetime(2026, 1, 10, tzinfo=UTC))


class Article(hr.Document):
    """A piece of news."""

    id: str
    title: str
    body: str
    lang: str = "en"
    year: int | None = None
    source: str = ""
    tags: tuple[str, ...] = ()
    updated: datetime | None = None


class Standing:
    """A clock that stands."""

    def __init__(self, now: int = NOW) -> None:
        self.time = now

    def now(self) -> int:
        return self.time


def newsroom(clock: Standing | None = None, **table: Any) -> hr.App:
    """An app with one table, `article`, and one collection of it, `library`."""
    app = hr.App("newsroom", clock=clock or Standing())
    made = app.table(Article, key="id", **table)
    app.collection("library", made, text=["title", "body"], embed="hash", index="memory:")
    return app


def store_at(data: Path) -> TableStore:
    """The table's store below a data directory."""
    (data / "tables").mkdir(parents=True, exist_ok=True)
    return TableStore(data / "tables" / "article.db", durable=False)


def upsert(key: str, body: str, title: str = "", at: int = 0, trusted: bool = False, **columns: Any) -> Write:
    """A row to be written."""
    article = Article(id=key, title=title, body=body, **columns)
    return Write(key, "article", article.model_dump_json().encode(), at, source=f"test:{key}", trusted=trusted)


def delete(key: str) -> Write:
    return Write(key, "", None, 0)


def stored(store: TableStore, writes: Iterable[Write], day: float = 9) -> Applied:
    """Writes a batch, as of a day of January 2026."""
    return store.apply(
        list(writes), Feed("push"), to_micros(datetime(2026, 1, 1, tzinfo=UTC)) + int((day - 1) * 86_400 * SECOND)
    )


def written(data: Path, writes: Iterable[Write]) -> Path:
    """A data directory whose table holds these rows."""
    store = store_at(data)
    stored(store, writes)
    store.close()
    return data


app = newsroom()
