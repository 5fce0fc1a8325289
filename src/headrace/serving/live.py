"""A running app in this process: push, read, wait, call tools."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.document import Document
from headrace.errors import InputError, StaleError, TooLargeError
from headrace.features.view import View
from headrace.registry import DEFAULT as CONNECTORS
from headrace.runners.base import Runner
from headrace.runners.library.figures import LibraryFigures
from headrace.runners.progress import reached
from headrace.schema import Event
from headrace.serving import documents, pushed, status
from headrace.serving.context import Contexts
from headrace.serving.live_changes import LiveChanges
from headrace.serving.live_context import LiveContext
from headrace.serving.live_documents import LiveDocuments
from headrace.serving.live_enrichments import LiveEnrichments, refuse_derived
from headrace.serving.live_memory import LiveMemories
from headrace.serving.live_tools import LiveTools
from headrace.serving.rows import Row, RowMaker
from headrace.serving.stats import Stats, measure
from headrace.serving.token import Token, token_text
from headrace.serving.tool_calls import Calls
from headrace.units import MAX_TIME, MIN_TIME, SECOND, duration, format_duration, to_micros

if TYPE_CHECKING:
    from headrace.app import App, Stream
    from headrace.declarations import Table
    from headrace.runners.library.library import Library
    from headrace.stores.dead_letters import DeadLetters

logger = logging.getLogger("headrace")

Rows = (
    Sequence[Mapping[str, Any] | Event | Document] | Mapping[str, Any] | Event | Document | pl.DataFrame | bytes | str
)
# Keys that one call may read.
MOST_KEYS = 100_000


class Live(LiveDocuments, LiveContext, LiveTools, LiveMemories, LiveChanges, LiveEnrichments):
    """An app while it runs; made by `app.open()`, closed by leaving its `with` block.

    Every method may be called from any thread.
    """

    def __init__(self, app: App, path: str | Path | None = None) -> None:
        self.app = app
        self._makers = {name: RowMaker(view) for name, view in app.views.items()}
        self._token: tuple[int, str] = (-1, "")
        self._calls = Calls()
        self._contexts = Contexts(self)
        self._limit = app.lag_limit / SECOND
        self.started = time.monotonic()
        self._runner: Runner = CONNECTORS.find("runner", app.runner).load()(app, path)
        self._library: Library | None = None
        self._open_changes(path)
        try:
            if app.tables or app.memories:
                self._library = documents.open_library(app, path, self._runner, self._packs)
            self._open_enrichments(path)
            self._runner.start()
            self._start_enrichments()
        except BaseException:
            self.close()
            raise

    @property
    def remote(self) -> bool:
        """Whether a read goes to a server elsewhere, and so may take as long as that does."""
        return self._runner.store.remote

    # -- in --------------------------------------------------------------------------------------------------------

    def push(
        self, target: Stream | Table | type[Event] | type[Document] | str, rows: Rows, *, format: str | None = None
    ) -> Token:
        """Takes rows into a stream or a table. When it returns they are stored; reads see them once they are processed.

        Rows that are invalid become dead letters and are named in `token.rejected`; the valid ones are all taken, or
        none is. A table's row takes the place of the one with its key.

        Args:
            target: Where to: a stream or a table, its model or its name.
            rows: Dicts, events or documents, one or many; a Polars frame; or bytes in a format.
            format: Of bytes: "ndjson" (the default), "json", "csv" or "parquet"; for a table the first two.

        Raises:
            UnknownNameError: There is no such stream or table.
            DecodeError: Bytes that are not of the format at all; nothing is taken.
            StorageError: The rows could not be stored; nothing is taken.
            ClosedError: The app is closed, or its engine has stopped.
        """
        if (table := documents.table_named(self.app, target)) is not None:
            return documents.push(self.library, table, rows, format)
        stream = self.app.stream_of(target)  # type: ignore[arg-type]  # what is no table is a stream, or an error
        refuse_derived(self.app, stream)
        self._runner.alive()
        decoded = pushed.decoded(stream, rows, format)
        positions: dict[str, Any] = {}
        if decoded.frame.height:
            positions = self._runner.submit(stream, decoded.frame)
        if decoded.rejects:
            self._runner.set_aside(stream, decoded.rejects)
        return Token(positions, decoded.frame.height, decoded.rejects)

    def drain(self, timeout: float | None = None) -> None:
        """Waits until all input that is there now has been processed.

        Raises:
            StaleError: It was not, within `timeout` seconds.
            ClosedError: The engine or a source has stopped.
        """
        started = time.monotonic()
        done = self._runner.drain(timeout)
        if done and self._library is not None:
            done = self._library.drain(None if timeout is None else max(0.0, timeout + started - time.monotonic()))
        if not (done and self._drain_enrichments(started, timeout)):
            raise StaleError(f"expected all input to be processed within {timeout} s; it was not")

    # -- out -------------------------------------------------------------------------------------------------------

    def read(
        self,
        view: View | str,
        key: Any,
        *,
        after: Token | str | None = None,
        now: datetime | int | None = None,
        max_age: str | timedelta | float | None = None,
        timeout: float = 10.0,
    ) -> Row:
        """One key's features, right at this moment; a key without events reads as empty.

        Args:
            view: A view or its name.
            key: The key column's value; for several columns a tuple in their order, or a dict.
            after: Wait until the read sees the write that returned this token.
            now: Read as of this moment instead; at most the stream's lateness ago.
            max_age: Wait for an event of the key that is no older than this.
            timeout: How many seconds to wait for either.

        Raises:
            UnknownNameError: There is no such view.
            InputError: The key is not one of the view's, or `now` is out of range.
            StaleError: What was waited for did not come in time.
        """
        target = self.app.view_of(view)
        wanted = key if type(key) is target.plain_key else target.key(key)
        if after is not None:
            self._wait(after, timeout)
        moment = self._moment(target, now)
        self._runner.alive()
        token = self._seen()
        values = self._runner.store.read(target.name, wanted, moment)
        row = self._makers[target.name].one(wanted, values, token, self.lagging())
        if max_age is not None:
            return self._fresh(target, wanted, row, duration(max_age) / 1e6, now, timeout)
        return row

    def read_many(
        self,
        view: View | str,
        keys: Iterable[Any],
        *,
        after: Token | str | None = None,
        now: datetime | int | None = None,
        timeout: float = 10.0,
    ) -> pl.DataFrame:
        """Several keys' features at one moment: a frame with a row for each key, in their order.

        The columns are the key columns, the features, `as_of` and `age`. Arguments and errors are those of `read`.
        """
        target, wanted, values = self._values(view, keys, after, now, timeout)
        return self._makers[target.name].frame(wanted, values, self.lagging())

    def read_rows(
        self,
        view: View | str,
        keys: Iterable[Any],
        *,
        after: Token | str | None = None,
        now: datetime | int | None = None,
        timeout: float = 10.0,
    ) -> list[Row]:
        """As `read_many`, as rows rather than a frame: quicker for few keys."""
        token = self._seen()
        target, wanted, values = self._values(view, keys, after, now, timeout)
        maker = self._makers[target.name]
        lagging = self.lagging()
        return [maker.one(key, one, token, lagging) for key, one in zip(wanted, values, strict=True)]

    def _values(
        self,
        view: View | str,
        keys: Iterable[Any],
        after: Token | str | None,
        now: datetime | int | None,
        timeout: float,
    ) -> tuple[View, list[Any], list[Any]]:
        target = self.app.view_of(view)
        if isinstance(keys, str | bytes | Mapping):
            raise InputError(f"{target.name}: expected several keys, found {keys!r}; put it into a list")
        plain = target.plain_key
        wanted = [key if type(key) is plain else target.key(key) for key in keys]
        if len(wanted) > MOST_KEYS:
            raise TooLargeError(f"expected at most {MOST_KEYS} keys a call, found {len(wanted)}; ask in parts")
        if after is not None:
            self._wait(after, timeout)
        self._runner.alive()
        return target, wanted, self._runner.store.read_many(target.name, wanted, self._moment(target, now))

    def now(self, view: View | str | Stream) -> int:
        """What `now` is for a view or stream, in microseconds; 0 for a stream on event time without events."""
        if not self.app.event_time:
            return self.app.clock.now()
        if isinstance(view, str) and view in self.app.streams:
            name = view
        else:
            name = self.app.view_of(view).stream if isinstance(view, View | str) else view.name
        return self._runner.newest(name) or 0

    def _moment(self, view: View, now: datetime | int | None) -> int | None:
        """The time to read at; None stands for the newest event time."""
        if now is None:
            return None if self.app.event_time else self.app.clock.now()
        moment = to_micros(now) if isinstance(now, datetime) else now
        if not isinstance(moment, int) or not MIN_TIME <= moment <= MAX_TIME:
            raise InputError(f"now: expected a datetime, or microseconds since the Unix epoch, found {now!r}")
        current = self.now(view)
        lateness = self.app.streams[view.stream].lateness
        if moment < current - lateness and view.horizon is not None:
            raise InputError(
                f"now: reads reach {format_duration(lateness)} back, found {format_duration(current - moment)}; "
                "declare the stream with a longer lateness"
            )
        return moment

    def _wait(self, after: Token | str, timeout: float) -> None:
        positions = {name: at for name, at in Token.parse(after).positions.items() if not documents.of_table(name)}
        unknown = set(positions) - set(self._runner.positions())
        if unknown:
            raise InputError(f"the token names the sources {sorted(unknown)}, which this app does not have")
        if not self._runner.wait_until(lambda: reached(self._runner.seen()[1], positions), timeout):
            raise StaleError(f"expected to see the write of the token within {timeout} s; the engine is not there yet")

    def _fresh(self, view: View, key: Any, row: Row, most: float, now: datetime | int | None, timeout: float) -> Row:
        """The row once it is young enough, asked anew after every batch."""
        found: list[Row] = [row]

        def young() -> bool:
            found[0] = self.read(view, key, now=now)
            age = found[0].age  # type: ignore[attr-defined]  # every row class has it
            return age is not None and age <= most

        if not self._runner.wait_until(young, timeout):
            age = found[0].age  # type: ignore[attr-defined]
            shown = "there is no event" if age is None else f"the newest event is {age:.3f} s old"
            raise StaleError(
                f"{view.name}: expected an event of {key!r} at most {most:g} s old within {timeout} s; {shown}"
            )
        return found[0]

    def _seen(self) -> str:
        version, text = self._token
        now, positions = self._runner.seen()
        if version != now:
            text = token_text(dict(positions))
            self._token = (now, text)
        return text

    def lagging(self) -> bool:
        """Whether the engine is further behind its input than the app's limit."""
        return self._runner.behind() > self._limit

    # -- looking after it ------------------------------------------------------------------------------------------

    @property
    def dead_letters(self) -> DeadLetters:
        """What could not be used."""
        return self._runner.dead_letters

    def replay_dead_letters(self, ids: Sequence[int] | None = None) -> tuple[int, int]:
        """Pushes dead letters again, for instance after the model was mended: (taken, still rejected).

        A letter is removed when its row has been taken; one that is rejected again stays as it is.
        """
        return pushed.again(self, self._runner, ids)

    def stats(self) -> Stats:
        """What goes on: counts, rates, sizes and delays."""
        return measure(self, self._runner, LibraryFigures() if self._library is None else self._library.figures())

    def status(self) -> dict[str, Any]:
        """The figures as plain values, with the time and what is declared."""
        return status.status(self)

    def ready(self) -> tuple[bool, str]:
        """Whether the app can take and answer, and if not, why."""
        problem = self._runner.problem() or (self._library.problem() if self._library is not None else None)
        problem = problem or (self._enriching.problem() if self._enriching is not None else None)
        return problem is None, problem or "ready"

    def close(self) -> None:
        """Finishes what was taken, writes a last checkpoint and lets go of the data directory.

        Raises:
            StorageError: The last checkpoint could not be written; nothing is lost, the next start takes longer.
        """
        self._calls.close()
        self._contexts.close()
        self._close_changes()
        self._close_enrichments()
        try:
            if self._library is not None:
                self._library.close()
        finally:
            self._runner.close()

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
