"""Conditions for engines that know no nulls: every condition becomes checks that are true or false of a stored point.

Engines differ in what `not` means where a value is missing, and in what a comparison with a list means. So a point
carries marks beside its columns, written by `marked`:

    {"is": {"lang": "en", "years": [3, 9]}, "least": {"years": 3}, "most": {"years": 9},
     "has": ["lang", "years"]}

"has" names the columns that have a value, or an item; "least" and "most" are the ends of a list of numbers, so that
"one item is below 5" is a comparison of one number. `checks` pushes every `not` down to the comparisons (De Morgan
holds for three-valued logic), where "not equal" means "has a value, and none of these". What is unknown is then false
on every path, and the engine's own idea of nulls is never asked.

A text that is long, or has a character that an engine's language could trip over, is kept by its beginning and its
hash; so is what it is compared with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headrace.document import Column
from headrace.filters import All, Any_, Compare, Filter, IsNull, Not, OneOf

Group = Literal["is", "least", "most", "has"]
Order = Literal["lt", "le", "gt", "ge"]
Op = Literal["in", "not in"] | Order
Marked = dict[str, Any]

_NEGATED: dict[Order, Order] = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}
_NUMBERS = ("int", "float", "time")
# Letters of a text that are kept whole.
_LONGEST = 256


@dataclass(frozen=True)
class Check:
    """A stored field against values: `in` and `not in` of any number of them, of a list's items too; else of one.

    Attributes:
        group: Which of a point's marks.
        column: Which column; "" of "has", whose items are tested.
        type: The column's type; "str" of "has".
    """

    group: Group
    column: str
    op: Op
    values: tuple[Any, ...]
    type: str = "str"


@dataclass(frozen=True)
class Every:
    """All of two or more."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Some:
    """At least one of two or more."""

    parts: tuple[Tree, ...]


# True and False stand for conditions that all points pass, or none.
Tree = Check | Every | Some | bool


def marked(payload: Mapping[str, Any], columns: Mapping[str, Column]) -> Marked:
    """The columns of a payload with their marks."""
    found: Marked = {"is": {}, "least": {}, "most": {}, "has": []}
    for name, column in columns.items():
        value = payload.get(name)
        if value is None:
            continue
        items = [item for item in value if item is not None] if column.many else [value]
        if not items:
            continue
        found["has"].append(name)
        kept = [_short(item) for item in items] if column.type == "str" else items
        found["is"][name] = kept if column.many else kept[0]
        if column.many and column.type in _NUMBERS:
            found["least"][name], found["most"][name] = min(items), max(items)
    return found


def _short(text: str) -> str:
    if len(text) <= _LONGEST and text.isprintable():
        return text
    shown = "".join(letter for letter in text[: _LONGEST // 2] if letter.isprintable())
    return f"{shown}…{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"


def checks(where: Filter | None, columns: Mapping[str, Column], negated: bool = False) -> Tree:
    """The condition as checks; True for no condition."""
    match where:
        case None:
            return True
        case Not(part):
            return checks(part, columns, not negated)
        case All(parts) | Any_(parts):
            each = [checks(part, columns, negated) for part in parts]
            return _every(each) if isinstance(where, All) is not negated else _some(each)
        case IsNull(name):
            return _has(name, negated)
        case OneOf(name, values):
            return _among(name, columns[name], values, negated)
        case Compare(name, op, value):
            if op == "eq" or op == "ne":
                return _among(name, columns[name], (value,), negated is (op == "eq"))
            return _compared(name, columns[name], op, value, negated)


def _has(mark: str, wanted: bool = True) -> Check:
    return Check("has", "", "in" if wanted else "not in", (mark,))


def _among(name: str, column: Column, values: Iterable[Any], negated: bool) -> Tree:
    among = tuple(_short(value) if column.type == "str" else value for value in values if value is not None)
    if not negated:
        return Check("is", name, "in", among, column.type) if among else False
    other: Tree = Check("is", name, "not in", among, column.type) if among else True
    # A list that is not there is an empty one; a value that is not there is neither this nor another.
    return other if column.many else _every([_has(name), other])


def _compared(name: str, column: Column, op: Order, value: Any, negated: bool) -> Tree:
    if not column.many:
        return Check("is", name, _NEGATED[op] if negated else op, (value,), column.type)
    end: Group = "least" if op in ("lt", "le") else "most"
    if not negated:
        return Check(end, name, op, (value,), column.type)
    return _some([Check(end, name, _NEGATED[op], (value,), column.type), _has(name, False)])


def _every(parts: list[Tree]) -> Tree:
    if any(part is False for part in parts):
        return False
    left = tuple(part for part in parts if part is not True)
    return left[0] if len(left) == 1 else Every(left) if left else True


def _some(parts: list[Tree]) -> Tree:
    if any(part is True for part in parts):
        return True
    left = tuple(part for part in parts if part is not False)
    return left[0] if len(left) == 1 else Some(left) if left else False
