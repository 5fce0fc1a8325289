"""Conditions as Qdrant's filters, over the marks of `headrace.stores.vectors.marks`.

Qdrant matches integers, texts and booleans by value, and floats by a range only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qdrant_client import models

from headrace.document import Column
from headrace.stores.vectors.marks import Check, Every, Tree

_RANGE = {"lt": "lt", "le": "lte", "gt": "gt", "ge": "gte"}
_INDEXES = {
    "str": models.PayloadSchemaType.KEYWORD,
    "int": models.PayloadSchemaType.INTEGER,
    "time": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
}


def key(group: str, column: str) -> str:
    """The path of a mark in a payload."""
    plain = column.isascii() and column.isidentifier()
    return group if not column else f"{group}.{column}" if plain else f'{group}."{column}"'


def indexes(columns: Mapping[str, Column]) -> dict[str, models.PayloadSchemaType]:
    """The paths that are filtered by, and how they are indexed."""
    found = {"has": models.PayloadSchemaType.KEYWORD}
    for name, column in columns.items():
        found[key("is", name)] = _INDEXES[column.type]
        if column.many and column.type in ("int", "float", "time"):
            found |= {key(end, name): _INDEXES[column.type] for end in ("least", "most")}
    return found


def condition(tree: Tree) -> models.Filter | None:
    """A condition that some points pass; None for no condition."""
    if tree is True:
        return None
    found = _part(tree)
    return found if isinstance(found, models.Filter) else models.Filter(must=[found])


def _part(tree: Tree) -> models.Filter | models.FieldCondition:
    assert not isinstance(tree, bool)
    if isinstance(tree, Check):
        return _check(tree)
    parts: list[Any] = [_part(part) for part in tree.parts]
    return models.Filter(must=parts) if isinstance(tree, Every) else models.Filter(should=parts)


def _check(check: Check) -> models.Filter | models.FieldCondition:
    path = key(check.group, check.column)
    if check.op in _RANGE:
        return models.FieldCondition(key=path, range=models.Range(**{_RANGE[check.op]: check.values[0]}))
    same: list[Any] = _same(path, check)
    if check.op == "not in":
        return models.Filter(must_not=same)
    return same[0] if len(same) == 1 else models.Filter(should=same)


def _same(path: str, check: Check) -> list[models.FieldCondition]:
    if check.type == "float":
        ranges = [models.Range(gte=value, lte=value) for value in check.values]
        return [models.FieldCondition(key=path, range=each) for each in ranges]
    if check.type == "bool" or len(check.values) == 1:
        return [models.FieldCondition(key=path, match=models.MatchValue(value=value)) for value in check.values]
    return [models.FieldCondition(key=path, match=models.MatchAny(any=list(check.values)))]
