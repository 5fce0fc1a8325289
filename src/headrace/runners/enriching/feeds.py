"""How events reach an enrichment: from the push log and from the stream's source, each read beside the engine.

The engine never hears of it: the log is read as it grows, and a source is read a second time, with a position of its
own. So whatever a model does, the features of the stream go on. What is read is stored before its position moves
on, and the log keeps what was not read yet.

Both are bounded. A source is simply not read on while too much waits. The push log cannot hold its pushes up, and must
not grow without end: past the enrichment's `backlog` events become dead letters, which can be replayed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from headrace.errors import ClosedError, StorageError
from headrace.formats.written import lines
from headrace.runners.base import PUSH
from headrace.runners.enriching.stage import Stage
from headrace.runners.feeder import Feeder
from headrace.runners.inbox import Inbox, Work
from headrace.runners.intake import Intake
from headrace.runners.local import LocalRunner
from headrace.runners.setaside import SetAside
from headrace.schema import Reject
from headrace.sources.base import Letter, Source
from headrace.stores.enrichments import EnrichmentStore
from headrace.stores.log import Record
from headrace.stores.tail import LogTail

logger = logging.getLogger("headrace")
_ROWS = 20_000  # read at a time
_POLL = 0.05
_SAVE = 1.0  # seconds: how often a position is stored when nothing came
_AHEAD = 100_000  # rows of a source that may wait
_LONGEST_BACKOFF = 10.0


class Feed(Protocol):
    """One input of an enrichment."""

    def start(self) -> None:
        """Begins to read."""

    def floor(self) -> int | None:
        """The position of the push log up to which it needs nothing any more; None if it reads another input."""

    def caught_up(self, timeout: float | None) -> bool:
        """Waits until all that was in the input when this was called is taken in."""

    def close(self) -> None:
        """Stops reading."""


class PushFeed:
    """The events that are pushed to a stream.

    Args:
        stage: Where they go.
        runner: Whose push log it is.
        store: Where they are stored.
        folder: The log's; None for one in memory.
        changed: Notified when something has been taken in.
        release: Called when less of the log is needed.

    Raises:
        StorageError: The log ends before what was read of it.
    """

    def __init__(
        self,
        stage: Stage,
        runner: LocalRunner,
        store: EnrichmentStore,
        folder: Path | None,
        changed: threading.Condition,
        release: Callable[[], None],
    ) -> None:
        self._release = release
        self._stage, self._runner, self._store, self._changed = stage, runner, store, changed
        self._name, self._base = stage.enrichment.name, stage.enrichment.base.name
        known = store.position(self._name, PUSH)
        # Without a past it begins with all that the log still holds, as a new view does.
        self._saved = runner.log.first - 1 if known is None else int(known)
        if self._saved > runner.log.position:
            raise StorageError(
                f"the push log ends at position {runner.log.position}, but the enrichment {self._name!r} has read "
                f"up to {self._saved}: the end of the log is damaged or was removed; restore the directory from a "
                "backup, or begin a new one"
            )
        self._tail = LogTail(runner.log, folder, self._saved)
        self._saved_at = time.monotonic()
        self._seen = self._saved  # up to here what there was is stored
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace-enrich-{self._name}", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def floor(self) -> int | None:
        """The position that is stored."""
        return self._saved

    def caught_up(self, timeout: float | None) -> bool:
        """Waits until the log has been read up to where it ends now."""
        end = self._runner.log.position
        with self._changed:
            return self._changed.wait_for(
                lambda: self._seen >= end or self._closing.is_set() or self._stage.tally.failure is not None,
                timeout,
            )

    def close(self) -> None:
        """Stops reading."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._tail.close()

    def _run(self) -> None:
        backoff = _POLL
        records: list[Record] = []
        while not self._closing.is_set():
            try:
                records = records or self._tail.read(self._base, _ROWS)
                if self._tail.missing:
                    logger.error(
                        "%s: %d records of the push log were gone before they were read",
                        self._name,
                        self._tail.missing,
                    )
                    self._tail.missing = 0
                self._take(records)
                if backoff != _POLL:
                    self._stage.tally.problem = None
                records, backoff = [], _POLL
                log, read = self._runner.log, self._tail.position
                # Woken when reads have seen more; and in any case soon, since the engine may be busy.
                self._runner.wait_until(lambda: log.position > read, _POLL)  # noqa: B023 - asked within the turn
            except StorageError as error:
                backoff = _back_off(self._stage, error, self._closing, backoff)
            except Exception as error:
                if self._closing.is_set() and isinstance(error, ClosedError):
                    return
                logger.exception("%s: reading the push log stopped", self._name)
                self._stage.fail(f"{type(error).__name__}: {error}")
                return

    def _take(self, records: Sequence[Record]) -> None:
        position = self._tail.position
        now = time.monotonic()
        if not records and (position == self._saved or now - self._saved_at < _SAVE):
            self._heard()
            return
        fitting: list[tuple[int, pl.DataFrame]] = []
        room = self._stage.room()
        for record in records:
            if record.frame.height > room:
                self._set_aside(record)
            else:
                room -= record.frame.height
                fitting.append((record.received, record.frame))
        last = self._store.take_in(self._name, PUSH, position, fitting)
        self._saved, self._saved_at = position, now
        self._release()
        if fitting:
            self._stage.taken_in(last, sum(frame.height for _, frame in fitting), fitting[0][0])
        self._heard()

    def _heard(self) -> None:
        with self._changed:
            self._seen = self._tail.position
            self._changed.notify_all()

    def _set_aside(self, record: Record) -> None:
        """What there is no room for; told once, however often it is read."""
        reason = f"the backlog is full: {self._stage.spec.backlog:,} events wait for the model; replay it later"
        schema = self._stage.enrichment.base.schema
        raws = lines(schema, schema.align(record.frame))
        self._stage.letters([(f"backlog#{record.position}.{row}", reason, raw) for row, raw in enumerate(raws)])


