"""When to try again: backoff with jitter, a budget of retries, and when a second attempt hedges a slow first one.

A retry helps when one server fails and harms when all do: then every request becomes several. So retries are paid from
a budget that requests fill by a part of themselves and time by a trickle: a failure of everything costs a fifth more
requests, not three times as many. No I/O; the moment and the randomness are given.

Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015; Dean and Barroso, "The Tail at Scale",
CACM 2013, for hedging after the 95th percentile.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_DELAY, LONGEST_DELAY = 0.1, 4.0
LONGEST_RETRY_AFTER = 60.0
_SAMPLES = 128
_LEAST_SAMPLES = 20
_LEAST_HEDGE = 0.05


def backoff(attempt: int, random: float) -> float:
    """Seconds before attempt `attempt` + 1; `random` from 0 to 1."""
    most = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempt, 16))
    return most * random


def retry_after(text: str | None, now: datetime | None = None) -> float | None:
    """The seconds of a Retry-After header, which is a number or a date; None if it is neither."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else None


class Budget:
    """Of retries, or of hedges.

    Args:
        most: The most that can be saved up.
        share: What a request adds.
        trickle: What a second adds.
    """

    def __init__(self, most: float = 100.0, share: float = 0.2, trickle: float = 10.0) -> None:
        self._most, self._share, self._trickle = most, share, trickle
        self._left = most
        self._at: float | None = None

    def request(self, now: float) -> None:
        """A request comes."""
        self._add(now, self._share)

    def take(self, now: float) -> bool:
        """Whether one more may be sent; if so, it is paid."""
        self._add(now, 0.0)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def _add(self, now: float, more: float) -> None:
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._left = min(self._most, self._left + passed * self._trickle + more)


class Waits:
    """How long answers took to begin, of late."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_SAMPLES)

    def add(self, seconds: float) -> None:
        """One more."""
        self._last.append(seconds)

    def hedge_after(self) -> float | None:
        """Their 95th percentile; None while there are too few to say."""
        if len(self._last) < _LEAST_SAMPLES:
            return None
        ordered = sorted(self._last)
        return max(_LEAST_HEDGE, ordered[int(0.95 * (len(ordered) - 1))])
