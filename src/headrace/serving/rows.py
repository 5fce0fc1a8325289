"""Rows: what a read returns. One class a view, made once, with the key and each feature as an attribute."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import polars as pl

from headrace.features.read import Values
from headrace.features.view import View
from headrace.units import SECOND, from_micros

_ARRAYS: dict[pl.DataType, Any] = {pl.Float64(): np.float64, pl.Int64(): np.int64}
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


class Row(msgspec.Struct, frozen=True):
    """A key's features at one moment.

    Besides the key columns and the features, as the view names them:

        as_of: The event time of the newest event in the values (UTC); None if there is none.
        age: Seconds between that and the moment of the read; None if there is none.
        token: The positions that the values have seen; a read with `after=` it sees at least as much.
        lagging: Whether the engine is further behind its input than the app allows, so that newer events exist.
    """

    def to_dict(self) -> dict[str, Any]:
        """The row as a plain dict."""
        return msgspec.structs.asdict(self)


class RowMaker:
    """Makes the rows and frames of one view."""

    def __init__(self, view: View) -> None:
        self._single = len(view.keys) == 1
        self._view = view
        fields: list[tuple[str, Any]] = [
            *((key, Any) for key in view.keys),
            *((label, Any) for label in view.features),
            ("as_of", datetime | None),
            ("age", float | None),
            ("token", str),
            ("lagging", bool),
        ]
        made: Any = msgspec.defstruct(
            "".join(part.title() for part in view.name.split("_")) + "Row", fields, bases=(Row,), frozen=True
        )
        self.row: type[Row] = made

    def one(self, key: Any, values: Values, token: str, lagging: bool = False) -> Row:
        """A row of a key's values."""
        newest = values.newest
        if newest is None or values.now is None:
            as_of, age = None, None
        else:
            as_of, age = from_micros(newest), max(0, values.now - newest) / SECOND
        if self._single:
            return self.row(key, *values.features, as_of, age, token, lagging)
        return self.row(*key, *values.features, as_of, age, token, lagging)

    def frame(self, keys: Sequence[Any], values: Sequence[Values], lagging: bool = False) -> pl.DataFrame:
        """A frame with a row for each key, in their order: keys, features, as_of, age and lagging."""
        view = self._view
        parts = [[key] for key in keys] if self._single else keys
        columns: dict[str, pl.Series] = {}
        for place, name in enumerate(view.keys):
            columns[name] = pl.Series(name, [part[place] for part in parts], view.schema[name])
        for place, name in enumerate(view.features):
            columns[name] = _series(name, [one.features[place] for one in values], view.types[name])
        newest = [one.newest for one in values]
        columns["as_of"] = pl.Series("as_of", newest, pl.Int64).cast(pl.Datetime("us", "UTC"))
        ages = [
            None if one.newest is None or one.now is None else max(0, one.now - one.newest) / SECOND for one in values
        ]
        columns["age"] = pl.Series("age", ages, pl.Float64)
        columns["lagging"] = pl.Series("lagging", [lagging] * len(values), pl.Boolean)
        return pl.DataFrame(columns)


def _series(name: str, values: list[Any], dtype: pl.DataType) -> pl.Series:
    """A column; integers that do not fit 64 bits make it one of 128 bits rather than wrong."""
    if dtype in _ARRAYS and None not in values:
        # Through an array, numbers become a column in a fifth of the time.
        with suppress(OverflowError):
            return pl.Series(name, np.array(values, _ARRAYS[dtype]))
    if dtype == pl.Int64 and any(value is not None and not _LEAST <= value <= _MOST for value in values):
        return pl.Series(name, values, pl.Int128)
    return pl.Series(name, values, dtype)
