"""What a read over HTTP may ask for, from a query or from a JSON body: `after`, `now`, `max_age`, `timeout`.

Both ways in give text or numbers and end in the same arguments of `live.read`, so that a read means the same however
it was asked. A wait is bounded by the server as well as by the caller: each holds a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from headrace.errors import ConfigError, InputError, nearest
from headrace.serving.token import Token
from headrace.units import SECOND, duration, from_micros, to_micros

LONGEST_WAIT = 60.0
DEFAULT_WAIT = 10.0
_LONGEST_AGE = 1e9
READ_OPTIONS = ("after", "now", "max_age", "timeout")
"""The names, in the order of the documentation."""


class ReadOptions:
    """The keyword arguments of a read, and whether it may have to wait."""

    __slots__ = ("after", "max_age", "now", "timeout")

    def __init__(self, given: Mapping[str, Any]) -> None:
        """
        Args:
            given: Values by name, as text or as JSON has them; None is as good as absent.

        Raises:
            InputError: One of them is not what it should be.
        """
        after, moment, age = given.get("after"), given.get("now"), given.get("max_age")
        self.after: Token | None = None if after is None else _token(after)
        self.now: datetime | None = None if moment is None else _moment(moment)
        self.max_age: float | None = None if age is None else _seconds("max_age", age, 1e-6)
        self.timeout = _timeout(given.get("timeout"))

    @property
    def may_wait(self) -> bool:
        """Whether the answer may have to be waited for: such a read must not run on the event loop."""
        return self.after is not None or self.max_age is not None

    def arguments(self, timeout: float) -> dict[str, Any]:
        """The keyword arguments of `live.read`, or without `max_age` those of `live.read_many`."""
        given = {"after": self.after, "now": self.now, "timeout": timeout}
        return given if self.max_age is None else given | {"max_age": self.max_age}


def from_query(query: bytes, known: tuple[str, ...] = READ_OPTIONS) -> dict[str, str]:
    """A query string's values by name.

    Raises:
        InputError: It is not text, or names something that is not `known` (a misspelt option is not ignored).
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise InputError(
            f"expected a query string of percent-encoded UTF-8, found one that is not ({error})"
        ) from error
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise InputError(f"expected a known query parameter, found {name!r}; {nearest(name, known)}")
        if name in values:
            raise InputError(f"expected the query parameter {name!r} once, found it twice")
        values[name] = value
    return values


def whole_number(name: str, text: str | None, default: int, least: int, most: int) -> int:
    """A query's whole number within bounds.

    Raises:
        InputError: It is not one.
    """
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    raise InputError(f"expected {name} to be a whole number from {least:,} to {most:,}, found {text[:60]!r}")


def _token(value: Any) -> Token:
    if not isinstance(value, str):
        raise InputError(f"expected after to be the token of a push, as text, found {value!r}")
    return Token.parse(value)


def _moment(value: Any) -> datetime:
    number = _number(value)
    try:
        if number is not None:
            return from_micros(round(number * SECOND))
        if isinstance(value, str):
            # A plus sign that was not percent-encoded arrives as a blank, and only an offset has one there.
            text = value.replace(" ", "+") if "T" in value else value
            return from_micros(to_micros(datetime.fromisoformat(text)))
    except (ValueError, OverflowError):
        pass
    raise InputError(
        f'expected now to be an ISO 8601 time such as "2026-01-31T12:00:00Z" or seconds since 1970, found {value!r}'
    )


def _seconds(name: str, value: Any, least: float) -> float:
    seconds = _number(value)
    if seconds is None and isinstance(value, str):
        try:
            seconds = duration(value) / SECOND
        except ConfigError:
            seconds = None
    if seconds is None or not least <= seconds < _LONGEST_AGE:
        raise InputError(
            f'expected {name} to be a duration such as "5s" or a number of seconds from {least:g}, found {value!r}'
        )
    return seconds


def _timeout(value: Any) -> float:
    if value is None:
        return DEFAULT_WAIT
    seconds = _seconds("timeout", value, 0)
    if seconds > LONGEST_WAIT:
        raise InputError(
            f"expected a timeout of at most {LONGEST_WAIT:g} seconds, found {seconds:g}; wait in several reads"
        )
    return seconds


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
