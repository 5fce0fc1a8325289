"""Conditions on a document's columns, as every index, URL and language can say them.

A user writes a Polars expression; over HTTP and in tools the same is JSON. Both become this small tree, which each
index translates into its own filters, and which turns back into a Polars expression (the meaning of record).

    pl.col("lang") == "en"                {"lang": "en"}
    pl.col("year").is_between(2020, 2023) {"year": {"gte": 2020, "lte": 2023}}
    pl.col("tags").list.contains("news")  {"tags": "news"}
    ~pl.col("author").is_in(["a", "b"])   {"not": {"author": {"in": ["a", "b"]}}}
    pl.col("ended").is_null()             {"ended": null}
    (a) | (b)                             {"or": [{…}, {…}]}

Nulls are as in SQL and Polars: a comparison with a null is neither true nor false (unknown) and does not pass, nor does
its negation. Not(unknown) is unknown; All is false if a part is, else unknown if a part is; Any_ is true if a part is.

A condition on a list column holds if one item passes, and else it is false, never unknown: a list that is null is an
empty list, and its negation passes. (So "not tagged as a draft" finds what has no tags.) `parse` never gives "ne" on a
list: that some item differs is not what anybody means, so it becomes the negation of "eq". Nor does it give the order
of texts or booleans, a null among the values of OneOf, or a number of the wrong type: a condition that comes from
`parse` compares integers with integers, floats with floats and times with microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, get_args

import polars as pl

from headrace.document import Column
from headrace.errors import InputError, nearest
from headrace.filter_expr import conditions
from headrace.units import MAX_TIME, MIN_TIME, to_micros

Scalar = str | int | float | bool | None
Comparison = Literal["eq", "ne", "lt", "le", "gt", "ge"]


@dataclass(frozen=True)
class Compare:
    """A column against a value; times are microseconds since the Unix epoch. `many`: the column holds lists."""

    column: str
    op: Comparison
    value: Scalar
    many: bool = False


@dataclass(frozen=True)
class OneOf:
    """A column that is one of several values; of none at all it is false, or unknown for a null."""

    column: str
    values: tuple[Scalar, ...]
    many: bool = False


@dataclass(frozen=True)
class IsNull:
    """A column that has no value (of a list: no item)."""

    column: str


@dataclass(frozen=True)
class All:
    """Every one holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Any_:  # noqa: N801 - `Any` is typing's
    """At least one holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    """It does not hold."""

    part: Filter


Filter = Compare | OneOf | IsNull | All | Any_ | Not
Node = Any

MOST_DEPTH = 16
MOST_PARTS = 512
MOST_VALUES = 10_000
MOST_TEXT = 8_192
_MAX_INT = 2**63 - 1
_OPS: dict[str, Comparison] = {"eq": "eq", "ne": "ne", "lt": "lt", "lte": "le", "gt": "gt", "gte": "ge"}
_NAMES = {op: name for name, op in _OPS.items()}
_WORDS = {"str": "text", "int": "an integer", "float": "a number", "bool": "a boolean", "time": "a time"}


def parse(where: pl.Expr | Mapping[str, Any] | Filter, columns: Mapping[str, Column]) -> Filter:
    """A condition as a tree that fits the columns: a Polars expression, the JSON form, or a tree to be checked.

    Raises:
        InputError: It says what no index could do, names a column that is not there, compares a column with a value of
            another type, or is too large; the message names the part.
    """
    if isinstance(where, pl.Expr):
        where = conditions(where)
    elif isinstance(where, Filter):
        where = to_json(where)
    return _Parser(columns).all_of(where, MOST_DEPTH)


class _Parser:
    """Reads the JSON form, and counts what it has read."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns
        self._parts = 0
        self._values = 0

    def all_of(self, given: Any, depth: int) -> Filter:
        """An object: all of what it says holds."""
        if not isinstance(given, Mapping):
            raise InputError(
                'expected a condition such as {"lang": "en"} or {"year": {"gte": 2020}}, '
                f"found {type(given).__name__}"
            )
        if depth == 0:
            raise InputError(f"expected conditions nested at most {MOST_DEPTH} deep, found deeper ones")
        parts = [part for name, value in given.items() for part in self._named(str(name), value, depth)]
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _named(self, name: str, value: Any, depth: int) -> Iterable[Filter]:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InputError(f"expected at most {MOST_PARTS} conditions, found more")
        if name == "not":
            yield Not(self.all_of(value, depth - 1))
        elif name in ("and", "or"):
            if not isinstance(value, list | tuple):
                raise InputError(f'expected a list of conditions in "{name}", found {type(value).__name__}')
            parts = tuple(self.all_of(part, depth - 1) for part in value)
            yield All(parts) if name == "and" else Any_(parts)
        else:
            column = self._columns.get(name)
            if column is None:
                raise InputError(f"no column {name!r} can be filtered by; {nearest(name, self._columns)}")
            yield from self._column(name, column, value)

    def _column(self, name: str, column: Column, value: Any) -> Iterable[Filter]:
        if value is None:
            yield IsNull(name)
        elif isinstance(value, Mapping):
            if not value:
                raise InputError(f'expected a comparison of {name!r} such as {{"eq": …}}, found none')
            for op, operand in value.items():
                yield self._operation(name, column, str(op), operand)
        else:
            yield self._operation(name, column, "eq", value)

    def _operation(self, name: str, column: Column, op: str, operand: Any) -> Filter:
        if op == "in":
            if not isinstance(operand, list | tuple | set | frozenset):
                raise InputError(f'expected a list of values in "in" of {name!r}, found {type(operand).__name__}')
            return OneOf(name, tuple(self._value(name, column, "eq", item) for item in operand), column.many)
        if op not in _OPS:
            raise InputError(f"unknown comparison {op!r} of {name!r}; {nearest(op, [*_OPS, 'in'])}")
        if operand is None and op in ("eq", "ne"):
            return IsNull(name) if op == "eq" else Not(IsNull(name))
        if op in ("lt", "lte", "gt", "gte") and column.type in ("str", "bool"):
            raise InputError(
                f"{name!r} is {_WORDS[column.type]}, which indexes keep without an order; compare it by eq, ne or in"
            )
        if op == "ne" and column.many:
            return Not(Compare(name, "eq", self._value(name, column, "eq", operand), many=True))
        return Compare(name, _OPS[op], self._value(name, column, op, operand), column.many)

    def _value(self, name: str, column: Column, op: str, value: Any) -> Scalar:
        self._values += 1
        if self._values > MOST_VALUES:
            raise InputError(f"expected at most {MOST_VALUES} values in a condition, found more")
        found = _CONVERT[column.type](value, op)
        if found is None:
            shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}…"
            whose = "the items of " if column.many else ""
            raise InputError(f"expected {_WORDS[column.type]} to compare {whose}{name!r} with, found {shown}")
        return found


