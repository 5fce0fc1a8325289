"""What `GET /v1/status` says: the moment's figures, and what is declared, for people and for the live page."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.registry import shown_url
from headrace.units import format_duration, from_micros

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Collection, Context, Table
    from headrace.features.view import View
    from headrace.serving.live import Live


def status(live: Live) -> dict[str, Any]:
    """`live.stats()` as plain values, with the server's time and what is declared."""
    figures = dataclasses.asdict(live.stats())
    return figures | {
        "time": datetime.now(UTC),
        "now": {name: from_micros(live.now(stream)) for name, stream in live.app.streams.items()},
        "declared": declared(live.app),
    }


def declared(app: App) -> dict[str, Any]:
    """The app's streams and views, described."""
    return {
        "clock": "event" if app.event_time else "wall",
        "streams": {
            name: {
                "source": None if stream.url is None else shown_url(stream.url),
                "enriches": app.enrichments[name].base.name if name in app.enrichments else None,
                "time": stream.schema.time,
                "columns": {column: str(dtype) for column, dtype in stream.schema.columns.items()},
                "lateness": format_duration(stream.lateness),
            }
            for name, stream in app.streams.items()
        },
        "views": {name: _view(view) for name, view in app.views.items()},
        "tables": {name: _table(table) for name, table in app.tables.items()},
        "collections": {name: _collection(one) for name, one in app.collections.items()},
        "contexts": {name: _context(one) for name, one in app.contexts.items()},
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "source": None if table.url is None else shown_url(table.url),
        "key": list(table.schema.key),
        "types": list(table.schema.models),
        "history": format_duration(table.history),
    }


def _collection(collection: Collection) -> dict[str, Any]:
    return {
        "about": collection.about,
        "table": collection.table.name,
        "index": shown_url(collection.index),
        "embed": {kind: collection.described(kind) for kind in collection.table.schema.models},
        "filters": {name: column.type for name, column in collection.columns.items()},
    }


def _context(context: Context) -> dict[str, Any]:
    return {
        "about": context.about,
        "parameters": context.parameters,
        "budget": context.budget,
        "max_age": None if context.max_age is None else format_duration(context.max_age),
        "on_stale": context.on_stale,
    }


def _view(view: View) -> dict[str, Any]:
    return {
        "doc": view.doc,
        "stream": view.stream,
        "keys": view.key_schema(),
        "features": {name: feature.describe() for name, feature in view.features.items()},
    }
