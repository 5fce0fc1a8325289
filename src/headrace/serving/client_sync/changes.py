# Made of client_async/changes.py by `make client`: change that, not this.
"""What a client offers of changes: a subscription that outlives its connection.

The server tells them as server-sent events, each with an id. When a connection breaks, the next one names the last id,
and the server tells what was missed, or that it cannot know: then everything subscribed to should be read again, as
when too much has changed at once. A server that stays away is tried a bounded number of times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.document import Document
from headrace.errors import ClosedError, RemoteError
from headrace.serving import client_wire as wire
from headrace.serving.client_events import EventReader, SentEvent
from headrace.serving.client_sync.link import Body, Link
from headrace.serving.client_waiting import Pull
from headrace.serving.live_changes import Change

if TYPE_CHECKING:
    from headrace.declarations import Collection, Table
    from headrace.features.view import View

# The server shows a sign of life every 15 seconds.
SILENCE = 45.0
# How often a broken stream is asked for anew until something comes, and the first seconds between, which double: 25 s.
RETRIES = 8
PAUSE = 0.1
_BUSY = 429
# The id of no event: a stream that broke before its first says that it was there, and is told to read again.
_NOWHERE = "none"


class Following(Link):
    """The part of a client that is about changes."""

    def changes(
        self,
        *,
        view: View | str | None = None,
        keys: Sequence[Any] | None = None,
        collection: Collection | str | None = None,
        table: Table | type[Document] | str | None = None,
        pack: str | Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> RemoteChanges:
        """As `Live.changes`; a connection that breaks is made anew, and nothing is missed by that.

        Raises:
            UnknownNameError: There is no such view, collection, table or pack.
            InputError: A key is not one of the view's, or nothing is subscribed to.
            RemoteError: There are too many subscribers, or the server does not answer.
        """
        asked: list[tuple[str, str]] = []
        if view is not None:
            name = wire.name_of(view)
            columns = (self._reviver(name)).keys
            found = None if keys is None else [wire.key_parts(key, columns) for key in wire.several(name, keys)]
            asked += [("view", name)] if found is None or found else []
            asked += [("key", "/".join(parts)) for parts in found or ()]
        elif keys is not None:
            asked += [("key", str(key)) for key in keys]
        if collection is not None:
            asked.append(("collection", wire.name_of(collection)))
        if table is not None:
            asked.append(("table", wire.name_of(table)))
        asked += [("pack", one) for one in ([pack] if isinstance(pack, str) else pack or ())]
        made = RemoteChanges(self, asked, timeout)
        made.connect()
        return made


class RemoteChanges:
    """A subscription: an iterator of `Change`, closed by leaving its `with` block.

    Iterating waits for the next change, and ends when none comes within `timeout` seconds, or when this is closed. One
    waits at a time; any may close.
    """

    def __init__(self, link: Link, asked: list[tuple[str, str]], timeout: float | None) -> None:
        self._link = link
        self._asked = asked
        self._timeout = timeout
        self._pull: Pull[Change] = Pull(self._fetch)
        self._body: Body | None = None
        self._events = EventReader()
        self._ready: deque[SentEvent] = deque()
        self._last = ""
        self._failures = 0
        self._ended = False

    def next(self, timeout: float | None = None) -> Change | None:
        """The next change; None if none came within `timeout` seconds (None: however long it takes), or never will.

        Raises:
            RemoteError: The server stays away.
        """
        return self._pull.next(timeout)

    def connect(self) -> None:
        """Subscribes; returns when no change is missed any more."""
        self._link._opened.add(self)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": self._last} if self._last else {})
        self._events = EventReader()
        self._body = self._link._open("GET", "/v1/changes", silence=SILENCE, params=self._asked, headers=headers)
        while not self._ready and not self._ended:
            self._read(self._body)

    def _read(self, body: Body) -> None:
        piece = body.piece()
        if not piece and not self._ended:
            raise RemoteError(f"expected changes from {self._link.url} without end, found the stream's end")
        self._ready += self._events.feed(piece)

    def _fetch(self) -> Change | None:
        while not self._ended:
            while self._ready:
                event = self._ready.popleft()
                self._last = event.id or self._last
                if event.name != "ready":
                    return self._change(event)
            try:
                if self._body is None:
                    self._connect()
                else:
                    self._read(self._body)
                    self._failures = 0
            except (RemoteError, ClosedError) as error:
                self._failed(error)
        return None

    def _failed(self, error: RemoteError | ClosedError) -> None:
        """Lets a broken connection go, and waits; raises if that has been done often enough, or would not help."""
        if self._body is not None:
            body, self._body = self._body, None
            body.close()
            self._last = self._last or _NOWHERE
        if self._ended:
            return
        status = error.status if isinstance(error, RemoteError) else 0
        if self._failures >= RETRIES or (400 <= status < 500 and status != _BUSY):
            raise error
        self._pull.pause(PAUSE * 2**self._failures)
        self._failures += 1

    def _change(self, event: SentEvent) -> Change:
        data: dict[str, Any] = msgspec.json.decode(event.data)
        if event.name == "error":
            raise RemoteError(f"expected a change, found that it could not be told: {data.get('detail')}")
        if event.name == "features":
            reviver = self._link._reviver(data["view"])
            row = reviver.row(data["row"])
            data |= {"key": {name: getattr(row, name) for name in data["key"]}, "row": row}
        # What cannot be known any more and what was too much to keep ask for the same: to read again.
        return Change("lost" if event.name == "reset" else event.name, data, event.id)

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        change = self.next(self._timeout)
        if change is None:
            raise StopIteration
        return change

    def close(self) -> None:
        """Ends the subscription; again does nothing."""
        self._ended = True
        self._link._opened.discard(self)
        if self._body is not None:
            self._body.hang_up()
        self._pull.close()
        if self._body is not None:
            self._body.close()

    def __enter__(self) -> RemoteChanges:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
