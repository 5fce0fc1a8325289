"""What was read at one point, and what can be searched there for as long as it is held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.errors import UnknownNameError
from headrace.serving import documents
from headrace.serving.rows import Row

if TYPE_CHECKING:
    from headrace.runners.library.hits import Hit
    from headrace.runners.library.search import Asked, Held


@dataclass
class ReadPoint:
    """What was read, and what can be searched for as long as the block of `point` lasts.

    Attributes:
        rows: The features, in the order in which they were asked for.
        positions: What has been seen, by source and table, as plain JSON.
        token: The same as a token.
        consistent: Whether all is at one point: every write before it is seen, and none after it.
        why: Why it is not; empty if it is.
        now: The moment of the read, microseconds since the Unix epoch.
        lagging: Whether the engine is further behind its input than the app allows.
        as_of: The newest event time in the rows.
    """

    rows: list[Row]
    positions: dict[str, Any]
    token: str
    consistent: bool
    why: str
    now: int
    lagging: bool
    as_of: datetime | None
    _held: Mapping[str, Held] = field(default_factory=dict, repr=False)
    _ages: int = field(default=0, repr=False)

    def search(self, collection: str, asked: Asked) -> list[Hit]:
        """The best chunks of a collection at this point. Threads may search at the same time."""
        if collection not in self._held:
            raise UnknownNameError(f"the point does not hold the collection {collection!r}; name it when reading")
        return self._held[collection].search(asked, self._ages)

    def table_seq(self, table: str) -> int:
        """The number of a table's last change at this point."""
        found = self.positions.get(documents.position_of(table))
        if not isinstance(found, int):
            raise UnknownNameError(f"the point does not hold the table {table!r}; name it when reading")
        return found
