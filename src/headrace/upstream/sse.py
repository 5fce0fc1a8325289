"""Server-sent events, read strictly and within bounds.

Bytes go in as they come, whole events come out. Of the format only what model servers use counts: `data` lines, of
which several make one event, comments, and fields that are passed over. A line or an event without end is an error
before it fills the memory. It does no I/O.

Source: WHATWG HTML, "Server-sent events", 9.2.5–9.2.6.
"""

from __future__ import annotations

MOST_EVENT = 4 << 20
_BOM = b"\xef\xbb\xbf"


class SseError(ValueError):
    """Bytes that are no event stream, or past a bound.

    Attributes:
        found: The line that is none; not in the text, for it may hold what must not be shown.
    """

    def __init__(self, text: str, found: bytes = b"") -> None:
        super().__init__(text)
        self.found = found


class SseReader:
    """Bytes into the data of events.

    Args:
        most: The longest event, in bytes.
    """

    def __init__(self, most: int = MOST_EVENT) -> None:
        self._most = most
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that are now whole.

        Raises:
            SseError: A line or an event is too long.
        """
        if self._after_cr and data:
            # A \r at the end of what came before ended its line; a \n now belongs to it.
            data = data.removeprefix(b"\n")
            self._after_cr = False
        buffer = self._rest + data
        if not self._begun and len(buffer) >= len(_BOM):
            self._begun, buffer = True, buffer.removeprefix(_BOM)
        lines = buffer.splitlines(keepends=True) if b"\r" in buffer else _split(buffer)
        self._rest = b""
        events: list[bytes] = []
        for line in lines:
            if not line.endswith((b"\n", b"\r")):
                self._rest = line
            elif (event := self._line(line.rstrip(b"\r\n"))) is not None:
                events.append(event)
        self._after_cr = buffer.endswith(b"\r")
        if len(self._rest) + self._size > self._most:
            raise SseError(f"an event of more than {self._most:,} bytes")
        return events

    @property
    def empty(self) -> bool:
        """Whether nothing is left of an event that has not ended."""
        return not self._rest.strip() and not self._data

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            event = b"\n".join(self._data) if self._data else None
            self._data, self._size = [], 0
            return event
        if line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
            self._size += len(value)
            self._data.append(value)
        elif line.lstrip().startswith((b"{", b"<")):
            # No field begins so: it is an error page, or JSON where events were asked for.
            raise SseError("a line that is no field", line)
        return None


def _split(buffer: bytes) -> list[bytes]:
    # Not splitlines(): for bytes it ends lines at \n and \r alone, but this is the common, quicker way.
    parts = buffer.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
