"""What `Live` does about models asked in streams: it starts them after the engine, and ends them before it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, InputError
from headrace.formats import decode
from headrace.runners.base import Runner

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Stream
    from headrace.runners.enriching.enriching import Enriching
    from headrace.runners.enriching.figures import EnrichmentFigures


class LiveEnrichments:
    """The part of `Live` that is about models in streams."""

    app: App
    _runner: Runner
    _enriching: Enriching | None = None

    def _open_enrichments(self, path: str | Path | None) -> None:
        """Takes up what the app declares; a replica only reads what comes of it elsewhere."""
        if self.app.enrichments and self.app.runner != "replica":
            from headrace.runners.enriching.enriching import Enriching  # what asks no model loads nothing for it

            self._enriching = Enriching(self.app, None if path is None else Path(path), self._runner)

    def _start_enrichments(self) -> None:
        if self._enriching is not None:
            self._enriching.start()

    def _drain_enrichments(self, started: float, timeout: float | None) -> bool:
        if self._enriching is None:
            return True
        return self._enriching.drain(None if timeout is None else max(0.0, timeout + started - time.monotonic()))

    def _close_enrichments(self) -> None:
        if self._enriching is not None:
            self._enriching.close()

    def enrichment_figures(self) -> dict[str, EnrichmentFigures]:
        """Of each enriched stream, how it stands."""
        return {} if self._enriching is None else self._enriching.figures()

    def ask_again(self, stream: str, raw: bytes) -> bool:
        """Asks once more about an event that became a dead letter of an enriched stream; False if it cannot be read."""
        enrichment = self.app.enrichments[stream]
        try:
            found = decode(enrichment.base.schema, raw, "ndjson")
        except HeadraceError:
            return False
        if found.rejects or found.frame.height == 0 or self._enriching is None:
            return False
        self._enriching.again(stream, found.frame)
        return True


def refuse_derived(app: App, stream: Stream) -> None:
    """Only a model's answers go into an enriched stream.

    Raises:
        InputError: It is one.
    """
    if (found := app.enrichments.get(stream.name)) is not None:
        raise InputError(
            f"{stream.name}: expected a stream that takes pushes, found one whose events are made of "
            f"{found.base.name!r}; push there"
        )
