"""Conditions on a document's columns, as every index, URL and language can say them.

A user writes a Polars expression; over HTTP and in tools the same is JSON. Both become this small tree, which each
index translates into its own filters, and which turns back into a Polars expression (the meaning of record).

Nulls are as in SQL and Polars: a comparison with a null is neither true nor false and does not pass, nor does its
negation. A condition on a list column holds if one item passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Scalar = str | int | float | bool | None
Comparison = Literal["eq", "ne", "lt", "le", "gt", "ge"]


@dataclass(frozen=True)
class Compare:
    """A column against a value; times are microseconds since the Unix epoch."""

    column: str
    op: Comparison
    value: Scalar


@dataclass(frozen=True)
class OneOf:
    """A column that is one of several values."""

    column: str
    values: tuple[Scalar, ...]


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
