"""Binary messages in columns: what every format with a schema of its own shares.

A wire format says two things of its messages: their columns, with the rows that it could not answer for, and one
message as Python values. From there on they go the way of all rows: the columns are checked all at once, and each
row in doubt is judged by Pydantic. So a message has the same verdict alone and among a thousand.

Messages from a schema registry begin with a zero byte and the number of their schema, in four bytes. Those of one
schema are read together; the parts are put back in the order of the messages.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl

from headrace.formats.columns import Null, typed
from headrace.formats.verdicts import RefusedError, Row, judge_python, row_by_row, settle
from headrace.schema import Decoded, Reject, Schema

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Rows = np.ndarray[Any, np.dtype[np.int64]]

HEAD = 5
# Up to here reading messages one by one is as fast as reading them as columns.
LEAF = 32
# Schemas whose readers are kept: a topic has a handful, and a bound is for one that has not.
_KEPT = 256
# How long a schema that was not in the registry is not asked for again.
UNKNOWN_FOR = 10.0
_SHOWN = 4


class UnusableError(Exception):
    """A writer's schema whose messages cannot be used; the message is the reason.

    Attributes:
        passing: It may be mended without another schema number: the registry may know it later.
    """

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


class Wire(Protocol):
    """The messages of one writer's schema."""

    nulls: Null  # what a null in its columns stands for

    def columns(self, messages: Sequence[bytes]) -> tuple[pl.DataFrame, Mask]:
        """Columns under the fields' keys, in those that the writer has; and which rows are in doubt."""
        ...

    def row(self, message: bytes) -> dict[str, Any]:
        """One message as Pydantic takes it, or RefusedError."""
        ...


Read = Callable[[Sequence[bytes]], Decoded]


def read_wire(schema: Schema, wire: Wire, messages: Sequence[bytes], *, leaf: int = LEAF) -> Decoded:
    """The events of messages of one schema.

    Args:
        leaf: Up to how many are read one by one.
    """
    originals = _Messages(schema, wire, messages)
    if schema.per_row or len(messages) <= leaf:
        return row_by_row(schema, len(messages), originals)
    frame, doubtful = wire.columns(messages)
    absent = {field.key: Null.ABSENT for field in schema.fields if field.key not in frame.columns}
    values, suspects = typed(schema, frame, absent, wire.nulls)
    if doubtful.any():
        doubt = pl.Series(doubtful)
        suspects = doubt if suspects is None else suspects | doubt
    return settle(schema, values, suspects, originals)


@dataclass
class _Messages:
    schema: Schema
    wire: Wire
    messages: Sequence[bytes]

    def judge(self, row: int) -> Row:
        return judge_python(self.schema, self.wire.row(self.messages[row]))

    def raw(self, row: int) -> bytes:
        return self.messages[row]


def without_nulls(cells: Mapping[str, Any], nullable: Mapping[str, bool]) -> dict[str, Any]:
    """A record for Pydantic: a null is left out where its field does not take None, as in a table's cell."""
    return {key: value for key, value in cells.items() if value is not None or nullable.get(key, True)}


class Framed:
    """Reads messages that name their schema.

    Args:
        readers: The reader of a schema, by its number; UnusableError if its messages cannot be used.
    """

    def __init__(self, schema: Schema, readers: Callable[[int], Read]) -> None:
        self._schema = schema
        self._find = readers
        self._kept: OrderedDict[int, tuple[Read, float]] = OrderedDict()

    def __call__(self, messages: Sequence[bytes]) -> Decoded:
        """The events of the messages; a reject's row is the number of its message.

        Raises:
            StorageError: A schema is needed and the registry cannot be asked.
        """
        heads = {message[:HEAD] for message in messages}
        if len(heads) == 1:
            return self._reader(heads.pop())(messages)
        places: dict[bytes, list[int]] = {head: [] for head in heads}
        for place, message in enumerate(messages):
            places[message[:HEAD]].append(place)
        # All schemas before any message: if the registry is away, nothing has been done in vain.
        readers = {head: self._reader(head) for head in places}
        parts = [
            (np.array(which, dtype=np.int64), readers[head]([messages[place] for place in which]))
            for head, which in places.items()
        ]
        return gathered(self._schema, parts)

    def _reader(self, head: bytes) -> Read:
        if len(head) < HEAD or head[0] != 0:
            return refusing(self._schema, _unframed)
        number = int.from_bytes(head[1:], "big")
        kept = self._kept.get(number)
        if kept is not None and time.monotonic() < kept[1]:
            self._kept.move_to_end(number)
            return kept[0]
        until = float("inf")
        try:
            found = self._find(number)
        except UnusableError as error:
            reason = str(error)
            found = refusing(self._schema, lambda _: reason)
            until = time.monotonic() + UNKNOWN_FOR if error.passing else until
        self._kept[number] = (found, until)
        self._kept.move_to_end(number)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found


