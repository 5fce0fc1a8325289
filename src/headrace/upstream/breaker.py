"""A circuit breaker: after enough failures in a row a server is left alone, and then tried with one request.

    closed ──(failures in a row)──▶ open ──(its time is over)──▶ half open ──success──▶ closed
                                     ▲                               │
                                     └────────────failure────────────┘   (and twice as long as before)

It does no I/O and reads no clock: the moment is given.

Source: Nygard, "Release It!", 2nd ed., ch. 5.
"""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half open"]


class Breaker:
    """Of one server.

    Args:
        failures: So many in a row open it.
        rest: Seconds that it then stays open; each time that the trial fails, twice as long.
        most: The longest that it stays open.
    """

    def __init__(self, failures: int = 5, rest: float = 1.0, most: float = 30.0) -> None:
        self._limit, self._first, self._most = failures, rest, most
        self._failed = 0
        self._rest = rest
        self._until: float | None = None
        self._trial = False

    def state(self, now: float) -> State:
        """What it is at this moment."""
        if self._until is None:
            return "closed"
        return "open" if now < self._until else "half open"

    def allows(self, now: float) -> bool:
        """Whether a request may be sent; half open, one at a time."""
        state = self.state(now)
        return state == "closed" or (state == "half open" and not self._trial)

    def opens_in(self, now: float) -> float:
        """Seconds until a request may be sent; 0 if it may."""
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def begin(self, now: float) -> None:
        """A request is sent."""
        self._trial = self._trial or self.state(now) == "half open"

    def success(self) -> None:
        """It was answered."""
        self._failed, self._rest, self._until, self._trial = 0, self._first, None, False

    def failure(self, now: float) -> None:
        """It failed, by the server's fault."""
        state = self.state(now)
        if state == "open":  # what was sent before it opened says nothing new
            return
        self._failed += 1
        if state == "half open":
            self._rest = min(2 * self._rest, self._most)
        if state == "half open" or self._failed >= self._limit:
            self._until = now + self._rest
            self._trial = False

    def abandon(self) -> None:
        """It was given up by us, which says nothing about the server."""
        self._trial = False
