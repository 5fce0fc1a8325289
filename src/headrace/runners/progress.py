"""How far things have come: a stream, and whether positions are past others."""

from __future__ import annotations

from typing import Any


class StreamState:
    """How far a stream has come: arrivals, the newest event time, and counts since the start."""

    def __init__(self, seq: int = 0, newest: int | None = None) -> None:
        self.seq = seq
        self.newest = newest
        self.rows = 0
        self.late = 0
        self.batches = 0

    def advance(self, rows: int, newest: int) -> None:
        """Takes a batch of so many rows into account."""
        self.seq += rows
        self.rows += rows
        self.newest = newest
        self.batches += 1


def reached(seen: Any, wanted: Any) -> bool:
    """Whether positions are at or past others: numbers by size, mappings key by key."""
    if isinstance(wanted, dict):
        return isinstance(seen, dict) and all(key in seen and reached(seen[key], wanted[key]) for key in wanted)
    if isinstance(wanted, int) and isinstance(seen, int):
        return seen >= wanted
    return bool(seen == wanted)
