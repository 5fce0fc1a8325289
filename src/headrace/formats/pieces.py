"""Text formats in pieces: one bad record costs a search for it, never the batch, and never a Python loop
over all.

A columnar decoder answers for a whole text or not at all. When it does not, the records are halved until
what fails is small enough to be read one record at a time: with one bad record in n that is two more
readings of the text. Where nearly everything fails, halving is pure cost, so the ratio of failures to
successes is watched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from headrace.formats.verdicts import Row, join, row_by_row
from headrace.schema import Decoded, Reject, Schema

Positions = np.ndarray[Any, np.dtype[Any]]

LEAF = 64  # records; up to here reading them one by one is as fast as starting the columnar decoder
MAX_ROW_BYTES = 16 << 20
_LEAF_BYTES = 32 << 10
_LEAF_IN_TROUBLE = 4096
_NEWLINE, _QUOTE, _BLANKS = 0x0A, 0x22, (0x09, 0x0D, 0x20)


@dataclass
class Records:
    """A text and, once they are asked for, where its records begin and end.

    Attributes:
        judge_record: Reads one record, or raises RefusedError.
        quoted: Line ends between double quotes belong to their record.
    """

    text: bytes
    judge_record: Callable[[bytes], Row]
    quoted: bool = False
    given: tuple[Positions, Positions] | None = None

    @cached_property
    def spans(self) -> tuple[Positions, Positions]:
        return record_spans(self.text, self.quoted) if self.given is None else self.given

    def __len__(self) -> int:
        return len(self.spans[0])

    def judge(self, row: int) -> Row:
        return self.judge_record(self.raw(row))

    def raw(self, row: int) -> bytes:
        starts, ends = self.spans
        return self.text[starts[row] : ends[row]]

    def rows(self) -> list[bytes]:
        starts, ends = self.spans
        return [self.text[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]

    def part(self, first: int, end: int) -> Records:
        starts, ends = self.spans
        base, stop = int(starts[first]), int(ends[end - 1])
        spans = (starts[first:end] - base, ends[first:end] - base)
        return Records(self.text[base:stop], self.judge_record, self.quoted, spans)


Columnar = Callable[[Records], Decoded | None]


def decode_records(
    schema: Schema,
    records: Records,
    columnar: Columnar,
    *,
    leaf: int = LEAF,
    max_row_bytes: int = MAX_ROW_BYTES,
) -> Decoded:
    """All records: by column where `columnar` can, one by one where it cannot (it says so with None)."""
    long = _has_long_line(records.text, max_row_bytes)
    if not long:
        if schema.per_row or _is_small(records, leaf):
            return row_by_row(schema, len(records), records)
        whole = columnar(records)
        if whole is not None:
            return whole
    search = _Search(schema, columnar, max(1, leaf))
    start = 0
    starts, ends = records.spans
    for place in np.flatnonzero(ends - starts > max_row_bytes).tolist():
        search.range(records, start, place)
        row = records.raw(place)
        reason = f"expected a row of at most {max_row_bytes:,} bytes, found {len(row):,}; it was not read"
        search.parts.append((place, Decoded(schema.empty(), [Reject(0, reason, row)])))
        start = place + 1
    search.range(records, start, len(records), failed=not long)
    return join(schema, search.parts)


@dataclass
class _Search:
    schema: Schema
    columnar: Columnar
    leaf: int
    parts: list[tuple[int, Decoded]] = field(default_factory=list)
    failures: int = 0
    successes: int = 0

    def range(self, records: Records, start: int, end: int, failed: bool = False) -> None:
        """Reads the records from `start` to `end`; `failed` if the columnar decoder has refused them."""
        if start >= end:
            return
        part = records.part(start, end)
        # Where nearly all fails, small pieces are not worth a try; large ones are, since the trouble may end.
        hopeless = self.failures > 16 and self.failures > 4 * self.successes
        if self.schema.per_row or end - start <= (max(self.leaf, _LEAF_IN_TROUBLE) if hopeless else self.leaf):
            self.parts.append((start, row_by_row(self.schema, end - start, part)))
            return
        decoded = None if failed else self.columnar(part)
        if decoded is not None:
            self.successes += 1
            self.parts.append((start, decoded))
            return
        self.failures += 1
        middle = (start + end) // 2
        self.range(records, start, middle)
        self.range(records, middle, end)


def _is_small(records: Records, leaf: int) -> bool:
    return len(records.text) <= _LEAF_BYTES and len(records) <= leaf


def _has_long_line(text: bytes, limit: int) -> bool:
    """Whether a line is longer than `limit`: jumps of that length instead of a look at each line."""
    start = 0
    while len(text) - start > limit:
        newline = text.rfind(b"\n", start, start + limit + 1)
        if newline < 0:
            return True
        start = newline + 1
    return False


def record_spans(text: bytes, quoted: bool) -> tuple[Positions, Positions]:
    """Where the records that are not blank begin and end."""
    data = np.frombuffer(text, dtype=np.uint8)
    ends = np.append(np.flatnonzero(data == _NEWLINE), len(data))
    if quoted and b'"' in text:
        ends = _outside_quotes(data, ends)
    starts = np.append(0, ends[:-1] + 1)
    starts, ends = starts[ends > starts], ends[ends > starts]
    filled = np.ones(len(starts), dtype=bool)
    for place in np.flatnonzero(np.isin(data[starts], _BLANKS)).tolist():
        filled[place] = bool(text[starts[place] : ends[place]].strip(b"\r" if quoted else b" \t\r"))
    return starts[filled], ends[filled]


def _outside_quotes(data: Positions, ends: Positions) -> Positions:
    """The line ends before which all quotes are closed.

    A quote that is never closed spoils its own line only: from there on the other parity is taken.
    """
    opened = np.searchsorted(np.flatnonzero(data == _QUOTE), ends) % 2 == 1
    if opened[-1]:
        last_closed = np.flatnonzero(~opened)
        first_open = int(last_closed[-1]) + 1 if len(last_closed) else 0
        opened[first_open:] = ~opened[first_open:]
    closed: Positions = ends[~opened]
    return closed
