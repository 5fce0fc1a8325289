"""What an enrichment has done and what it has before it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """Counts since the start; written by one thread, read by any.

    Attributes:
        events: Events that came out.
        calls: Calls that were answered.
        cached: Events that were answered by what was kept, or by a call that was under way.
        wrong: Answers that could not be used.
        failed: Events that became dead letters.
        read: Tokens that models read.
        written: Tokens that they wrote.
        cost: In the currency of the prices.
        problem: What is in the way for now; it is tried again.
        pause: What the next call waits for: the rate, or a budget.
        failure: Why it has stopped for good.
    """

    events: int = 0
    calls: int = 0
    cached: int = 0
    wrong: int = 0
    failed: int = 0
    read: int = 0
    written: int = 0
    cost: float = 0.0
    problem: str | None = None
    pause: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class EnrichmentFigures:
    """One enrichment at a moment; counts are since the start.

    Attributes:
        waiting: Events that were taken in and have not come out.
        running: Calls that are under way.
        lag: Seconds that the oldest of those that wait has waited.
    """

    base: str = ""
    events: int = 0
    calls: int = 0
    cached: int = 0
    wrong: int = 0
    failed: int = 0
    read: int = 0
    written: int = 0
    cost: float = 0.0
    waiting: int = 0
    running: int = 0
    lag: float = 0.0
    problem: str | None = None
    pause: str | None = None
