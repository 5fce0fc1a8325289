"""`redis://`: Redis or Valkey as the online store, for one engine that writes and any number of processes that read.

A key's rows are the fields of one hash, so that an event rewrites one tile and not all of them; windows are merged when
they are read. A read asks for what the engine says of itself and for the rows in one round trip, in that order: what
it answers with is at least as new as what it says. See docs/redis.md for the promises, and `redis_wire` for the keys.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from headrace.changes import Rows
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.stores.online.base import Codec, Keeper, Progress
from headrace.stores.online.redis_cleaner import Cleaner
from headrace.stores.online.redis_link import Link, link
from headrace.stores.online.redis_listener import Listener
from headrace.stores.online.redis_meta import (
    RUN,
    Meta,
    RunRecord,
    Writer,
    at_fields,
    order_of,
    parse_progress,
    parse_run,
)
from headrace.stores.online.redis_url import parse
from headrace.stores.online.redis_wire import Command, channel, key_bytes, meta_key, prefix
from headrace.stores.online.redis_writer import RedisWriter

# Keys of one round trip.
_KEYS = 1_000
# For so long after a failure others are not tried: many readers would each wait for the time-out.
_BREATH = 0.1


@dataclass(frozen=True)
class _Run:
    """The valid run, as it is stored and as it was understood.

    Attributes:
        prefixes: What the keys of each view begin with.
        ask: The command that asks whether it still is, and how far it has come.
    """

    raw: bytes
    record: RunRecord
    prefixes: dict[str, bytes]
    ask: Command


class RedisStore:
    """An app's views in Redis or Valkey. Connections are made when they are first needed.

    Args:
        url: See `redis_url`.
        app: The app's name; two apps of one name cannot share a database.
        codecs: By view: what the bytes of rows mean.
        expires: Whether rows may end by the server's clock: not where `now` is told by events.
        writer: Which of several writers this is, where an engine writes from several processes …
        writers: … and how many they are. Each calls `bind` with what it alone holds.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        app: str,
        codecs: Mapping[str, Codec],
        expires: bool = True,
        writer: int = 0,
        writers: int = 1,
    ) -> None:
        if not 0 <= writer < writers:
            raise ConfigError(f"expected a writer's number from 0 to {writers - 1}, found {writer}")
        self._link: Link = link(parse(url))
        self._app = app
        self._codecs = dict(codecs)
        self._expires = expires
        self._place = writer, writers
        self._meta = meta_key(app)
        self._listener = Listener(self._link, channel(app))
        self._writer: RedisWriter | None = None
        self._cleaner: Cleaner | None = None
        self._run: _Run | None = None
        # What its writers have said, as it is stored and as it was understood, and what `progress` told last.
        self._said: tuple[tuple[bytes, ...], Progress] | None = None
        self._told: tuple[bytes, ...] | None = None
        self._failure: tuple[float, str] | None = None
        self._closed = False

    # -- writing ---------------------------------------------------------------------------------------------------

    def bind(self, keepers: Mapping[str, Keeper], lineage: Mapping[str, str]) -> None:
        number, writers = self._place
        # Several writers must agree on the run without asking each other; alone, each start is a run of its own.
        shared = blake2b(repr(sorted(lineage.items())).encode(), digest_size=16).hexdigest()
        run = uuid.uuid4().hex if writers == 1 else shared
        identity = Writer(run, number, writers, time.time_ns() // 1000)
        self._writer = RedisWriter(self._link, self._app, self._codecs, keepers, identity, self._expires)

    def write(
        self,
        commits: Sequence[Callable[[], object]],
        rows: Callable[[], Iterable[Rows]],
        progress: Progress,
    ) -> None:
        for commit in commits:
            commit()
        self._bound().write(rows, progress)
        self._clean()

    def beat(self, progress: Progress) -> bool:
        """Says that the engine lives; where this process is one that only reads, says nothing."""
        if self._writer is None:
            return False
        said = self._writer.beat(progress)
        self._clean()
        return said

    def give_up(self) -> None:
        if self._writer is not None:
            self._writer.give_up()

    def _bound(self) -> RedisWriter:
        if self._closed:
            raise ClosedError("the online store is closed")
        if self._writer is None:
            raise ConfigError("expected bind() before write(): this process only reads the online store")
        return self._writer

    def _clean(self) -> None:
        """Lets the rows of earlier runs be removed, once those of this one are the valid ones."""
        writer = self._writer
        if self._cleaner is None and self._place[0] == 0 and writer is not None and writer.published.is_set():
            assert writer.epoch is not None
            self._cleaner = Cleaner(self._link, self._app, writer.epoch)
            self._cleaner.start()

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, view: str, key: Any, now: int | None) -> Any:
        (rows,), moment = self._rows(view, [key_bytes(key)], now)
        return self._codecs[view].read(rows, moment)

    def read_many(self, view: str, keys: Sequence[Any], now: int | None) -> list[Any]:
        wanted = [key_bytes(key) for key in keys]
        values: list[Any] = []
        for at in range(0, len(wanted), _KEYS):
            rows, now = self._rows(view, wanted[at : at + _KEYS], now)
            values += self._codecs[view].read_many(rows, now)
        return values

    def _rows(self, view: str, keys: Sequence[bytes], now: int | None) -> tuple[list[list[bytes]], int | None]:
        """The rows of keys in the valid generation, and the time to read them at."""
        known = self._run or self._learn(None)
        for _ in range(3):
            start = known.prefixes[view]
            answers = self._ask([known.ask, *[(b"HVALS", start + key) for key in keys]])
            run, *said = answers.pop(0)
            if run == known.raw:
                if now is None:
                    now = self._heard(said)[1].newest.get(self._codecs[view].stream)
                return answers, now
            # Another engine has taken over meanwhile; its rows have other names.
            known = self._learn(None)
        raise StorageError(
            f"the online store at {self._link.target.shown}: the engine of {self._app!r} was started anew three times "
            "during one read; see why it does not stay up"
        )

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers of the server.

        Raises:
            StorageError: It did not answer, or refused.
        """
        if self._closed:
            raise ClosedError("the online store is closed")
        failure = self._failure
        if failure is not None and time.monotonic() < failure[0]:
            raise StorageError(failure[1])
        try:
            answers = self._link.ask(commands)
        except StorageError as error:
            self._failure = time.monotonic() + _BREATH, str(error)
            raise
        self._failure = None
        for answer in answers:
            if isinstance(answer, Exception):
                text = " ".join(str(answer).split())[:300]
                raise StorageError(f"the online store at {self._link.target.shown} refused a read: {text}")
        return answers

    def _learn(self, found: Meta | None) -> _Run:
        """Which rows are valid, by what the engine says.

        Raises:
            StorageError: No engine has written, or it runs another declaration.
        """
        if found is None:
            if self._writer is not None:
                # The engine of this process is about to write for the first time.
                self._writer.published.wait(self._link.target.timeout)
            found = Meta.of(self._ask([(b"HGETALL", self._meta)])[0])
        if found.run is None:
            raise StorageError(
                f"no engine has written the app {self._app!r} to {self._link.target.shown} yet; start one with "
                "`headrace run`, with the same online store"
            )
        record = parse_run(found.run)
        for name, codec in self._codecs.items():
            if record.views.get(name) != codec.fingerprint:
                what = "another declaration of" if name in record.views else "no view"
                raise StorageError(
                    f"the engine runs {what} {name!r}: what it writes to {self._link.target.shown} cannot be read by "
                    "this one; start both with the same app and the same version of Polars"
                )
        prefixes = {name: prefix(self._app, name, record.epoch) for name in self._codecs}
        ask = (b"HMGET", self._meta, RUN, *at_fields(record))
        self._run = _Run(found.run, record, prefixes, ask)
        return self._run

    # -- how far the engine has come -------------------------------------------------------------------------------

    def progress(self, timeout: float | None = None) -> Progress:
        """How far the engine has come; with a timeout, waits so long for the next word of it.

        Raises:
            StorageError: The store is out of reach, or no engine has written to it.
            ClosedError: It was closed meanwhile.
        """
        before = self._told
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            heard = None if deadline is None else self._listener.wait(max(deadline - time.monotonic(), 0))
            said, progress = self._told_of(heard) or self._asked()
            if deadline is None or said != before or time.monotonic() >= deadline:
                self._told = said
                return progress

    def _asked(self) -> tuple[tuple[bytes, ...], Progress]:
        found = Meta.of(self._ask([(b"HGETALL", self._meta)])[0])
        known = self._run
        if known is None or found.run != known.raw:
            known = self._learn(found)
        return self._heard(found.said(known.record))

    def _told_of(self, heard: bytes | None) -> tuple[tuple[bytes, ...], Progress] | None:
        """What was published, if it is the next word of the one writer that is known: else it has to be asked."""
        known, held = self._run, self._said
        if not heard or known is None or held is None or known.record.writers > 1:
            return None
        (start, number), (known_start, known_number) = order_of(heard), order_of(held[0][0])
        if start != known_start:
            return None
        return self._heard([heard]) if number > known_number else held

    def _heard(self, said: Sequence[bytes | None]) -> tuple[tuple[bytes, ...], Progress]:
        """What writers have said, understood."""
        words = tuple(word or b"" for word in said)
        held = self._said
        if held is None or held[0] != words:
            held = self._said = words, parse_progress(words)
        return held

    def problem(self) -> str | None:
        if self._writer is not None and self._writer.problem is not None:
            return self._writer.problem
        failure = self._failure
        return None if failure is None else failure[1]

    def close(self) -> None:
        self._closed = True
        if self._cleaner is not None:
            self._cleaner.close()
        self._listener.close()
        if self._writer is not None:
            self._writer.close()
        self._link.close()
