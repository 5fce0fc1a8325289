"""Conditions in Milvus' expression language, over marks in which every value is a list.

A literal can hold no quote, backslash or line's end that is not escaped, so a text cannot end it; columns' names are
literals too. Milvus' idea of a missing value is not relied on: where a list that is not there must pass, its absence is
asked for.
"""

from __future__ import annotations

from typing import Any

from headrace.stores.vectors.marks import Check, Every, Tree

_OPS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def condition(tree: Tree) -> str:
    """A condition that some points pass; "" for no condition."""
    return "" if tree is True else _part(tree)


def _part(tree: Tree) -> str:
    assert not isinstance(tree, bool)
    if isinstance(tree, Check):
        return _check(tree)
    return "(" + (" and " if isinstance(tree, Every) else " or ").join(map(_part, tree.parts)) + ")"


def _check(check: Check) -> str:
    field = f"marks[{literal(check.group)}]" + (f"[{literal(check.column)}]" if check.column else "")
    if check.op in _OPS:
        ends = {"lt": "least", "le": "least", "gt": "most", "ge": "most"}
        # A value that is no list has both ends; of a list `checks` has named the right one.
        group = ends[check.op] if check.group == "is" else check.group
        return f"marks[{literal(group)}][{literal(check.column)}] {_OPS[check.op]} {literal(check.values[0])}"
    among = f"json_contains_any({field}, [{', '.join(map(literal, check.values))}])"
    if check.op == "in":
        return among
    if not check.column:
        return f"(not {among})"
    return f"((not json_contains_any(marks[{literal('has')}], [{literal(check.column)}])) or (not {among}))"


def literal(value: Any) -> str:
    """A value in Milvus' language."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPED)}"'
    return repr(value)
