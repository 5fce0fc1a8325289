"""Every exception that Headrace raises on purpose, as one tree.

    HeadraceError
    ├── ConfigError               what was declared cannot work (found before anything starts)
    │   ├── SchemaError           a model cannot be a stream, or a column is unknown
    │   └── MissingDependencyError  an extra is not installed
    ├── InputError                what was sent cannot be used
    │   ├── DecodeError           bytes that are not the format they claim to be
    │   ├── UnknownNameError      no stream, view or tool of that name
    │   └── TooLargeError         past a stated limit
    ├── StaleError                fresh enough data did not come in time
    ├── StorageError              what holds the data cannot be read or written
    │   └── LockedError           another process has it
    ├── ClosedError               used after it was closed, or its engine has stopped
    └── RemoteError               a server answered with a problem, or did not answer

Each message says what was expected, what was found and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadraceError(Exception):
    """The root of the tree: `except hr.HeadraceError` catches all that Headrace raises on purpose."""


class ConfigError(HeadraceError):
    """What was declared cannot work; found when it is declared or checked, before anything starts."""


class SchemaError(ConfigError):
    """A model cannot be a stream's schema, or an expression names a column that is not there."""


class MissingDependencyError(ConfigError):
    """Something needs a package that is not installed; the message holds the line that mends it."""


class InputError(HeadraceError):
    """What was sent cannot be used as it is."""


class DecodeError(InputError):
    """Bytes that are not the format they claim to be, as a whole."""


class UnknownNameError(InputError):
    """No stream, view or tool has that name."""


class TooLargeError(InputError):
    """Past a stated limit of size."""


class StaleError(HeadraceError):
    """The freshness that a read asked for did not come within its time."""


class StorageError(HeadraceError):
    """The data directory, a store or a source cannot be reached; nothing was acknowledged that is not stored."""


class LockedError(StorageError):
    """Another process has the data directory open."""


class ClosedError(HeadraceError):
    """Used after `close()`, or the engine behind it has stopped."""


class RemoteError(HeadraceError):
    """A Headrace server answered with a problem, or did not answer.

    Attributes:
        status: The HTTP status, or 0 if there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them if none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}? Known: {', '.join(names)}"
    return f"known: {', '.join(names)}" if names else "none is declared"
