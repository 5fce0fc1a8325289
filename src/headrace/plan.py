"""The declared graph, checked as a whole and drawn, with nothing started."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.app import App, Stream
from headrace.app_enrich import Enrichment
from headrace.declarations import Collection, Context, Table
from headrace.errors import ConfigError
from headrace.features.view import View
from headrace.registry import DEFAULT as CONNECTORS
from headrace.registry import shown_url
from headrace.units import format_duration


@dataclass(frozen=True)
class Plan:
    """An app that has passed all checks.

    Attributes:
        app: The app.
        notes: What is allowed but worth knowing.
    """

    app: App
    notes: tuple[str, ...]

    def draw(self) -> str:
        """The graph as text: sources, streams, views and their tables."""
        clock = "event time" if self.app.event_time else "the clock"
        lines = [
            f"{self.app.name}: now is {clock}, runner {self.app.runner}, online store {shown_url(self.app.online)}",
            "",
        ]
        for stream in self.app.streams.values():
            found = self.app.enrichments.get(stream.name)
            source = shown_url(stream.url) if stream.url else "pushes"
            views = [view for view in self.app.views.values() if view.stream == stream.name]
            lines += _stream(stream, source if found is None else _enriched(found), views)
        for table in self.app.tables.values():
            lines += _table(table, [one for one in self.app.collections.values() if one.table is table])
        lines += [
            f"{one.view} ──► {shown_url(one.url)} at most every {format_duration(one.every)}"
            for one in self.app.publications
        ]
        lines += [_context(one) for one in self.app.contexts.values()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def check(app: App) -> Plan:
    """Checks what only shows in the whole.

    Raises:
        ConfigError: Nothing is declared, or a runner, store or source is not known.
        MissingDependencyError: An extra that the app needs is not installed.
    """
    if not app.streams and not app.tables and not app.memories:
        raise ConfigError(
            f"the app {app.name!r} declares no stream and no table; begin with app.stream(Model) or app.table(Model)"
        )
    CONNECTORS.find("online", app.online).load()
    CONNECTORS.find("runner", app.runner).load()
    app.check_enrichments(app.runner)
    notes = []
    for publication in app.publications:
        CONNECTORS.find("sink", publication.url).load()
        if app.runner == "bytewax":
            raise ConfigError(
                f'the view {publication.view!r} is published, which the runner "bytewax" cannot do; run it with "local"'
            )
    for stream in app.streams.values():
        if stream.url is not None:
            CONNECTORS.find("source", stream.url).load()
        used = {view.stream for view in app.views.values()} | {one.base.name for one in app.enrichments.values()}
        if stream.name not in used:
            notes.append(f"no view reads the stream {stream.name!r}: its events are stored and not used")
    for view in app.views.values():
        if not view.doc:
            notes.append(f"the view {view.name!r} has no docstring: a model is told only its features")
        if view.horizon is None:
            notes.append(f"the view {view.name!r} looks back for ever: its keys are never let go of")
    notes += [
        f"the context {name!r} has no docstring: a model is told only its name"
        for name, context in app.contexts.items()
        if not context.about
    ]
    return Plan(app, (*notes, *_check_documents(app)))


def _check_documents(app: App) -> list[str]:
    """Notes on tables and collections; what they need is imported."""
    for table in app.tables.values():
        if table.url is not None:
            CONNECTORS.find("table", table.url).load()
    for collection in app.collections.values():
        CONNECTORS.find("vectors", collection.index).load()
        for spec in collection.embedders().values():
            if isinstance(spec, str):
                CONNECTORS.find("embed", spec).load()
    followed = {collection.table.name for collection in app.collections.values()}
    return [
        *(
            f"no collection follows the table {name!r}: it is stored, and not searched"
            for name in app.tables
            if name not in followed
        ),
        *(
            f"the collection {name!r} has no about=: a model is told only its name"
            for name, collection in app.collections.items()
            if not collection.about
        ),
    ]


def _context(context: Context) -> str:
    limit = "" if context.max_age is None else f", at most {format_duration(context.max_age)} old"
    return f"{context.name}({', '.join(context.parameters['properties'])}) ──► {context.budget:,} tokens{limit}"


def _table(table: Table, collections: list[Collection]) -> list[str]:
    source = shown_url(table.url) if table.url else "pushes"
    lines = [f"{source} ──► {table.name} ({' | '.join(table.schema.models)} by {', '.join(table.schema.key)})"]
    for number, one in enumerate(collections):
        last = number == len(collections) - 1
        lines.append(f"  {'└' if last else '├'}─► {one.name}: clean ─► chunk ─► embed ─► {shown_url(one.index)}")
        lines += [f"  {' ' if last else '│'}     {kind}: {one.described(kind)}" for kind in table.schema.models]
    return [*lines, ""]


def _enriched(one: Enrichment) -> str:
    spec = one.spec
    several = "" if spec.batch == 1 else f" of up to {spec.batch} events"
    kept = "" if spec.cache is None else f", answers kept for {format_duration(spec.cache)}"
    limits = [f"{spec.per_minute:,} a minute"] if spec.per_minute is not None else []
    limits += [f"{limit.most:,.10g} of {limit.what} a {limit.period}" for limit in spec.limits]
    most = f", at most {', '.join(limits)}" if limits else ""
    return f"{one.base.name} ──► {spec.model or 'model'} ({spec.concurrent} calls{several} at a time{most}{kept})"


def _stream(stream: Stream, source: str, views: list[View]) -> list[str]:
    lines = [f"{source} ──► {stream.name} ({', '.join(stream.schema.columns)})"]
    for number, view in enumerate(views):
        last = number == len(views) - 1
        bar = " " if last else "│"
        lines.append(f"  {'└' if last else '├'}─► {view.name} by {', '.join(view.keys)}")
        for label, feature in view.features.items():
            lines.append(f"  {bar}     {label}: {feature.describe()}")
        for table in view.tables:
            tiles = "one tile" if table.keep is None else f"tiles of {format_duration(table.every)}"
            kept = "for ever" if table.keep is None else f"for {format_duration(table.keep + stream.lateness)}"
            lines.append(f"  {bar}     kept: {tiles} {kept}")
    return [*lines, ""]