def refusing(schema: Schema, reason: Callable[[bytes], str]) -> Read:
    """A reader that can use none of its messages."""
    return lambda messages: Decoded(
        schema.empty(), [Reject(row, reason(message), message) for row, message in enumerate(messages)]
    )


def _unframed(message: bytes) -> str:
    expected = "expected a 0 byte and a schema id of 4 bytes, as messages from a schema registry begin with"
    if len(message) >= HEAD:
        hint = ", which looks like JSON" if message[:1] in b"{[" else ""
        return f"{expected}; found the first byte 0x{message[0]:02x}{hint}"
    return f"{expected}; found {len(message)} bytes" + (f" ({message.hex(' ')})" if message else "")


def gathered(schema: Schema, parts: Sequence[tuple[Rows, Decoded]]) -> Decoded:
    """Parts of one input put back in its order.

    Args:
        parts: Each with the places of its rows in the input.
    """
    frames, order, rejects = [], [], []
    for places, part in parts:
        rejects += [Reject(int(places[reject.row]), reject.reason, reject.raw) for reject in part.rejects]
        if part.frame.height:
            frames.append(part.frame)
            order.append(np.delete(places, [reject.row for reject in part.rejects]))
    rejects.sort(key=lambda reject: reject.row)
    if not frames:
        return Decoded(schema.empty(), rejects)
    frame = pl.concat(frames) if len(frames) > 1 else frames[0]
    where = np.concatenate(order)
    return Decoded(frame if bool((np.diff(where) > 0).all()) else frame[where.argsort()], rejects)


def as_list(name: str, items: pl.Series, owners: Rows, count: int) -> pl.Series:
    """Lists of items, each owned by a row of `count`; an owner's items are in order."""
    order = owners.argsort(kind="stable")
    grouped = (
        pl.DataFrame({"owner": owners[order], "item": items.gather(order) if len(items) else items})
        .group_by("owner", maintain_order=True)
        .agg("item")
    )
    places = np.full(count, grouped.height, dtype=np.int64)
    places[grouped["owner"].to_numpy()] = np.arange(grouped.height)
    empty = pl.Series("item", [[]], dtype=pl.List(items.dtype))
    return pl.concat([grouped["item"], empty]).gather(places).alias(name)


def spread(part: pl.Series, places: Rows, count: int) -> pl.Series:
    """`part` at its places among `count` rows, and nulls elsewhere."""
    if len(places) == count:
        return part
    index = np.full(count, len(part), dtype=np.int64)
    index[places] = np.arange(len(part))
    return pl.concat([part, pl.Series(part.name, [None], dtype=part.dtype)]).gather(index)


def as_text(found: pl.Series) -> pl.Series:
    """Bytes as text; null where they are not UTF-8."""
    try:
        return found.cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series(found.name, [_decoded(each) for each in found.to_list()], dtype=pl.String)


def _decoded(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


__all__ = [
    "HEAD",
    "LEAF",
    "Framed",
    "Mask",
    "Read",
    "RefusedError",
    "Rows",
    "UnusableError",
    "Wire",
    "as_list",
    "as_text",
    "gathered",
    "read_wire",
    "refusing",
    "spread",
    "without_nulls",
]
