"""A view's features to a topic: each key's row when it changes, also when only time has changed it.

What is published is a table: a message's key is the view's key, its value the whole row, and a tombstone says that
nothing is left of it. A row is right when it is written, and goes wrong by itself as its windows move on; so a key that
has been published is looked at again at every tile's edge, until it is empty and is taken back. Rows that are the same
as what was published last are not written again. A row is an absolute value under a stable key: after a crash all that
may be out of date is simply published again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import xxhash

from headrace.errors import ClosedError, StorageError
from headrace.features.view import View
from headrace.registry import DEFAULT as CONNECTORS
from headrace.runners.engine import Engine
from headrace.sources.base import Sink
from headrace.stores.published import Published
from headrace.units import SECOND, from_micros

if TYPE_CHECKING:
    from headrace.app import App

logger = logging.getLogger("headrace")

# Keys read and written at a time.
_PART = 4_096
_LONGEST_BACKOFF = 10.0


class Publisher:
    """Writes one view's rows to one sink, in a thread of its own.

    Args:
        view: What is published.
        sink: Where to.
        every: The shortest time between two rows of a key, in microseconds.
        published: The keys that may be in the sink.
        read: Values of keys at a moment, as an online store reads them.
        now: The view's `now`, in microseconds; None before the first event.
    """

    def __init__(
        self,
        view: View,
        sink: Sink,
        every: int,
        published: Published,
        read: Callable[[list[Any], int], list[Any]],
        now: Callable[[], int | None],
    ) -> None:
        self.view = view
        self.problem: str | None = None
        self.written = 0
        self._sink = sink
        self._every = every / SECOND
        self._published = published
        self._read = read
        self._now = now
        self._name = f"{view.name} > {sink.name}"
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder().decode
        tiles = [table.every for table in view.tables if table.keep is not None]
        self._edge = min(tiles) if tiles else None
        self._lock = threading.Lock()
        self._dirty: set[Any] = set()
        self._later: dict[int, set[Any]] = {}  # by the tile's edge from which on a key may read otherwise
        self._last: dict[Any, int] = {}  # the hash of what was published last
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace-publish-{view.name}", daemon=True)

    def start(self, keys: Iterable[Any]) -> None:
        """Begins with these keys, which there are now, and with all that may still be in the sink."""
        self.changed(keys)
        self.changed(self._key(text) for text in self._published.keys(self._name))
        self._thread.start()

    def changed(self, keys: Iterable[Any]) -> None:
        """These keys have changed."""
        with self._lock:
            self._dirty.update(keys)

    def flush(self) -> None:
        """Publishes what is due now.

        Raises:
            StorageError: Not all was written; it stays due.
        """
        now = self._now()
        if now is None:
            return
        due = self._due(now)
        while due:
            part = due[:_PART]
            try:
                self._publish(part, now)
            except StorageError:
                self.changed(due)
                raise
            due = due[_PART:]

    def close(self) -> None:
        """Publishes what is due, once, and ends."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self.flush()
        except StorageError as error:
            logger.warning("%s: not all was published: %s; the next start does", self.view.name, error)
        self._sink.close()

    def _run(self) -> None:
        wait = self._every
        while not self._closing.wait(wait):
            started = time.monotonic()
            try:
                self.flush()
            except ClosedError:
                return
            except StorageError as error:
                self.problem = str(error)
                wait = min(_LONGEST_BACKOFF, max(2 * wait, self._every))
                logger.warning("%s: %s; trying again in %.1f s", self.view.name, error, wait)
                continue
            self.problem = None
            wait = max(0.0, self._every - (time.monotonic() - started))

    def _due(self, now: int) -> list[Any]:
        with self._lock:
            due, self._dirty = self._dirty, set()
        for edge in [edge for edge in self._later if edge <= now]:
            due |= self._later.pop(edge)
        return list(due)

    def _publish(self, keys: list[Any], now: int) -> None:
        """Writes the rows of keys that read otherwise than what was published, and takes back those that are empty."""
        rows: list[tuple[Any, bytes | None]] = []
        alive = []
        for key, values in zip(keys, self._read(keys, now), strict=True):
            if values.newest is None:
                rows.append((key, None))
                continue
            alive.append(key)
            row = self._row(key, values)
            if self._last.get(key) != xxhash.xxh3_64_intdigest(row):
                rows.append((key, row))
        texts = {key: self._text(key) for key, _ in rows}
        self._published.add(self._name, [texts[key] for key, row in rows if row is not None])
        if rows:
            self._sink.put([(texts[key], row) for key, row in rows])
        self._published.remove(self._name, [texts[key] for key, row in rows if row is None])
        for key, written in rows:
            if written is None:
                self._last.pop(key, None)
            else:
                self._last[key] = xxhash.xxh3_64_intdigest(written)
        self.written += len(rows)
        if self._edge is not None and alive:
            self._later.setdefault((now // self._edge + 1) * self._edge, set()).update(alive)

    def _row(self, key: Any, values: Any) -> bytes:
        parts = key if len(self.view.keys) > 1 else (key,)
        row = dict(zip(self.view.keys, parts, strict=True)) | dict(
            zip(self.view.features, values.features, strict=True)
        )
        return self._encode(row | {"as_of": from_micros(values.newest)})

    def _text(self, key: Any) -> bytes:
        """A key as a message's key: text as it is, anything else as JSON."""
        return key.encode() if isinstance(key, str) else self._encode(key)

    def _key(self, text: bytes) -> Any:
        if len(self.view.keys) == 1 and self.view.plain_key is str:
            return text.decode()
        return self.view.key(self._decode(text))


def publishers(app: App, engine: Engine, published: Published) -> list[Publisher]:
    """A publisher for each view that the app publishes, told by the engine of what changes."""
    made = []
    for one in app.publications:
        view = app.views[one.view]
        made.append(
            Publisher(
                view,
                CONNECTORS.create("sink", one.url),
                one.every,
                published,
                partial(engine.store.read_many, view.name),
                partial(_now, app, engine, view),
            )
        )
        engine.listeners.setdefault(view.name, []).append(made[-1].changed)
    return made


def _now(app: App, engine: Engine, view: View) -> int | None:
    return engine.streams[view.stream].newest if app.event_time else app.clock.now()
