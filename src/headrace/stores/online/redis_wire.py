"""Commands as the bytes that go over the wire (RESP), and the names of keys.

Packed by hand: redis-py's own packing costs more than all else that writing a row does (see docs/redis.md). Keys are

    hr:{app}:meta                           how far the engine has come, and which generation of rows is the valid one
    hr:{app}:progress                       the channel on which each new word of that is published
    hr:{app}:{view}:{generation}:{key}      a hash: a field for each row of the key, a tile of a table

An app's and a view's name have no colon in them, and what follows the third is the key and nothing else: whatever a
key contains, two keys never meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from headrace.changes import Rows
from headrace.units import MINUTE

Command = tuple[bytes, ...]
# How much longer keys live than anything could read them, in microseconds. Nothing is counted for longer by that, since
# reads leave out what is past; while an engine runs, it removes rows as they end, and this is for when none does.
SLACK = 5 * MINUTE
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_JSON = msgspec.json.Encoder(enc_hook=str)


def pack(*parts: bytes) -> bytes:
    """One command."""
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def meta_key(app: str) -> bytes:
    return f"hr:{app}:meta".encode()


def channel(app: str) -> bytes:
    return f"hr:{app}:progress".encode()


def prefix(app: str, view: str, epoch: int) -> bytes:
    """What a view's keys of one generation begin with."""
    return f"hr:{app}:{view}:{base36(epoch)}:".encode()


def generation(key: bytes, app: str) -> int | None:
    """The generation of a key of this app's rows; None for any other key."""
    parts = key.split(b":", 4)
    if len(parts) < 5 or parts[0] != b"hr" or parts[1] != app.encode():
        return None
    try:
        return int(parts[3], 36)
    except ValueError:
        return None


def base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if number == 0:
            return digits


def key_bytes(key: Any) -> bytes:
    """A view's key: text as it is, anything else (of which a view has one type) as JSON."""
    if type(key) is str:
        # Half of a surrogate pair is in no event, but may be asked for.
        return key.encode("utf-8", "surrogatepass")
    try:
        return _JSON.encode(key)
    except UnicodeEncodeError:
        parts = [part.encode("utf-8", "backslashreplace").decode() if type(part) is str else part for part in key]
        return _JSON.encode(parts)


def row_commands(start: bytes, rows: Rows, live_for: int | None, now: int) -> Iterator[tuple[bytes, bytes, int]]:
    """What writes rows, or removes them: of each key in turn the key, its packed commands, and how many they are.

    Args:
        start: What the keys begin with.
        rows: Those of one key are neighbours.
        live_for: How long after it got its newest tile a key is to live, in microseconds; None for ever.
        now: The wall clock, in microseconds.
    """
    keys, fields, values = rows.keys, rows.fields, rows.values
    until = rows.until if live_for is not None else None
    first, count = 0, len(keys)
    while first < count:
        given = keys[first]
        last = first + 1
        while last < count and keys[last] == given:
            last += 1
        key = start + key_bytes(given)
        size = len(key)
        if values is None:
            packed = pack(b"HDEL", key, *fields[first:last])
        elif last == first + 1:
            field, value = fields[first], values[first]
            packed = b"*4\r\n$4\r\nHSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
                size,
                key,
                len(field),
                field,
                len(value),
                value,
            )
        else:
            pairs = zip(fields[first:last], values[first:last], strict=True)
            packed = pack(b"HSET", key, *[part for pair in pairs for part in pair])
        expiry = b"" if until is None or live_for is None else _expiry(key, max(until[first:last]), live_for, now)
        yield key, packed + expiry, 2 if expiry else 1
        first = last


def _expiry(key: bytes, newest: int, live_for: int, now: int) -> bytes:
    """What sets the end of a key whose newest tile ends at `newest`; nothing if it has no newer one."""
    if not newest:
        return b""
    # A tile of the future (events may be stamped so) is read for longer.
    left = b"%d" % (max(newest + SLACK - now, live_for) // 1000)
    return b"*3\r\n$7\r\nPEXPIRE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(left), left)