class _Unheeded(SetAside):
    """The engine's own reading of the source sets aside what cannot be used; this one only passes it over."""

    def rejected(self, stream: str, source: str, rejects: Sequence[Reject], position: Any | None = None) -> None:
        """Nothing."""

    def traced(self, stream: str, letters: Sequence[Letter], why: str) -> None:
        """Nothing."""


class SourceFeed:
    """The events of a stream's source, read a second time.

    Args:
        stage: Where they go.
        runner: The app's.
        store: Where they are stored.
        changed: Notified when something has been taken in.

    Raises:
        ConfigError: The source cannot be read.
    """

    def __init__(self, stage: Stage, runner: LocalRunner, store: EnrichmentStore, changed: threading.Condition) -> None:
        self._stage, self._store, self._changed = stage, store, changed
        self._name = stage.enrichment.name
        base = stage.enrichment.base
        self._source: Source = base.source()
        self._inbox = Inbox(_ROWS)
        now = runner.app.clock.now
        intake = Intake(base.name, base.schema, self._source, _Unheeded(runner.dead_letters, now), now)
        self._feeder = Feeder(base.name, self._source, intake, self._inbox)
        self._taken = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace-enrich-source-{self._name}", daemon=True)

    def start(self) -> None:
        """Begins to read where it stood."""
        self._feeder.start(self._store.position(self._name, self._source.name))
        self._thread.start()

    def floor(self) -> int | None:
        """It needs nothing of the push log."""
        return None

    def caught_up(self, timeout: float | None) -> bool:
        """Waits until all that is in the source now is taken in."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._feeder.caught_up(timeout):
            if self._feeder.failure is not None:
                raise ClosedError(f"{self._name}: {self._source.name} has stopped: {self._feeder.failure}")
            return False
        wanted = self._inbox.put_count
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        with self._changed:
            return self._changed.wait_for(
                lambda: self._taken >= wanted or self._closing.is_set() or self._stage.tally.failure is not None, left
            )

    def close(self) -> None:
        """Stops reading; what was not taken in is read again."""
        self._closing.set()
        self._inbox.close()
        self._feeder.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                if self._feeder.failure is not None:
                    self._stage.fail(f"{self._source.name} has stopped: {self._feeder.failure}")
                    return
                if self._stage.waiting >= min(self._stage.spec.backlog, _AHEAD):
                    self._closing.wait(_POLL)  # what is not taken in is not read on
                elif works := self._inbox.take(_POLL):
                    self._take(works)
        except Exception as error:
            if self._closing.is_set() and isinstance(error, ClosedError):
                return
            logger.exception("%s: reading %s stopped", self._name, self._source.name)
            self._stage.fail(f"{type(error).__name__}: {error}")

    def _take(self, works: Sequence[Work]) -> None:
        frames = [(work.received, work.frame) for work in works if work.frame.height]
        backoff = _POLL
        while not self._closing.is_set():
            try:
                last = self._store.take_in(self._name, self._source.name, works[-1].position, frames)
            except StorageError as error:
                backoff = _back_off(self._stage, error, self._closing, backoff)
                continue
            if backoff != _POLL:
                self._stage.tally.problem = None
            if frames:
                self._stage.taken_in(last, sum(frame.height for _, frame in frames), frames[0][0])
            with self._changed:
                self._taken += len(works)
                self._changed.notify_all()
            return


def _back_off(stage: Stage, error: StorageError, closing: threading.Event, wait: float) -> float:
    """Waits, and returns how long to wait the next time."""
    logger.warning("%s: %s; trying again in %.1f s", stage.enrichment.name, error, wait)
    stage.tally.problem = str(error)
    closing.wait(wait)
    return min(2 * wait, _LONGEST_BACKOFF)
