"""Conditions as Pinecone's metadata filters, and the metadata that they are asked of.

Metadata are flat: texts, numbers, booleans and lists of texts; there is no null. A column is kept as `is.NAME`, a text
or a list of texts, since texts are compared exactly and numbers as 64-bit floats; the ends of what has an order are
kept as the numbers `least.NAME` and `most.NAME`. Whether there is a value is asked with `$exists`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.document import Column
from headrace.stores.vectors.marks import Check, Every, Tree, marked

# Where a point's place in a sample is kept.
SAMPLE = "sample"
_OPS = {"lt": "$lt", "le": "$lte", "gt": "$gt", "ge": "$gte"}
_ENDS = {"lt": "least", "le": "least", "gt": "most", "ge": "most"}


def metadata(payload: Mapping[str, Any], columns: Mapping[str, Column]) -> dict[str, Any]:
    """The columns of a payload as metadata."""
    marks = marked(payload, columns)
    found: dict[str, Any] = {}
    for name, value in marks["is"].items():
        found[f"is.{name}"] = [_text(item) for item in value] if isinstance(value, list) else _text(value)
        if not isinstance(value, list | str | bool):
            found[f"least.{name}"] = found[f"most.{name}"] = value
    for end in ("least", "most"):
        found |= {f"{end}.{name}": value for name, value in marks[end].items()}
    return found


def condition(tree: Tree) -> dict[str, Any] | None:
    """A condition that some points pass; None for no condition."""
    return None if tree is True else _part(tree)


def _part(tree: Tree) -> dict[str, Any]:
    assert not isinstance(tree, bool)
    if isinstance(tree, Check):
        return _check(tree)
    return {"$and" if isinstance(tree, Every) else "$or": [_part(part) for part in tree.parts]}


def _check(check: Check) -> dict[str, Any]:
    if check.group == "has":
        return {f"is.{check.values[0]}": {"$exists": check.op == "in"}}
    if check.op in _OPS:
        end = _ENDS[check.op] if check.group == "is" else check.group
        return {f"{end}.{check.column}": {_OPS[check.op]: check.values[0]}}
    path, texts = f"is.{check.column}", [_text(value) for value in check.values]
    if check.op == "in":
        return {path: {"$in": texts}}
    return {"$or": [{path: {"$exists": False}}, {path: {"$nin": texts}}]}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    # 0.0 and -0.0 are one number.
    return repr(value + 0.0) if isinstance(value, float) else repr(value)
