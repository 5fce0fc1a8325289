"""Rows of a view's tables as a store outside the process keeps them: absolute values under stable names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rows:
    """Rows of one view, of which each is one tile of one key in one table.

    Attributes:
        view: The view's name.
        keys: The key of each row, as the view keeps it.
        fields: The name of each row within its key: which table and which tile.
        values: The row's partials as bytes; None if the rows named are gone.
        until: The event time, in microseconds, from which on nothing reads the newest row of the row's key, where that
            may have moved; else 0. None where it has for no row, or where rows are kept for ever.
    """

    view: str
    keys: list[Any]
    fields: list[bytes]
    values: list[bytes] | None
    until: list[int] | None = None
