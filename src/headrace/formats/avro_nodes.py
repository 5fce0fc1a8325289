"""A writer's Avro schema as a tree of nodes, each of which reads its type: for many datums as a column (`Scan`), or
for one as a Python value (`Cursor`).

A node is made for what the model wants of the type: a timestamp is a moment to a `datetime` and a number to an `int`.
What the model does not name is passed over. Both ways of reading must mean the same: whatever a column cannot say is
marked as bad, and read by the other way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

import numpy as np
import polars as pl

from headrace.formats.avro_scan import Cursor, Scan
from headrace.formats.wire import RefusedError, Rows, as_text
from headrace.timestamps import EXACT_FLOAT, TIME
from headrace.units import DAY, MAX_TIME, MIN_TIME, from_micros

EPOCH_DAY = date(1970, 1, 1).toordinal()
# An exact power of ten, and by it the numbers that a division leaves exactly rounded.
_EXACT_POWER = 22
_LONGEST_DECIMAL = 64


class Node(Protocol):
    """One type of a writer's schema."""

    @property
    def dtype(self) -> pl.DataType:
        """The type of its columns."""
        ...

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        """Its next value in each of these rows."""
        ...

    def skip(self, scan: Scan, rows: Rows) -> None:
        """Goes past its next value in each of these rows."""
        ...

    def value(self, cursor: Cursor) -> Any:
        """Its next value, as Pydantic takes it; RefusedError if there is none."""
        ...


@dataclass(frozen=True)
class Nothing:
    """null"""

    dtype: pl.DataType = field(default_factory=pl.Null)

    def column(self, _: Scan, rows: Rows) -> pl.Series:
        return pl.Series([None], dtype=pl.Null).new_from_index(0, len(rows))

    def skip(self, scan: Scan, rows: Rows) -> None:
        """It has no bytes."""

    def value(self, _: Cursor) -> None:
        return None


@dataclass(frozen=True)
class Flag:
    """boolean"""

    dtype: pl.DataType = field(default_factory=pl.Boolean)

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        found = scan.bytes[scan.take(rows, 1)]
        scan.bad[rows[found > 1]] = True
        return pl.Series(found == 1)

    def skip(self, scan: Scan, rows: Rows) -> None:
        scan.take(rows, 1)

    def value(self, cursor: Cursor) -> bool:
        found = cursor.take(1)[0]
        if found > 1:
            raise RefusedError(f"expected true (1) or false (0), found {found}")
        return found == 1


@dataclass(frozen=True)
class Long:
    """int and long"""

    dtype: pl.DataType = field(default_factory=pl.Int64)

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        return pl.Series(scan.longs(rows))

    def skip(self, scan: Scan, rows: Rows) -> None:
        scan.longs(rows)

    def value(self, cursor: Cursor) -> Any:
        return cursor.long()


