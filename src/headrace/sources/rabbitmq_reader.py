"""One reading of a queue, as `RabbitSource.open` gives it out: batches of what its connection has received."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Mapping
from typing import Any

from headrace.cdc import Change
from headrace.document import TableSchema
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.sources.base import Letter, Trace
from headrace.sources.rabbitmq_link import ANSWER, CONNECT, Link
from headrace.sources.rabbitmq_messages import Decoder, Message
from headrace.sources.rabbitmq_url import RabbitUrl
from headrace.sources.tables import Changes


def offset_of(position: Any, url: RabbitUrl) -> int | None:
    """The offset of a stream's position; None of another queue's, which says nothing.

    Raises:
        ConfigError: The position is not one of this source's.
    """
    if not (isinstance(position, Mapping) and position.get("rabbitmq") == url.place):
        raise ConfigError(f"expected a position of {url.name}, found {position!r}; start the table without one")
    offset = position.get("offset")
    if offset is not None and (not isinstance(offset, int) or isinstance(offset, bool) or offset < 0):
        raise ConfigError(f"expected a position with an offset of {url.name}, found {position!r}")
    return offset


class RabbitReader:
    """See `TableReader`. A connection that fails is told once; the next read makes another one."""

    def __init__(self, url: RabbitUrl, schema: TableSchema, offset: int | None) -> None:
        self._url = url
        self._decoder = Decoder(url, schema)
        self._offset = offset
        self._lock = threading.Lock()
        self._closed = False
        self._number = 0
        self._link: Link | None = None

    def connect(self) -> None:
        """Connects, and returns once messages can come.

        Raises:
            ConfigError: The queue is not there, or the login is refused.
            StorageError: The server is out of reach.
        """
        link = self._linked()
        try:
            link.ready.result(CONNECT + ANSWER)
        except concurrent.futures.TimeoutError:
            raise StorageError(f"{self._url.name} is out of reach: no answer within {CONNECT + ANSWER:.0f} s") from None

    def read(self, timeout: float) -> Changes | None:
        """The next batch; see `TableReader.read`."""
        link = self._linked()
        try:
            messages = link.inbox.take(timeout)
        except StorageError:
            self._drop(link)
            raise
        self._check_open()
        return self._batch(link, messages) if messages else None

    def stored(self, changes: Changes) -> None:
        """Lets the server forget the messages of the batch, and of all before it."""
        with self._lock:
            link = self._link
            if link is None or changes.receipt is None or changes.receipt[0] != self._number:
                return  # of a connection that is gone: the server delivers them again
            link.confirm(changes.receipt[1])

    def lag(self) -> Mapping[str, int]:
        """Messages that wait in the queue, or were not stored yet; a stream's are not counted by the server."""
        link = self._link
        return {} if link is None or link.stream or not link.ready.done() else {"messages": link.waiting}

    def at_end(self) -> bool:
        """Asks the server whether all that it has was read."""
        self._check_open()
        link = self._link
        return link is not None and link.is_empty()

    def close(self) -> None:
        """Ends a read that waits, and the connection."""
        with self._lock:
            self._closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the reader of {self._url.name} is closed; open the source again")

    def _linked(self) -> Link:
        """The connection; another one if it is to hold more or fewer messages."""
        link = self._link
        prefetch = self._url.prefetch if link is None else self._fitting(link)
        if link is not None and prefetch != link.prefetch:
            self._drop(link)
        with self._lock:
            self._check_open()
            if self._link is None:
                self._number += 1
                self._link = Link(self._url, prefetch, self._offset)
            return self._link

    def _fitting(self, link: Link) -> int:
        """How many messages a connection may hold, so that their bytes stay within the limit."""
        if link.held or link.inbox.bytes or not link.received:
            return link.prefetch
        fit = max(1, self._url.bytes // max(1, link.largest))
        if link.overfull:
            return min(fit, max(1, link.prefetch // 2))
        if link.prefetch < self._url.prefetch and link.received >= link.prefetch:
            return max(link.prefetch, min(2 * link.prefetch, fit, self._url.prefetch))
        return link.prefetch

    def _drop(self, link: Link) -> None:
        with self._lock:
            if self._link is link:
                self._link = None
        link.close()

    def _batch(self, link: Link, messages: list[Message]) -> Changes:
        changes: list[Change] = []
        letters: list[Letter] = []
        if link.lost is not None:
            letters.append(self._ended(link.lost))
            self._offset = link.lost = None
        for message in messages:
            if message.offset is not None:
                letters += self._gap(message.offset)
                self._offset = message.offset + 1
            told = self._decoder.told(message)
            if isinstance(told, Letter):
                letters.append(told)
            else:
                changes += told
        if link.stream:
            link.confirm(messages[-1].tag)
        times = [change.at for change in changes if change.at is not None]
        return Changes(
            changes,
            {"rabbitmq": self._url.place, "offset": self._offset},
            letters=letters,
            receipt=(self._number, messages[-1].tag),
            created=max(times, default=None),
        )

    def _ended(self, offset: int) -> Letter:
        """A stream that ends before what was read of it."""
        reason = (
            f"the stream ends before message {offset - 1}, which was read: it was made again, or its server has lost "
            "messages; it is read from its beginning"
        )
        return Letter(reason, Trace(f"{self._url.queue}@{offset}"))

    def _gap(self, offset: int) -> list[Letter]:
        """What a stream no longer had when it was read on."""
        if self._offset is None or offset <= self._offset:
            return []
        reason = f"messages {self._offset} to {offset - 1} were deleted, as by retention, before they were read"
        return [Letter(reason, Trace(f"{self._url.queue}@{self._offset}"))]
