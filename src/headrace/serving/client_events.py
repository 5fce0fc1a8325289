"""Server-sent events out of the bytes of an answer: as the HTML standard has them, for any client.

Lines are divided by LF alone or CR LF (what our server and OpenAI's send), and never by the other characters that
Python takes for the end of a line: a text may hold those.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from headrace.errors import RemoteError

MOST_BYTES = 64 << 20


class SentEvent(NamedTuple):
    """One event.

    Attributes:
        name: Its kind; "message" if it does not say.
        id: What a client that comes back names; empty if it does not say.
        data: What it says.
    """

    name: str
    id: str
    data: bytes


class EventReader:
    """Bytes in, events out; what is not whole yet is kept."""

    def __init__(self) -> None:
        self._rest = b""
        self._clear()

    def _clear(self) -> None:
        self._name, self._id, self._data = "message", "", list[bytes]()

    def feed(self, piece: bytes) -> Iterator[SentEvent]:
        """The events that end in this piece.

        Raises:
            RemoteError: One is larger than any that is sent.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line:
                self._take(line)
            elif self._data:
                event = SentEvent(self._name, self._id, b"\n".join(self._data))
                self._clear()
                yield event
            else:
                self._clear()
        if len(self._rest) + sum(map(len, self._data)) > MOST_BYTES:
            raise RemoteError(
                f"expected events of at most {MOST_BYTES >> 20} MiB, found a larger one; is it our server?"
            )

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name == b"id":
            self._id = value.decode("utf-8", "replace")