def _text(value: Any, _: str) -> Scalar:
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        return None
    # Half of a surrogate pair is in no document, and no index could be asked for it.
    return value if all(not "\ud800" <= one <= "\udfff" for one in value) else None


def _integer(value: Any, op: str) -> Scalar:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if isinstance(value, float):
        # Below 2.5 is below 3, and at most 2.5 at most 2; nothing equals 2.5.
        if op in ("eq", "ne") and not value.is_integer():
            return None
        value = math.ceil(value) if op in ("lt", "gte") else math.floor(value)
    return value if -_MAX_INT <= value <= _MAX_INT else None


def _float(value: Any, _: str) -> Scalar:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e308:
        return None
    return float(value) if math.isfinite(value) else None


def _boolean(value: Any, _: str) -> Scalar:
    return value if isinstance(value, bool) else None


def _time(value: Any, op: str) -> Scalar:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return to_micros(value)
    if isinstance(value, date):
        return to_micros(datetime(value.year, value.month, value.day))
    micros = _integer(value, op)
    return micros if isinstance(micros, int) and MIN_TIME <= micros <= MAX_TIME else None


_CONVERT: dict[str, Callable[[Any, str], Scalar]] = {
    "str": _text,
    "int": _integer,
    "float": _float,
    "bool": _boolean,
    "time": _time,
}


