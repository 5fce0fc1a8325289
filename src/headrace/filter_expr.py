"""A Polars expression as a condition in JSON form (see `filters`): what any index can be asked, of what Polars can say.

An expression is read from its serialised form, which is the only way that Polars has to look into one. Its shape is
Polars' own affair and may change with a release, so whatever is not known exactly is refused by name, never guessed.
A part without columns is a constant, whatever it is made of: Polars itself computes it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl

from headrace.errors import InputError

SUPPORTED = (
    "==, !=, <, <=, >, >=, is_in, is_between, is_null, is_not_null and list.contains of a column and a constant, "
    "boolean columns, &, |, ~, all_horizontal and any_horizontal"
)
_COMPARISONS = {"Eq": "eq", "NotEq": "ne", "Lt": "lt", "LtEq": "lte", "Gt": "gt", "GtEq": "gte"}
_FLIPPED = {"eq": "eq", "ne": "ne", "lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte"}
_JOINS = {"And": "and", "LogicalAnd": "and", "Or": "or", "LogicalOr": "or"}
_BOUNDS = {"Both": ("gte", "lte"), "Left": ("gte", "lt"), "Right": ("gt", "lte"), "None": ("gt", "lt")}
# What depends on the frame, or on code: none of it is a constant.
_VARIABLE = {"Column", "Selector", "Field", "Element", "Len", "AnonymousFunction", "AnonymousAgg"}
# Names that mean something else in the JSON form.
_RESERVED = {"and", "or", "not"}

Condition = dict[str, Any]


def conditions(where: pl.Expr) -> Condition:
    """The expression in JSON form; times are `datetime`s.

    Raises:
        InputError: A part of it cannot be asked of an index; the message names it.
    """
    try:
        node = msgspec.json.decode(where.meta.serialize(format="json"))
    except (pl.exceptions.PolarsError, msgspec.DecodeError, RecursionError) as error:
        found = f"found one that cannot be asked for ({error})"
        raise InputError(f"expected an expression of {SUPPORTED}, {found}") from None
    try:
        return _read(node)
    except RecursionError:
        raise InputError("expected conditions that are nested less deeply, found too many levels") from None


def _read(node: Any) -> Condition:
    match node:
        case {"Alias": [inner, str()]}:
            return _read(inner)
        case {"Column": str(name)}:
            return {_named(name): True}
        case {"BinaryExpr": {"op": str(op)}} if op in _JOINS:
            return {_JOINS[op]: [_read(part) for part in _operands(node, op)]}
        case {"BinaryExpr": {"left": left, "op": str(op), "right": right}} if op in _COMPARISONS:
            return _comparison(node, left, _COMPARISONS[op], right)
        case {"Function": {"input": [*inputs], "function": {"Boolean": function}}} if not _constant(node):
            return _boolean(node, inputs, function)
        case {"Function": {"input": [{"Column": str(name)}, item], "function": {"ListExpr": {"Contains": _}}}}:
            return {_named(name): {"eq": _value(item)}}
    if _constant(node):
        return _truth(node)
    raise _unsupported(node)


def _operands(node: Any, op: str) -> list[Any]:
    """The operands of a chain `a & b & c …`, which is nested to the left, without recursion."""
    found: list[Any] = []
    while isinstance(node, dict) and node.get("BinaryExpr", {}).get("op") == op:
        found.append(node["BinaryExpr"]["right"])
        node = node["BinaryExpr"]["left"]
    return [node, *reversed(found)]


def _comparison(node: Any, left: Any, op: str, right: Any) -> Condition:
    column, value = _column(left), right
    if column is None:
        column, value, op = _column(right), left, _FLIPPED[op]
    if column is None or not _constant(value):
        if _constant(node):
            return _truth(node)
        raise _unsupported(node)
    return {_named(column): {op: _value(value)}}


def _boolean(node: Any, inputs: list[Any], function: Any) -> Condition:
    """A function of Polars' that says true or false."""
    match function, inputs:
        case "Not", [inner]:
            return {"not": _read(inner)}
        case "AllHorizontal", _:
            return {"and": [_read(part) for part in inputs]}
        case "AnyHorizontal", _:
            return {"or": [_read(part) for part in inputs]}
    column = _column(inputs[0]) if inputs else None
    if column is None or not all(_constant(part) for part in inputs[1:]):
        raise _unsupported(node)
    match function, inputs:
        case "IsNull", [_]:
            return {_named(column): None}
        case "IsNotNull", [_]:
            return {"not": {_named(column): None}}
        case {"IsIn": {"nulls_equal": False}}, [_, among]:
            return {_named(column): {"in": _values(among)}}
        case {"IsBetween": {"closed": str(closed)}}, [_, low, high] if closed in _BOUNDS:
            lower, upper = _BOUNDS[closed]
            return {_named(column): {lower: _value(low), upper: _value(high)}}
    raise _unsupported(node)


def _column(node: Any) -> str | None:
    match node:
        case {"Column": str(name)}:
            return name
        case {"Alias": [inner, str()]}:
            return _column(inner)
    return None


def _named(name: str) -> str:
    if name in _RESERVED:
        raise InputError(f"a column named {name!r} cannot be filtered by; rename it")
    return name


def _constant(node: Any) -> bool:
    """Whether it depends on no row."""
    if isinstance(node, str):
        return node not in _VARIABLE
    if isinstance(node, dict):
        if "Literal" in node:
            return True
        return not _VARIABLE & node.keys() and all(_constant(inner) for inner in node.values())
    return all(_constant(inner) for inner in node) if isinstance(node, list) else True


def _truth(node: Any) -> Condition:
    value = _evaluated(node).to_list()
    if value not in ([True], [False]):
        raise _unsupported(node)
    return {"and": []} if value == [True] else {"or": []}


def _value(node: Any) -> Any:
    """The one value of a constant.

    Raises:
        InputError: It is not one value, or null.
    """
    if not _constant(node):
        raise _unsupported(node)
    found = _evaluated(node)
    if len(found) != 1 or found.dtype.is_nested():
        raise InputError(f"expected one value to compare a column with, found {_shown(node)}")
    value = found.item()
    if value is None:
        raise InputError(
            "a comparison with null is never true: expected a value, found null; write is_null() or is_not_null()"
        )
    return _moment(value)


def _values(node: Any) -> list[Any]:
    found = _evaluated(node)
    if len(found) == 1 and isinstance(found.dtype, pl.List | pl.Array):
        found = found.explode(empty_as_null=False)
    # A null among them makes nothing true.
    return [_moment(value) for value in found.to_list() if value is not None]


def _moment(value: Any) -> Any:
    """A time without a zone is in UTC."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def _evaluated(node: Any) -> pl.Series:
    try:
        return pl.select(_expression(node)).to_series()
    except pl.exceptions.PolarsError as error:
        raise InputError(f"expected a constant, found {_shown(node)}, which cannot be computed ({error})") from None


def _expression(node: Any) -> pl.Expr:
    return pl.Expr.deserialize(io.BytesIO(msgspec.json.encode(node)), format="json")


def _unsupported(node: Any) -> InputError:
    return InputError(f"an index cannot be asked for {_shown(node)}; expected {SUPPORTED}")


def _shown(node: Any) -> str:
    try:
        text = str(_expression(node))
    except pl.exceptions.PolarsError:
        text = next(iter(node)) if isinstance(node, Mapping) and node else str(node)
    return text if len(text) <= 120 else f"{text[:120]}…"
