"""A change of one row of a table, as every source of changes tells it.

Changes are absolute: an upsert carries the whole row, so the same change told twice does nothing the second time. What
orders two changes of a row is the order in which the source tells them, or `version` where a source may tell an old
change after a newer one (a queue that delivers again).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Op = Literal["upsert", "delete", "truncate"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        op: "truncate" takes away every row that the table has from this source.
        row: Of an upsert, the whole row: columns and values, or the bytes of a JSON object. It is validated by the
            table; what is not valid becomes a dead letter.
        key: Of a delete, whose it is: the key column's value, or a mapping that has the key columns. Of an upsert,
            the key that the row had before, where the source knows it; a key that changed takes the old row away.
        at: When it changed at the source, microseconds since the Unix epoch; None where that is not known.
        version: Grows with each change of a row; a change with a smaller one than the row has is passed over.
        origin: What finds it again, as "news.articles@0/16B3748"; dead letters are told apart by it.
        source: Where the document came from, as a person would follow it: a URL or a path. It is in search hits.
        raw: The original bytes for a dead letter; empty where the row says it all.
        trusted: Whether the text is the operator's own; text from outside is labelled up to the prompt.
    """

    op: Op
    row: Mapping[str, Any] | bytes | None = None
    key: Any = None
    at: int | None = None
    version: int | None = None
    origin: str = ""
    source: str = ""
    raw: bytes = b""
    trusted: bool = False
