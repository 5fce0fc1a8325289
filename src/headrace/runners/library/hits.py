"""What a search gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found.

    Attributes:
        text: What it says.
        score: The higher the better; of this search only.
        document: The key of its document, as a text.
        chunk: Its id.
        as_of: When the document last changed.
        age: Seconds since then.
        source: Where the document came from, as far as that is known.
        title: The document's.
        headings: What it stands under, from the outermost.
        kind: The type of the document.
        columns: What the document is filtered by.
        start: Where the chunk begins in the document's clean text, in characters; -1 where that is not known.
        end: Where it ends.
        trusted: Whether the text is the operator's own.
    """

    text: str
    score: float
    document: str
    chunk: str
    as_of: datetime
    age: float
    source: str
    title: str
    headings: tuple[str, ...]
    kind: str
    columns: Mapping[str, Any]
    start: int
    end: int
    trusted: bool
