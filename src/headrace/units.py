"""Durations and event time: both are int64 microseconds, event time since the Unix epoch in UTC.

One unit throughout: no float seconds that lose a microsecond past 2^53 / 10^6, and no time zones inside.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from headrace.errors import ConfigError

MICROSECOND = 1
MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a Python datetime can hold: the years 1 to 9999. A wrong unit (milliseconds read as seconds) lands outside.
MIN_TIME = -62_135_596_800 * SECOND
MAX_TIME = 253_402_300_800 * SECOND - 1

_UNITS = {
    "us": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
    "d": DAY,
    "w": WEEK,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)")

# Lengths that people read clocks by; the tile of a window is the one nearest to a sixtieth of it.
ROUND = tuple(
    [n * MILLISECOND for n in (1, 2, 5, 10, 20, 50, 100, 200, 500)]
    + [n * SECOND for n in (1, 2, 5, 10, 15, 20, 30)]
    + [n * MINUTE for n in (1, 2, 5, 10, 15, 20, 30)]
    + [n * HOUR for n in (1, 2, 3, 4, 6, 12)]
    + [n * DAY for n in (1, 2, 7)]
)


def duration(text: str | timedelta | int | float, *, zero: bool = False) -> int:
    """Microseconds of a duration.

    Args:
        text: "250ms", "10m", "1h30m", "7d", a `timedelta`, or a number of seconds.
        zero: Whether it may be 0.

    Raises:
        ConfigError: Not a duration, or less than it may be.
    """
    if isinstance(text, timedelta):
        micros = text // timedelta(microseconds=1)
    elif isinstance(text, bool):
        raise ConfigError(f'expected a duration such as "10m", found {text!r}')
    elif isinstance(text, int | float):
        micros = round(text * SECOND)
    elif isinstance(text, str):
        parts = _PART.findall(text)
        if not parts or _PART.sub("", text).strip():
            raise ConfigError(
                f'expected a duration such as "250ms", "10m", "1h30m" or "7d", found {text!r}; '
                f"the units are {', '.join(_UNITS)}"
            )
        micros = round(sum(float(number) * _UNITS[unit] for number, unit in parts))
    else:
        raise ConfigError(f'expected a duration such as "10m", found {text!r}')
    if micros < (0 if zero else 1):
        raise ConfigError(f"expected a duration {'of at least' if zero else 'greater than'} 0, found {text!r}")
    return micros


def format_duration(micros: int) -> str:
    """The shortest text that `duration` reads back: 5_400_000_000 is "1h30m"."""
    if micros == 0:
        return "0s"
    parts = []
    for unit, size in sorted(_UNITS.items(), key=lambda item: -item[1]):
        count, micros = divmod(micros, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def round_tile(over: int) -> int:
    """The default tile of a window: the round length nearest, as a ratio, to a sixtieth of it."""
    target = over / 60
    return min(ROUND, key=lambda length: max(length / target, target / length))


def to_micros(moment: datetime) -> int:
    """Event time of a datetime; one without a time zone is read as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The UTC datetime of an event time."""
    return EPOCH + timedelta(microseconds=micros)
