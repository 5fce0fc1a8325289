"""The columns that points are filtered by, as arrays: a condition is tested for all points at once.

A slot of each array is a point's. Texts are kept as their hashes, booleans as 0 and 1, so every column of single
values is one array of numbers and one that says where there is a value. Lists are kept once each: many points have the
same tags; a condition is tested once for every different list.

Three-valued logic is two arrays, where a condition is true and where it is false; elsewhere it is unknown.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.document import Column
from headrace.filters import All, Any_, Compare, Filter, IsNull, Not, OneOf
from headrace.stores.vectors.wire import hashed

Flags = npt.NDArray[np.bool_]
Test = Callable[[Any], Any]
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


class _Values:
    """One column of single values."""

    def __init__(self, kind: str) -> None:
        self.values: npt.NDArray[Any] = np.zeros(64, np.float64 if kind == "float" else np.int64)
        self.known = np.zeros(64, np.bool_)

    def reserve(self, size: int) -> None:
        if size > len(self.known):
            more = max(size - len(self.known), len(self.known))
            self.values = np.concatenate([self.values, np.zeros(more, self.values.dtype)])
            self.known = np.concatenate([self.known, np.zeros(more, np.bool_)])

    def put(self, slots: Sequence[int], values: Sequence[Any]) -> None:
        self.known[slots] = [value is not None for value in values]
        self.values[slots] = [0 if value is None else value for value in values]

    def test(self, test: Test, size: int) -> tuple[Flags, Flags]:
        known = self.known[:size]
        passes = np.asarray(test(self.values[:size]), np.bool_)
        return known & passes, known & ~passes

    def null(self, size: int) -> tuple[Flags, Flags]:
        known = self.known[:size]
        return ~known, known.copy()


class _Lists:
    """One column of lists: each point has the number of its list; 0 is the empty one."""

    def __init__(self) -> None:
        self.numbers = np.zeros(64, np.int32)
        self.lists: list[tuple[Any, ...]] = [()]
        self._number: dict[tuple[Any, ...], int] = {(): 0}
        self._points = [0]
        self._free: list[int] = []

    def reserve(self, size: int) -> None:
        if size > len(self.numbers):
            more = max(size - len(self.numbers), len(self.numbers))
            self.numbers = np.concatenate([self.numbers, np.zeros(more, np.int32)])

    def put(self, slots: Sequence[int], values: Sequence[Any]) -> None:
        for slot, value in zip(slots, values, strict=True):
            self._leave(int(self.numbers[slot]))
            self.numbers[slot] = self._enter(tuple(value) if value is not None else ())

    def _enter(self, items: tuple[Any, ...]) -> int:
        number = self._number.get(items)
        if number is None:
            number = self._free.pop() if self._free else len(self.lists)
            if number == len(self.lists):
                self.lists.append(items)
                self._points.append(0)
            self.lists[number], self._points[number] = items, 0
            self._number[items] = number
        self._points[number] += 1
        return number

    def _leave(self, number: int) -> None:
        if number:
            self._points[number] -= 1
            if not self._points[number]:
                del self._number[self.lists[number]]
                self.lists[number] = ()
                self._free.append(number)

    def test(self, test: Test, size: int) -> tuple[Flags, Flags]:
        passes = np.array([any(bool(test(item)) for item in items) for items in self.lists], np.bool_)
        found: Flags = passes[self.numbers[:size]]
        return found, ~found

    def null(self, size: int) -> tuple[Flags, Flags]:
        none = self.numbers[:size] == 0
        return none, ~none


class Columns:
    """The columns of an index; one thread."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._of: dict[str, _Values | _Lists] = {
            name: _Lists() if column.many else _Values(column.type) for name, column in columns.items()
        }

    def put(self, slots: Sequence[int], payloads: Sequence[Mapping[str, Any]]) -> None:
        """Points come; what a payload does not name is null."""
        if not slots:
            return
        for name, column in self._of.items():
            column.reserve(max(slots) + 1)
            column.put(slots, [payload.get(name) for payload in payloads])

    def clear(self, slots: Sequence[int]) -> None:
        """Points go."""
        for column in self._of.values():
            if isinstance(column, _Lists):
                column.put(slots, [None] * len(slots))

    def passing(self, where: Filter, size: int) -> Flags:
        """Which of the first `size` slots pass."""
        for column in self._of.values():
            column.reserve(size)
        return self._test(where, size)[0]

    def _test(self, where: Filter, size: int) -> tuple[Flags, Flags]:
        match where:
            case Compare(name, op, value):
                compare, constant = _OPERATORS[op], hashed(value)
                return self._of[name].test(lambda item: compare(item, constant), size)
            case OneOf(name, values):
                return self._of[name].test(_among([hashed(value) for value in values]), size)
            case IsNull(name):
                return self._of[name].null(size)
            case Not(part):
                true, false = self._test(part, size)
                return false, true
            case All(parts):
                return _joined((self._test(part, size) for part in parts), size)
            case Any_(parts):
                false, true = _joined((self._test(part, size)[::-1] for part in parts), size)
                return true, false

    def dump(self, slots: npt.NDArray[np.int32]) -> dict[str, list[Any]]:
        """The columns of these points, in their order: [values, known], or [numbers, lists]."""
        found: dict[str, list[Any]] = {}
        for name, column in self._of.items():
            column.reserve(int(slots.max(initial=0)) + 1)
            if isinstance(column, _Lists):
                found[name] = [column.numbers[slots].tobytes(), [list(items) for items in column.lists]]
            else:
                found[name] = [column.values[slots].tobytes(), column.known[slots].tobytes()]
        return found

    def load(self, dumped: Mapping[str, list[Any]], size: int) -> None:
        """What was dumped, at the slots 0, 1, 2 …; a column that is new is null everywhere."""
        for name, (one, other) in dumped.items():
            column = self._of.get(name)
            if column is None:
                continue
            column.reserve(size)
            if isinstance(column, _Lists):
                numbers = np.frombuffer(one, np.int32).tolist()
                column.put(range(size), [other[number] for number in numbers])
            else:
                column.values[:size] = np.frombuffer(one, column.values.dtype)
                column.known[:size] = np.frombuffer(other, np.bool_)


def _among(values: Sequence[Any]) -> Test:
    allowed = set(values)

    def test(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            return np.isin(item, np.array(list(allowed), item.dtype))
        return item in allowed

    return test


def _joined(parts: Iterable[tuple[Flags, Flags]], size: int) -> tuple[Flags, Flags]:
    """True where all are, false where one is."""
    true, false = np.ones(size, np.bool_), np.zeros(size, np.bool_)
    for holds, fails in parts:
        true &= holds
        false |= fails
    return true, false