def to_json(where: Filter) -> dict[str, Any]:
    """The JSON form; times are microseconds since the Unix epoch."""
    match where:
        case Compare(column, op, value):
            return {column: {_NAMES[op]: value}}
        case OneOf(column, values):
            return {column: {"in": list(values)}}
        case IsNull(column):
            return {column: None}
        case All(parts):
            return {"and": [to_json(part) for part in parts]}
        case Any_(parts):
            return {"or": [to_json(part) for part in parts]}
        case Not(part):
            return {"not": to_json(part)}


def to_expr(where: Filter, columns: Mapping[str, Column]) -> pl.Expr:
    """The condition as a Polars expression over a frame of these columns; times as Date, Datetime or microseconds."""
    match where:
        case Compare(column, op, value):
            return _each(column, columns[column], lambda item: getattr(item, op)(pl.lit(value)))
        case OneOf(column, values):
            return _each(column, columns[column], lambda item: item.is_in(list(values)))
        case IsNull(column):
            none = pl.col(column).is_null()
            return none | (pl.col(column).list.drop_nulls().list.len() == 0) if columns[column].many else none
        case All(parts):
            return pl.all_horizontal(pl.lit(True), *(to_expr(part, columns) for part in parts))
        case Any_(parts):
            return pl.any_horizontal(pl.lit(False), *(to_expr(part, columns) for part in parts))
        case Not(part):
            return ~to_expr(part, columns)


def _each(name: str, column: Column, test: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    def item(found: pl.Expr) -> pl.Expr:
        return test(found.cast(pl.Datetime("us")).cast(pl.Int64) if column.type == "time" else found)

    if not column.many:
        return item(pl.col(name))
    return pl.col(name).list.eval(item(pl.element())).list.any().fill_null(False)


def passes(where: Filter, payload: Mapping[str, Any]) -> bool:
    """Whether a row passes; times in it are microseconds, and a column that is not in it is null."""
    return predicate(where)(payload) is True


def predicate(where: Filter) -> Callable[[Mapping[str, Any]], bool | None]:
    """The condition as a function of a row, to be called often: true, false, or None for unknown."""
    match where:
        case Compare(column, op, value, many):
            return _on(column, _COMPARE[op](value), many)
        case OneOf(column, values, many):
            among = frozenset(values)
            return _on(column, lambda item: item in among, many)
        case IsNull(column):
            return lambda row: _is_null(row.get(column))
        case All(parts):
            return _joined([predicate(part) for part in parts], decisive=False)
        case Any_(parts):
            return _joined([predicate(part) for part in parts], decisive=True)
        case Not(part):
            inner = predicate(part)
            return lambda row: None if (found := inner(row)) is None else not found


_COMPARE: dict[Comparison, Callable[[Any], Callable[[Any], bool]]] = {
    "eq": lambda value: lambda item: item == value,
    "ne": lambda value: lambda item: item != value,
    "lt": lambda value: lambda item: item < value,
    "le": lambda value: lambda item: item <= value,
    "gt": lambda value: lambda item: item > value,
    "ge": lambda value: lambda item: item >= value,
}
assert set(_COMPARE) == set(get_args(Comparison))


def _on(column: str, test: Callable[[Any], bool], many: bool) -> Callable[[Mapping[str, Any]], bool | None]:
    def holds(row: Mapping[str, Any]) -> bool | None:
        found = row.get(column)
        if found is None:
            return False if many else None
        if isinstance(found, list | tuple):
            return any(test(item) for item in found if item is not None)
        return test(found)

    return holds


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple) and all(item is None for item in value))


def _joined(
    parts: list[Callable[[Mapping[str, Any]], bool | None]], *, decisive: bool
) -> Callable[[Mapping[str, Any]], bool | None]:
    """One part that is `decisive` decides; else one that is unknown leaves it unknown."""

    def holds(row: Mapping[str, Any]) -> bool | None:
        unknown = False
        for part in parts:
            found = part(row)
            if found is decisive:
                return decisive
            unknown = unknown or found is None
        return None if unknown else not decisive

    return holds
