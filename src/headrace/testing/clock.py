"""A clock that moves only when it is told to, so that a test of time neither sleeps nor depends on the machine.

    clock = VirtualClock("2026-01-01T12:00:00Z")
    app = hr.App("test", clock=clock)
    …
    clock.advance("10m")                  # every trailing window is now ten minutes further on

A `now` that goes back is legal, since a machine's clock may: `set` takes any moment.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from headrace.errors import ConfigError
from headrace.units import MAX_TIME, MIN_TIME, duration, from_micros, to_micros

Moment = int | str | datetime


class VirtualClock:
    """`now` for an `hr.App`, in microseconds since the Unix epoch; any thread may read or move it.

    Args:
        start: Microseconds, a datetime (UTC if it has no time zone), or ISO 8601.

    Raises:
        ConfigError: Not a moment within the years 1 to 9999.
    """

    def __init__(self, start: Moment = 0) -> None:
        self._now = _micros(start)
        self._lock = threading.Lock()

    def now(self) -> int:
        """Microseconds since the Unix epoch."""
        return self._now

    def advance(self, by: str | timedelta | float) -> int:
        """Moves the clock on by a duration such as "10m", and returns the new `now`.

        Raises:
            ConfigError: Not a duration greater than 0, or past the year 9999.
        """
        with self._lock:
            self._now = _micros(self._now + duration(by))
            return self._now

    def set(self, moment: Moment) -> int:
        """Moves the clock to a moment, also back as a machine's clock may be; returns it in microseconds.

        Raises:
            ConfigError: Not a moment within the years 1 to 9999.
        """
        with self._lock:
            self._now = _micros(moment)
            return self._now

    def __repr__(self) -> str:
        return f"VirtualClock({from_micros(self._now).isoformat()})"


def _micros(moment: Moment) -> int:
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise ConfigError(
                f'expected a moment such as "2026-01-01T12:00:00Z" or microseconds since 1970, found {moment!r}'
            ) from None
    if isinstance(moment, datetime):
        return to_micros(moment)
    if isinstance(moment, bool) or not isinstance(moment, int) or not MIN_TIME <= moment <= MAX_TIME:
        raise ConfigError(
            f"expected microseconds since 1970 within the years 1 to 9999, a datetime or ISO 8601, found {moment!r}"
        )
    return moment
