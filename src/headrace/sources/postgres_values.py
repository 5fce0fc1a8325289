"""Values of Postgres: from the text that the server writes, by the type's number, to what a Pydantic model takes.

Snapshot and stream go through the same functions, so that a row reads the same from either. Numbers, booleans, texts,
bytes, JSON, dates, times and arrays of them become Python's; every other type (enumerations, ranges, networks, UUIDs,
intervals as ISO 8601) stays the text that it is. So does a value that Python has no room for, as a time in the year
12000 or `infinity`: the model then says what it thinks of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from psycopg2.extensions import new_array_type, new_type

Convert = Callable[[str], Any]

# How a session must be set for its texts to be what is read here.
SETTINGS = "-c DateStyle=ISO -c IntervalStyle=iso_8601 -c TimeZone=UTC -c bytea_output=hex -c extra_float_digits=1"

_BOOL, _BYTEA, _JSON, _JSONB, _NUMERIC = 16, 17, 114, 3802, 1700
_SCALARS: dict[int, Convert] = {
    _BOOL: lambda text: text == "t",
    _BYTEA: lambda text: bytes.fromhex(text[2:]),
    **dict.fromkeys((20, 21, 23, 26), int),
    **dict.fromkeys((700, 701), float),
    _NUMERIC: Decimal,
    **dict.fromkeys((_JSON, _JSONB), json.loads),
    1082: date.fromisoformat,
    **dict.fromkeys((1083, 1266), time.fromisoformat),
    **dict.fromkeys((1114, 1184), datetime.fromisoformat),
}
# What the catalog says of types: the one that a domain stands for, and the one that an array is of.
QUERY = (
    "SELECT oid::int8, typbasetype::int8, CASE WHEN typcategory = 'A' THEN typelem::int8 ELSE 0 END "
    "FROM pg_type WHERE oid = ANY(%s::int8[]::oid[])"
)


class Types:
    """How each type's texts are read.

    Args:
        ask: Answers `QUERY` for types' numbers; asked once for each.
    """

    def __init__(self, ask: Callable[[list[int]], Iterable[tuple[int, int, int]]]) -> None:
        self._ask = ask
        self._known: dict[int, Convert] = dict(_SCALARS)

    def learn(self, types: Iterable[int]) -> None:
        """Ask about those that are not known: domains and arrays, and what they are made of."""
        missing = sorted(set(types) - set(self._known))
        if not missing:
            return
        found = {oid: (base, element) for oid, base, element in self._ask(missing)}
        self.learn(part for parts in found.values() for part in parts if part)
        for oid in missing:
            base, element = found.get(oid, (0, 0))
            if base:
                self._known[oid] = self._known[base]
            else:
                self._known[oid] = _array(self._known[element]) if element else _text

    def read(self, oid: int, data: bytes) -> Any:
        """A value.

        Raises:
            UnicodeDecodeError: The database is not in UTF-8, nor is this text.
        """
        text = data.decode()
        try:
            return self._known[oid](text)
        except (ValueError, ArithmeticError, RecursionError):
            return text


def row_of(types: Types, columns: Iterable[tuple[str, int]], cells: Iterable[bytes | None]) -> dict[str, Any]:
    """Columns (names and types) and what they hold, as a row."""
    return {
        name: None if cell is None else types.read(oid, cell) for (name, oid), cell in zip(columns, cells, strict=True)
    }


def only(row: Mapping[str, Any], columns: tuple[str, ...] | None) -> dict[str, Any]:
    """The columns that were asked for, of those that there are."""
    return dict(row) if columns is None else {name: row[name] for name in columns if name in row}


def _text(text: str) -> str:
    return text


def _array(element: Convert) -> Convert:
    """The library takes arrays apart; what is in them is ours."""
    one = new_type((0,), "ELEMENT", lambda text, _: None if text is None else element(str(text)))
    many = new_array_type((0,), "ARRAY", one)
    return lambda text: many(text, None)
