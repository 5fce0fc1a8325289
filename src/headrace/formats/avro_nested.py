"""Avro's types that hold others: records, unions, arrays and maps (see `avro_nodes`).

Items of arrays are read in rounds: the n'th item of all rows that have one, at once. Long arrays in few rows would
make many rounds for little, so what few rows are left is read one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from headrace.formats.avro_nodes import Filler, Node, Nothing, Span, blocks, where_it_is
from headrace.formats.avro_scan import Cursor, Scan
from headrace.formats.wire import RefusedError, Rows, as_list, spread, without_nulls

_FEW = 12
_ROUNDS = 1000
_KEYS = Span(text=True)


@dataclass(frozen=True)
class Part:
    """A record's field.

    Attributes:
        name: The writer's name.
        key: The model's; None if it wants none of it.
        nullable: Whether the model takes None.
    """

    name: str
    node: Node
    key: str | None = None
    nullable: bool = True


@dataclass(frozen=True)
class Record:
    """record, as those of its fields that the model wants, and the model's defaults for those that it has not."""

    parts: Sequence[Part]
    fillers: Sequence[tuple[str, Filler]] = ()

    @property
    def dtype(self) -> pl.DataType:
        there = {part.key: part.node.dtype for part in self.parts if part.key is not None}
        return pl.Struct(there | {key: filler.dtype for key, filler in self.fillers})

    def columns(self, scan: Scan, rows: Rows) -> list[pl.Series]:
        """Its fields."""
        found = []
        for part in self.parts:
            if part.key is None:
                part.node.skip(scan, rows)
            else:
                found.append(part.node.column(scan, rows).alias(part.key))
        return found + [filler.column(scan, rows).alias(key) for key, filler in self.fillers]

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        found = self.columns(scan, rows)
        if not found:
            return pl.Series([{}], dtype=pl.Struct({})).new_from_index(0, len(rows))
        return pl.DataFrame(found).to_struct()

    def skip(self, scan: Scan, rows: Rows) -> None:
        for part in self.parts:
            part.node.skip(scan, rows)

    def value(self, cursor: Cursor) -> dict[str, Any]:
        cells, nullable = {}, {}
        for part in self.parts:
            try:
                found = part.node.value(cursor)
            except RefusedError as error:
                raise where_it_is(part.name, error) from None
            if part.key is not None:
                cells[part.key], nullable[part.key] = found, part.nullable
        return without_nulls(cells, nullable)


@dataclass(frozen=True)
class Union:
    """union: the number of a choice, and its value.

    Attributes:
        usable: The choices that a column of `dtype` holds; the rows of others are read one by one.
    """

    choices: Sequence[Node]
    usable: frozenset[int]
    dtype: pl.DataType

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        found = pl.Series([None], dtype=self.dtype).new_from_index(0, len(rows))
        for number, places, node in self._taken(scan, rows):
            if number not in self.usable:
                node.skip(scan, rows[places])
                scan.bad[rows[places]] = True
            elif not isinstance(node, Nothing):
                part = node.column(scan, rows[places])
                part = spread(part if part.dtype == self.dtype else part.cast(self.dtype), places, len(rows))
                found = part if len(places) == len(rows) else _either(part, found)
        return found

    def skip(self, scan: Scan, rows: Rows) -> None:
        for _, places, node in self._taken(scan, rows):
            node.skip(scan, rows[places])

    def _taken(self, scan: Scan, rows: Rows) -> Iterator[tuple[int, Rows, Node]]:
        numbers = scan.longs(rows)
        for number, node in enumerate(self.choices):
            places = np.flatnonzero(numbers == number)
            if len(places):
                yield number, places, node
        outside = (numbers < 0) | (numbers >= len(self.choices))
        scan.bad[rows[outside]] = True

    def value(self, cursor: Cursor) -> Any:
        number = cursor.long()
        if not 0 <= number < len(self.choices):
            raise RefusedError(f"expected one of a union's {len(self.choices)} choices, found the number {number}")
        return self.choices[number].value(cursor)


