"""No engine at all: reads what one elsewhere writes to the online store, for any number of API replicas.

    pushes ─► the stream's source (a topic)        engine ─► online store ─► replica ─► reads

Nothing is kept here, so a replica can be killed and another started at any time. One thread waits for word of the
engine's progress, which is what tokens and waiting reads are told by. What is pushed goes to where the engine reads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.app import WallClock
from headrace.errors import ClosedError, ConfigError, InputError, StorageError
from headrace.registry import shown_url
from headrace.runners.base import PUSH, Figures, StreamFigures
from headrace.runners.online import online_store
from headrace.runners.setaside import SetAside
from headrace.schema import Reject
from headrace.sources.base import Source, Writable, Writer
from headrace.stores.dead_letters import DeadLetters
from headrace.stores.online.base import OnlineStore, Progress, RemoteStore
from headrace.units import SECOND

if TYPE_CHECKING:
    from headrace.app import App, Stream

logger = logging.getLogger("headrace")

_LETTERS_IN_MEMORY = 16 << 20
# How long to wait for the engine's next word before asking again; it says something every second.
_LISTEN = 5.0
_RETRY = 0.5
# An engine that has been silent for longer than this is behind by its silence.
_SILENT = 3 * SECOND


class ReplicaRunner:
    """Answers for an app whose engine runs elsewhere.

    Args:
        app: What the engine runs too; its online store must be one that both can reach.
        path: None: a replica keeps nothing.

    Raises:
        ConfigError: The app's online store is within one process, or a path was given.
    """

    def __init__(self, app: App, path: str | Path | None = None) -> None:
        if path is not None:
            raise ConfigError(f"a replica keeps nothing on disk, found the data directory {path}; leave it out")
        store = online_store(app)
        if not isinstance(store, RemoteStore):
            raise ConfigError(
                f"expected an online store that the engine and its replicas share, such as redis://host:6379/0, found "
                f"{shown_url(app.online)!r}; name it with --online or HEADRACE_ONLINE, for the engine too"
            )
        self.app = app
        self._store = store
        self._wall = WallClock().now
        self.dead_letters = DeadLetters(None, keep_bytes=_LETTERS_IN_MEMORY)
        self._setaside = SetAside(self.dead_letters, app.clock.now)
        self._sources: dict[str, Source] = {
            stream.name: stream.source() for stream in app.streams.values() if stream.url is not None
        }
        self._writers: dict[str, Writer] = {}
        self._pushed: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._heard = threading.Condition()
        self._progress: Progress | None = None
        self._version = 0
        self._problem: str | None = "nothing was heard of the engine yet"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="headrace-replica", daemon=True)

    @property
    def store(self) -> OnlineStore:
        return self._store

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._store.close()
        if self._thread.ident is not None:
            self._thread.join()
        with self._heard:
            self._heard.notify_all()
        for writer in self._writers.values():
            writer.close()
        self.dead_letters.close()

    def _listen(self) -> None:
        timeout: float | None = None
        while not self._closing.is_set():
            try:
                progress = self._store.progress(timeout)
            except StorageError as error:
                if self._problem != str(error):
                    logger.warning("%s", error)
                self._problem = str(error)
                timeout = None
                self._closing.wait(_RETRY)
                continue
            except ClosedError:
                return
            self._take(progress)
            timeout = _LISTEN

    def _take(self, progress: Progress) -> None:
        with self._heard:
            self._problem = None
            if progress != self._progress:
                self._progress = progress
                self._version += 1
                self._heard.notify_all()

    # -- in --------------------------------------------------------------------------------------------------------

    def submit(self, stream: Stream, frame: pl.DataFrame) -> dict[str, Any]:
        self.alive()
        position = self._writer(stream).write(frame, self._key(stream))
        self._pushed[stream.name] += frame.height
        return {self._sources[stream.name].name: position}

    def _writer(self, stream: Stream) -> Writer:
        source = self._sources.get(stream.name)
        place: object = source
        if not isinstance(place, Writable):
            where = "takes pushes only" if source is None else f"reads {source.name}, which cannot be written to"
            raise InputError(
                f"{stream.name}: expected a stream whose source can be written to, such as a topic; it {where}. "
                "Push to the process that runs the engine"
            )
        with self._lock:
            if stream.name not in self._writers:
                self._writers[stream.name] = place.writer(stream.schema)
                self._setaside.writers[stream.name] = self._writers[stream.name]
            return self._writers[stream.name]

    def _key(self, stream: Stream) -> str | None:
        """The column that says which partition a row goes to: what the stream's views have as their only key."""
        keys = {view.keys for view in self.app.views.values() if view.stream == stream.name}
        (only,) = keys if len(keys) == 1 else ((),)
        return only[0] if len(only) == 1 else None

    def set_aside(self, stream: Stream, rejects: Sequence[Reject]) -> None:
        self._setaside.rejected(stream.name, "push", rejects)

    # -- out -------------------------------------------------------------------------------------------------------

    def alive(self) -> None:
        if self._closing.is_set():
            raise ClosedError(f"the app {self.app.name!r} is closed; open it again")

    def problem(self) -> str | None:
        if self._closing.is_set():
            return "closed"
        return self._problem or self._store.problem()

    def positions(self) -> list[str]:
        # What was pushed to the engine itself too: nothing may have been heard of it yet.
        progress = self._progress
        return [PUSH, *{source.name for source in self._sources.values()}, *(progress.seen if progress else ())]

    def seen(self) -> tuple[int, Mapping[str, Any]]:
        with self._heard:
            return self._version, {} if self._progress is None else self._progress.seen

    def newest(self, stream: str) -> int | None:
        progress = self._progress
        return None if progress is None else progress.newest.get(stream)

    def behind(self) -> float:
        progress = self._progress
        if progress is None:
            return 0.0
        silent = self._wall() - progress.at
        return progress.behind + (silent / SECOND if silent > _SILENT else 0.0)

    def wait_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        version = -1
        while not done():
            self.alive()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            version = self._after(version, left)
        return True

    def _after(self, version: int, timeout: float | None) -> int:
        """Waits for a version other than this one; returns it."""
        with self._heard:
            self._heard.wait_for(lambda: self._version != version or self._closing.is_set(), timeout)
            return self._version

    def drain(self, timeout: float | None) -> bool:  # noqa: ARG002 - there is nothing here to wait for
        raise InputError(
            "expected to drain where the engine runs; a replica only reads. To wait for a push, read with its token"
        )

    def figures(self) -> Figures:
        streams = {
            name: StreamFigures(
                accepted=self._pushed[name], rejected=self._setaside.rejected_rows[name], newest=self.newest(name)
            )
            for name in self.app.streams
        }
        return Figures(streams, behind=self.behind(), cycles=self._version, dead_letters_lost=self._setaside.lost)
