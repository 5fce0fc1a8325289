"""Keys as small integers ("slots"): every array of a view is indexed by them, freed ones are used again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from headrace.errors import ConfigError, SchemaError, nearest
from headrace.features.layout import Array

_END = object()
_KEY_TYPES = (pl.String, pl.Boolean, pl.Date, pl.Datetime)


class KeyIndex:
    """A two-way map between keys and slots.

    A key is the value of the one key column, or the tuple of several.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.slot_of: dict[Hashable, int] = {}
        self.key_of: list[Any] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.slot_of)

    @property
    def size(self) -> int:
        """One more than the greatest slot ever given."""
        return len(self.key_of)

    def assign(self, frame: pl.DataFrame) -> Array:
        """The slot of every row's key, shape (rows,), int64; keys not seen before get one."""
        columns = [frame[column].to_list() for column in self.columns]
        keys: list[Any] = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        slots = list(map(self.slot_of.get, keys))
        if None in slots:
            self._add(dict.fromkeys(key for key, slot in zip(keys, slots, strict=True) if slot is None))
            slots = list(map(self.slot_of.get, keys))
        return np.array(slots, np.int64)

    def _add(self, keys: Iterable[Any]) -> None:
        """Gives each of these new, different keys a slot: freed ones first."""
        waiting = iter(keys)
        while self._free and (key := next(waiting, _END)) is not _END:
            slot = self._free.pop()
            self.key_of[slot] = key
            self.slot_of[key] = slot
        rest = list(waiting)
        first = len(self.key_of)
        self.key_of.extend(rest)
        self.slot_of.update(zip(rest, range(first, first + len(rest)), strict=True))

    def free(self, slots: Iterable[int]) -> None:
        """Forgets the keys of these slots."""
        for slot in slots:
            del self.slot_of[self.key_of[slot]]
            self.key_of[slot] = None
            self._free.append(slot)

    def columns_of(self, slots: Array, dtypes: dict[str, pl.DataType]) -> dict[str, pl.Series]:
        """The key columns of some slots."""
        keys = [self.key_of[slot] for slot in slots.tolist()]
        if len(self.columns) == 1:
            name = self.columns[0]
            return {name: pl.Series(name, keys, dtypes[name])}
        columns: Sequence[Sequence[Any]] = list(zip(*keys, strict=True)) or [()] * len(self.columns)
        return {name: pl.Series(name, values, dtypes[name]) for name, values in zip(self.columns, columns, strict=True)}


def check_keys(name: str, keys: Sequence[str], schema: Mapping[str, pl.DataType]) -> None:
    """Finds what cannot be a view's key columns.

    Raises:
        ConfigError: None is named, or one twice.
        SchemaError: One is not of the stream, or of a type that keys cannot have.
    """
    if not keys:
        raise ConfigError(f'{name}: expected key="a column" or a list of columns, found none')
    if len(set(keys)) != len(keys):
        raise ConfigError(f"{name}: a key column is named twice in {list(keys)}")
    for key in keys:
        if key not in schema:
            raise SchemaError(f"{name}: the key {key!r} is not a column of the stream; {nearest(key, schema)}")
        if not (schema[key].is_integer() or isinstance(schema[key], _KEY_TYPES)):
            raise SchemaError(
                f"{name}: the key {key!r} must be text, a whole number, a truth value or a date, found {schema[key]}"
            )
