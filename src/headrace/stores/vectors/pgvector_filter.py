"""Conditions in SQL, over a jsonb column. SQL's own three-valued logic is the one that conditions have.

What is null is left out of the stored object, so that `payload -> 'lang'` is null. Values are parameters, always;
columns' names are literals that psycopg quotes. Each condition is written as the expression that an index is made on:
the first letters of a text, since an index row may not be larger than a third of a page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from headrace.document import Column
from headrace.filters import All, Any_, Compare, Filter, IsNull, Not, OneOf

_SQL_OPS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_PATH_OPS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_TYPES = {"int": "numeric", "time": "numeric", "float": "float8", "bool": "boolean"}
# Letters of a text that are in its index.
_HEAD = 200
Parameters = list[Any]


def indexed(name: str, column: Column) -> sql.Composable:
    """What follows `CREATE INDEX … ON table` for a column; of a statement without parameters."""
    literal = sql.Literal(name)
    if column.many:
        return sql.SQL("USING gin ((payload -> {}) jsonb_path_ops)").format(literal)
    if column.type == "str":
        return sql.SQL("(left(payload ->> {}, {}))").format(literal, sql.Literal(_HEAD))
    return sql.SQL("(((payload ->> {})::" + _TYPES[column.type] + "))").format(literal)


def _literal(name: str) -> sql.Composable:
    """A name in a statement with parameters, where a percent sign is written twice."""
    return sql.SQL(sql.Literal(name).as_string().replace("%", "%%"))


def _value(name: str, column: Column) -> sql.Composable:
    cast = "" if column.type == "str" else f"::{_TYPES[column.type]}"
    return sql.SQL("(payload ->> {})" + cast).format(_literal(name))


def condition(
    where: Filter, columns: Mapping[str, Column], parameters: Parameters, negated: bool = False
) -> sql.Composable:
    """The condition, or that it does not hold; its values are appended to `parameters`."""
    match where:
        case Not(part):
            return condition(part, columns, parameters, not negated)
        case All(parts) | Any_(parts):
            every = isinstance(where, All) is not negated
            joined = [condition(part, columns, parameters, negated) for part in parts]
            if not joined:
                return sql.SQL("true" if every else "false")
            return sql.SQL("({})").format(sql.SQL(" AND " if every else " OR ").join(joined))
        case IsNull(name):
            none = (
                "coalesce(jsonb_array_length(payload -> {}), 0) = 0"
                if columns[name].many
                else "(payload -> {}) IS NULL"
            )
            found: sql.Composable = sql.SQL(none).format(_literal(name))
        case OneOf(name, values):
            found = _among(name, columns[name], [stored(value) for value in values], parameters)
        case Compare(name, op, value):
            found = _compared(name, columns[name], op, stored(value), parameters)
    if not negated:
        return found
    if not isinstance(where, IsNull) and columns[where.column].many:
        # Only here: no index would be used for it. A list that is null is an empty one.
        found = sql.SQL("coalesce({}, false)").format(found)
    return sql.SQL("NOT ({})").format(found)


def _among(name: str, column: Column, values: list[Any], parameters: Parameters) -> sql.Composable:
    if column.many:
        parameters.append([Jsonb([value]) for value in values])
        return sql.SQL("(payload -> {}) @> ANY(%s::jsonb[])").format(_literal(name))
    if column.type == "str":
        parameters.append([value[:_HEAD] for value in values])
        found = sql.SQL("left(payload ->> {}, {}) = ANY(%s::text[])").format(_literal(name), sql.Literal(_HEAD))
        if all(len(value) < _HEAD for value in values):
            return found
        parameters.append(values)
        return sql.SQL("({} AND {} = ANY(%s::text[]))").format(found, _value(name, column))
    parameters.append(values)
    return sql.SQL("{} = ANY(%s::" + _TYPES[column.type] + "[])").format(_value(name, column))


def _compared(name: str, column: Column, op: str, value: Any, parameters: Parameters) -> sql.Composable:
    if op == "eq":
        return _among(name, column, [value], parameters)
    if column.many:
        parameters.append(Jsonb({"value": value}))
        path = _literal(f"$[*] ? (@ {_PATH_OPS[op]} $value)")
        return sql.SQL("jsonb_path_exists(payload -> {}, {}, %s)").format(_literal(name), path)
    parameters.append(value)
    if column.type == "str":
        compared = sql.SQL('{} COLLATE "C" ' + _SQL_OPS[op] + " %s")
        return compared.format(_value(name, column))
    return sql.SQL("{} " + _SQL_OPS[op] + " %s::" + _TYPES[column.type]).format(_value(name, column))


def stored(value: Any) -> Any:
    """A value as Postgres can keep it: texts there have no NUL, and no half of a surrogate pair."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return value


def payload(given: Mapping[str, Any], columns: Mapping[str, Column]) -> Jsonb:
    """The columns that are filtered by, without nulls."""
    kept: dict[str, Any] = {}
    for name, column in columns.items():
        value = given.get(name)
        if value is None:
            continue
        kept[name] = [stored(item) for item in value if item is not None] if column.many else stored(value)
    return Jsonb(kept, dumps=_dumps)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