def _either(one: pl.Series, other: pl.Series) -> pl.Series:
    return pl.select(pl.coalesce(pl.lit(one), pl.lit(other))).to_series()


@dataclass(frozen=True)
class Array:
    """array"""

    items: Node

    @property
    def dtype(self) -> pl.DataType:
        return pl.List(self.items.dtype)

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        parts, owners = [pl.Series([], dtype=self.items.dtype)], [np.empty(0, dtype=np.int64)]
        for places in rounds(scan, rows):
            parts.append(self.items.column(scan, rows[places]))
            owners.append(places)
        return as_list("", pl.concat(parts), np.concatenate(owners), len(rows))

    def skip(self, scan: Scan, rows: Rows) -> None:
        for places in rounds(scan, rows):
            self.items.skip(scan, rows[places])

    def value(self, cursor: Cursor) -> list[Any]:
        return [self.items.value(cursor) for _ in blocks(cursor)]


@dataclass(frozen=True)
class Map:
    """map, as a nested record: the keys that the model names, the last of each.

    Attributes:
        keys: The model's fields, with the default of each for rows without it, and whether it takes None.
    """

    values: Node
    keys: Sequence[tuple[str, Filler, bool]] = ()

    @property
    def dtype(self) -> pl.DataType:
        return pl.Struct({key: self.values.dtype for key, _, _ in self.keys})

    def column(self, scan: Scan, rows: Rows) -> pl.Series:
        names, values = [pl.Series([], dtype=pl.String)], [pl.Series([], dtype=self.values.dtype)]
        owners = [np.empty(0, dtype=np.int64)]
        for places in rounds(scan, rows):
            names.append(_KEYS.column(scan, rows[places]))
            values.append(self.values.column(scan, rows[places]))
            owners.append(places)
        name, value, owner = pl.concat(names), pl.concat(values), np.concatenate(owners)
        parts = []
        for key, filler, _ in self.keys:
            which = np.flatnonzero((name == key).fill_null(False).to_numpy())
            index = np.full(len(rows), -1, dtype=np.int64)
            index[owner[which]] = which
            parts.append(self._with_default(scan, rows, value, index, filler).alias(key))
        return pl.DataFrame(parts).to_struct()

    def _with_default(self, scan: Scan, rows: Rows, value: pl.Series, index: Rows, filler: Filler) -> pl.Series:
        absent = index < 0
        if absent.any() and (filler.made is None or filler.made.null_count() == 0):
            # A default beside values of another type: such rows are left to Pydantic.
            scan.bad[rows[absent]] = True
        empty = pl.concat([value, pl.Series([None], dtype=value.dtype)])
        return empty.gather(np.where(absent, len(value), index))

    def skip(self, scan: Scan, rows: Rows) -> None:
        for places in rounds(scan, rows):
            _KEYS.skip(scan, rows[places])
            self.values.skip(scan, rows[places])

    def value(self, cursor: Cursor) -> dict[str, Any]:
        found = {_KEYS.value(cursor): self.values.value(cursor) for _ in blocks(cursor)}
        nullable = {key: takes_none for key, _, takes_none in self.keys}
        return without_nulls({key: found[key] for key in nullable if key in found}, nullable)


def rounds(scan: Scan, rows: Rows) -> Iterator[Rows]:
    """The places among `rows` that have a first item, then those that have a second, and so on.

    Each must be read before the next is asked for. Where few are left, they are marked as bad.
    """
    left = np.zeros(len(rows), dtype=np.int64)
    going = np.arange(len(rows))
    for _ in range(_ROUNDS):
        begin = going[left[going] == 0]
        if len(begin):
            count = scan.longs(rows[begin])
            sized = count < 0
            if sized.any():
                scan.longs(rows[begin[sized]])
                count = np.abs(count)
                scan.bad[rows[begin[count < 0]]] = True
            left[begin] = count
            going = going[(left[going] > 0) & ~scan.bad[rows[going]]]
        if len(going) < _FEW:
            break
        left[going] -= 1
        yield going
    scan.bad[rows[going]] = True
