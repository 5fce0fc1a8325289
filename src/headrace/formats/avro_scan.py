"""Avro's primitives, read for one datum or for thousands at once.

Avro has no tags: what comes next is known from the schema alone, so the n'th step of reading is the same for every
message of a batch. `Scan` takes that step for all of them with a few NumPy operations: it keeps one position for each
message in the joined bytes of all. `Cursor` takes it for one, and says what is wrong.

A message that ends too soon, or holds a number that cannot be, is marked by `Scan` and goes on with nonsense: it is
read again by a `Cursor`, whose word counts. Every position stays inside its own message, so nothing that a message
holds can reach another.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from headrace.formats.wire import Mask, RefusedError, Rows

Numbers = np.ndarray[Any, np.dtype[Any]]

_PAD = bytes(16)  # a number may be looked for at the very end
_STOP = np.uint64(0x8080808080808080)
_SEVEN = np.uint64(0x7F7F7F7F7F7F7F7F)
# Pairs of 7 bits become 14, then 28, then 56: (what stays, what moves down, by how much).
_FOLDS = tuple(
    (np.uint64(low), np.uint64(low << (8 << step)), np.uint64(1 << step))
    for step, low in enumerate((0x007F007F007F007F, 0x00003FFF00003FFF, 0x000000000FFFFFFF))
)
_ONE = np.uint64(1)


class Scan:
    """The positions of many datums, in the joined bytes of all.

    Args:
        skip: How many bytes of each message come before its datum.
    """

    def __init__(self, messages: Sequence[bytes], skip: int) -> None:
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        text = b"".join([*messages, _PAD])
        self.bytes = np.frombuffer(text, np.uint8)
        # The eight bytes from any position on, as one number.
        self._words: Numbers = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))
        self._whole = pl.Series([text], dtype=pl.Binary)
        self.ends = np.cumsum(lengths)
        self.at = np.minimum(self.ends - lengths + skip, self.ends)
        self.bad: Mask = np.zeros(len(messages), dtype=np.bool_)

    def finish(self) -> Mask:
        """The datums that could not be read, or that did not end where their message ends."""
        wrong: Mask = self.bad | (self.at != self.ends)
        return wrong

    def take(self, rows: Rows, width: int) -> Rows:
        """Where the next `width` bytes of each row begin."""
        start: Rows = self.at[rows]
        self._move(rows, start + width)
        return start

    def words(self, start: Rows) -> Numbers:
        """The eight bytes from each position on."""
        found: Numbers = self._words[start]
        return found

    def longs(self, rows: Rows) -> Rows:
        """The next number of each row: 7 bits a byte, the lowest first, and zigzag."""
        start = self.at[rows]
        words = self._words[start]
        stop = ~words & _STOP
        last = stop & (~stop + _ONE)
        upto = (last << _ONE) - _ONE  # all ones where none of the eight is the last
        width = np.bitwise_count(upto).astype(np.int64) >> 3
        value = words & upto & _SEVEN
        for stays, moves, by in _FOLDS:
            value = (value & stays) | ((value & moves) >> by)
        if not stop.all():
            self._long_tails(rows, start, np.flatnonzero(stop == 0), value, width)
        self._move(rows, start + width)
        found: Rows = (value >> _ONE).view(np.int64) ^ -(value & _ONE).view(np.int64)
        return found

    def _long_tails(self, rows: Rows, start: Rows, which: Rows, value: Numbers, width: Rows) -> None:
        """The ninth and tenth byte of those numbers that have them."""
        ninth, tenth = (self.bytes[start[which] + place].astype(np.uint64) for place in (8, 9))
        ends = ninth < 128
        value[which] |= (ninth & np.uint64(0x7F)) << np.uint64(56)
        value[which] |= np.where(ends, np.uint64(0), (tenth & _ONE) << np.uint64(63))
        width[which] = np.where(ends, 9, 10)
        self.bad[rows[which[~ends & (tenth > 1)]]] = True

    def spans(self, rows: Rows) -> tuple[Rows, Rows]:
        """Where the next text of each row begins and how many bytes it has."""
        length = self.longs(rows)
        start = self.at[rows]
        wrong = (length < 0) | (length > self.ends[rows] - start)
        if wrong.any():
            self.bad[rows[wrong]] = True
            length[wrong] = 0
        self.at[rows] = start + length
        return start, length

    def cut(self, start: Rows, length: Rows | int) -> pl.Series:
        """These bytes, as a column."""
        many = pl.Series(np.broadcast_to(length, start.shape))
        frame = pl.DataFrame({"start": start, "length": many})
        part = pl.lit(self._whole).first().bin.slice(pl.col("start"), pl.col("length"))
        return frame.select(part.alias("")).to_series()

    def _move(self, rows: Rows, to: Rows) -> None:
        limit = self.ends[rows]
        over = to > limit
        if over.any():
            self.bad[rows[over]] = True
            to = np.minimum(to, limit)
        self.at[rows] = to


class Cursor:
    """A position in one datum."""

    def __init__(self, message: bytes, skip: int) -> None:
        self._bytes = message
        self._at = skip

    def finish(self) -> None:
        """Raises RefusedError if there is more."""
        left = len(self._bytes) - self._at
        if left:
            raise RefusedError(f"expected the end of the message, found {left} more byte{'s' if left > 1 else ''}")

    def take(self, width: int) -> bytes:
        """The next `width` bytes."""
        end = self._at + width
        if width < 0 or end > len(self._bytes):
            raise RefusedError(f"expected {width} more bytes, found {len(self._bytes) - self._at}")
        found = self._bytes[self._at : end]
        self._at = end
        return found

    def long(self) -> int:
        """The next number."""
        value = shift = 0
        while True:
            if self._at >= len(self._bytes):
                raise RefusedError("expected a number, found the end of the message")
            byte = self._bytes[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise RefusedError("expected a number of at most 10 bytes, found a longer one")
        if value >> 64:
            raise RefusedError("expected a number of 64 bits, found a larger one")
        return (value >> 1) ^ -(value & 1)

    def span(self) -> bytes:
        """The next text."""
        length = self.long()
        if length < 0:
            raise RefusedError(f"expected a length, found {length}")
        return self.take(length)

    def single(self) -> float:
        """The next float of 4 bytes."""
        found: float = struct.unpack("<f", self.take(4))[0]
        return found

    def double(self) -> float:
        """The next float of 8 bytes."""
        found: float = struct.unpack("<d", self.take(8))[0]
        return found
