"""What all servers that keep vectors have in common: their URLs, shown without secrets, and what they refuse.

scheme://[user[:password]@]host[:port][/path][?option=…]
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import parse_qsl, unquote

from headrace.errors import ConfigError, nearest
from headrace.stores.vectors.base import Point
from headrace.units import SECOND, duration

T = TypeVar("T")
_YES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True, repr=False)
class Address:
    """A URL that has been read.

    Attributes:
        path: What follows the host, with its first slash; as it was written.
        options: Every one is known.
        shown: The URL without credentials and options.
    """

    scheme: str
    host: str
    port: int | None
    user: str | None
    password: str | None
    path: str
    options: Mapping[str, str]
    shown: str

    def __repr__(self) -> str:
        return f"Address({self.shown})"

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """An option that is a whole number.

        Raises:
            ConfigError: It is none, or out of range.
        """
        text = self.options.get(name, str(default))
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ConfigError(f"{self.shown}: expected {name}= as a whole number from {low} to {high}, found {text!r}")
        return int(text)

    def seconds(self, name: str, default: str) -> float:
        """An option that is a duration, in seconds."""
        return duration(self.options.get(name, default)) / SECOND

    def flag(self, name: str, default: bool) -> bool:
        """An option that is true or false.

        Raises:
            ConfigError: It is neither.
        """
        text = self.options.get(name, str(default)).lower()
        if text not in _YES:
            raise ConfigError(f"{self.shown}: expected {name}=true or {name}=false, found {text!r}")
        return _YES[text]

    def choice(self, name: str, *choices: str) -> str:
        """An option that is one of a few words, the first by default.

        Raises:
            ConfigError: It is another.
        """
        text = self.options.get(name, choices[0])
        if text not in choices:
            raise ConfigError(f"{self.shown}: expected {name}= as {' or '.join(choices)}, found {text!r}")
        return text

    def secret(self, option: str, default: str | None = None) -> str | None:
        """What the environment holds under the name that an option gives; None where neither is given.

        Args:
            option: The option's name.
            default: The variable that is looked at where the option is not given; it need not be there.

        Raises:
            ConfigError: The option names a variable that is not set.
        """
        name = self.options.get(option)
        if name is None:
            return os.environ.get(default) if default else None
        if name not in os.environ:
            raise ConfigError(f"{self.shown}: expected the key in the environment as {option} says; set {name}")
        return os.environ[name]


def parse(url: str, known: Mapping[str, str] | frozenset[str], *, slashes: bool = True) -> Address:
    """Reads a URL.

    Args:
        known: The names of the options that it may have.
        slashes: Whether a host is expected after "://"; else all behind the scheme is the path.

    Raises:
        ConfigError: It is none, or an option is unknown.
    """
    scheme, _, rest = url.partition(":")
    rest, _, query = rest.partition("?")
    credentials = listed = ""
    path = rest
    if rest.startswith("//") and slashes:
        authority, slash, path = rest[2:].partition("/")
        credentials, _, listed = authority.rpartition("@")
        path = slash + path
    elif slashes:
        raise ConfigError(f"expected a URL such as {scheme}://host:port, found {scheme}:{rest.rpartition('@')[2]}")
    shown = f"{scheme}://{listed}{path}" if listed or slashes else f"{scheme}:{path}"
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in known:
            raise ConfigError(f"{shown}: no option {name!r}; {nearest(name, known)}")
    host, colon, port = listed.rpartition(":")
    if not colon or listed.endswith("]"):
        host, port = listed, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ConfigError(f"{shown}: expected a port from 1 to 65535, found {port!r}")
    user, _, password = credentials.partition(":")
    return Address(
        scheme=scheme.lower(),
        host=host.strip("[]"),
        port=int(port) if port else None,
        user=unquote(user) or None,
        password=unquote(password) or None,
        path=path,
        options=options,
        shown=shown,
    )


def scrubbed(error: BaseException, *secrets: str | None) -> str:
    """What an error says, on one line, cut and without the secrets."""
    text = " ".join(str(error).split()) or type(error).__name__
    for secret in secrets:
        text = text.replace(secret, "…") if secret else text
    return text[:300]


def fitting(points: Sequence[Point], dimension: int, name: str) -> None:
    """Refuses points whose vectors an index cannot hold.

    Raises:
        ConfigError: The embedder is another than that of the index.
    """
    for point in points:
        if point.vector.shape != (dimension,):
            raise ConfigError(
                f"the index {name!r} holds vectors of {dimension} numbers, found one of the shape "
                f"{point.vector.shape}; see that it is opened with the embedder's dimension"
            )


def cut(text: str, most: int) -> str:
    """The beginning of a text: what of it fits into so many bytes of UTF-8, whole letters only."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= most else data[:most].decode("utf-8", "ignore")


def slices(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The things in order, so many at a time."""
    return (things[start : start + size] for start in range(0, len(things), size))


def retried(
    call: Callable[[], T], again: Callable[[Exception], float | None], tries: int, deadline: float, breath: float = 0.1
) -> T:
    """What a call answers that may be made again, made again after longer and longer breaths.

    Args:
        again: Of an error, the seconds to wait at least before the next try; None if that would not help.
        tries: How many calls at most.
        deadline: When to give up, by `time.monotonic()`.
        breath: Seconds before the second call; twice as many before each further one, and up to half of them less, so
            that many who were refused at once do not come back at once.
    """
    for turn in range(1, tries + 1):
        try:
            return call()
        except Exception as error:
            least = again(error)
            wait = max(breath * 2 ** (turn - 1) * random.uniform(0.5, 1), least or 0)
            if least is None or turn == tries or time.monotonic() + wait > deadline:
                raise
            time.sleep(wait)
    raise AssertionError("unreachable")


class Shared(Generic[T]):
    """One client for all indexes of a store: made for the first of them, and closed after the last."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make, self._close = make, close
        self._lock = threading.Lock()
        self._users = 0
        self._made: T | None = None

    def take(self) -> T:
        """The client, for one more user."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            self._users += 1
            return self._made

    def give(self) -> None:
        """One user less."""
        with self._lock:
            self._users -= 1
            made = self._made
            if self._users or made is None:
                return
            self._made = None
            self._close(made)