@dataclass(frozen=True)
class Moment(Long):
    """timestamp-millis, -micros and -nanos; the local ones are read as UTC, as text without an offset is"""

    per_second: int = 1000
    dtype: pl.DataType = field(default_factory=lambda: TIME)

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        numbers = scan.longs(rows)
        low, high = MIN_TIME * self.per_second // 10**6, MAX_TIME * self.per_second // 10**6
        if self.per_second > 10**6:
            micros = numbers // (self.per_second // 10**6)
        else:
            outside = (numbers < low) | (numbers > high)
            if outside.any():
                scan.bad[rows[outside]] = True
                numbers = np.where(outside, 0, numbers)
            micros = numbers * (10**6 // self.per_second)
        return pl.Series(micros).cast(TIME)

    def value(self, cursor: Cursor) -> datetime:
        number = cursor.long()
        micros = number * 10**6 // self.per_second
        if not MIN_TIME <= micros <= MAX_TIME:
            raise RefusedError(
                f"expected a time within the years 1 to 9999, found {number} (in 1/{self.per_second:,} s since 1970)"
            )
        return from_micros(micros)


@dataclass(frozen=True)
class Day(Long):
    """date"""

    dtype: pl.DataType = field(default_factory=pl.Date)

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        days = scan.longs(rows)
        outside = (days < MIN_TIME // DAY) | (days > MAX_TIME // DAY)
        scan.bad[rows[outside]] = True
        return pl.Series(np.where(outside, 0, days).astype(np.int32)).cast(pl.Date)

    def value(self, cursor: Cursor) -> date:
        days = cursor.long()
        if not MIN_TIME // DAY <= days <= MAX_TIME // DAY:
            raise RefusedError(f"expected a date within the years 1 to 9999, found {days} days since 1970")
        return date.fromordinal(days + EPOCH_DAY)


@dataclass(frozen=True)
class Clock(Long):
    """time-millis and time-micros"""

    micros: int = 1000
    dtype: pl.DataType = field(default_factory=pl.Time)

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        numbers = scan.longs(rows)
        outside = (numbers < 0) | (numbers >= DAY // self.micros)
        scan.bad[rows[outside]] = True
        return pl.Series(np.where(outside, 0, numbers) * (self.micros * 1000)).cast(pl.Time)

    def value(self, cursor: Cursor) -> time:
        number = cursor.long()
        if not 0 <= number < DAY // self.micros:
            raise RefusedError(f"expected a time of day, found {number} (in {self.micros} µs since midnight)")
        return from_micros(number * self.micros).time()


@dataclass(frozen=True)
class Real:
    """float and double"""

    width: int
    dtype: pl.DataType = field(default_factory=pl.Float64)

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        words = scan.words(scan.take(rows, self.width))
        if self.width == 8:
            return pl.Series(words.view("<f8"))
        return pl.Series(words.astype("<u4").view("<f4").astype(np.float64))

    def skip(self, scan: Scan, rows: Rows) -> None:
        scan.take(rows, self.width)

    def value(self, cursor: Cursor) -> float:
        return cursor.double() if self.width == 8 else cursor.single()


@dataclass(frozen=True)
class Span:
    """bytes, fixed and string: as bytes or, if they are to be UTF-8, as text

    Attributes:
        size: That of a fixed; None where its length comes first.
    """

    text: bool
    size: int | None = None

    @property
    def dtype(self) -> pl.DataType:
        return pl.String() if self.text else pl.Binary()

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        start, length = self.find(scan, rows)
        found = scan.cut(start, length)
        if self.text:
            found = as_text(found)
            if found.null_count():
                scan.bad[rows[found.is_null().to_numpy()]] = True
        return found

    def find(self, scan: Scan, rows: Rows) -> tuple[Rows, Rows]:
        """Where the next ones begin, and how long they are."""
        if self.size is None:
            return scan.spans(rows)
        return scan.take(rows, self.size), np.full(len(rows), self.size, dtype=np.int64)

    def skip(self, scan: Scan, rows: Rows) -> None:
        self.find(scan, rows)

    def value(self, cursor: Cursor) -> Any:
        found = cursor.span() if self.size is None else cursor.take(self.size)
        if not self.text:
            return found
        try:
            return found.decode()
        except UnicodeDecodeError as error:
            raise RefusedError(f"expected UTF-8, found {found[error.start : error.start + 1]!r}") from None


@dataclass(frozen=True)
class Uuid(Span):
    """uuid of 16 bytes, as its text"""

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        digits = scan.cut(*self.find(scan, rows)).bin.encode("hex")
        parts = [digits.str.slice(start, length) for start, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
        return pl.select(pl.concat_str([pl.lit(part) for part in parts], separator="-")).to_series()

    def value(self, cursor: Cursor) -> str:
        return str(UUID(bytes=cursor.take(16)))


@dataclass(frozen=True)
class Scaled(Span):
    """decimal: an integer of any length, the highest byte first, and the place of its point"""

    scale: int = 0

    @property
    def dtype(self) -> pl.DataType:
        return pl.Float64()

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        start, length = self.find(scan, rows)
        number = scan.words(start).byteswap().view(np.int64) >> (64 - 8 * np.clip(length, 1, 8))
        number[length == 0] = 0
        exact = (length <= 8) & (number < EXACT_FLOAT) & (number > -EXACT_FLOAT) & (self.scale <= _EXACT_POWER)
        scan.bad[rows[~exact]] = True
        return pl.Series(number / 10.0 ** min(self.scale, _EXACT_POWER))

    def value(self, cursor: Cursor) -> Decimal:
        raw = cursor.span() if self.size is None else cursor.take(self.size)
        if len(raw) > _LONGEST_DECIMAL:
            raise RefusedError(f"expected a decimal of at most {_LONGEST_DECIMAL} bytes, found {len(raw)}")
        return Decimal(f"{int.from_bytes(raw, 'big', signed=True)}e{-self.scale}")


@dataclass(frozen=True)
class Symbol:
    """enum, as its symbol"""

    symbols: tuple[str, ...]
    dtype: pl.DataType = field(default_factory=pl.String)

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        numbers = scan.longs(rows)
        outside = (numbers < 0) | (numbers >= len(self.symbols))
        scan.bad[rows[outside]] = True
        return pl.Series(self.symbols, dtype=pl.String).gather(np.where(outside, 0, numbers))

    def skip(self, scan: Scan, rows: Rows) -> None:
        scan.longs(rows)

    def value(self, cursor: Cursor) -> str:
        number = cursor.long()
        if not 0 <= number < len(self.symbols):
            raise RefusedError(f"expected one of {len(self.symbols)} symbols, found the number {number}")
        return self.symbols[number]


@dataclass(frozen=True)
class Filler:
    """A field that the writer does not have, as the model's default; nothing is read.

    Attributes:
        made: What its column holds; None if only Pydantic can make it, for each row.
    """

    made: pl.Series | None

    @property
    def dtype(self) -> pl.DataType:
        return pl.Null() if self.made is None else self.made.dtype

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        if self.made is None:
            scan.bad[rows] = True
            return Nothing().column(scan, rows)
        return self.made.new_from_index(0, len(rows))


def where_it_is(path: str, error: RefusedError) -> RefusedError:
    """The same refusal, said of a field."""
    text = str(error)
    named = text.partition(": ")[0].replace(".", "").replace("[]", "").isidentifier()
    return RefusedError(f"{path}.{text}" if named else f"{path}: {text}")


def blocks(cursor: Cursor) -> Iterator[None]:
    """Once for each item of an array or a map: they come in counted blocks, the last of which is empty."""
    while count := cursor.long():
        if count < 0:
            cursor.long()  # the block's length in bytes, for who wants to skip it
            count = -count
        for _ in range(count):  # each item has a byte at least, so the message's length is the bound
            yield
