"""What URLs of servers have in common: a login that may come from the environment, and options, told once each.

    mongodb://${USER}:${PASSWORD}@host:27017/news?collection=articles

`${NAME}` stands for an environment variable; it is put in after the URL has been taken apart, so its value may hold any
character. A secret is in no text of an error: `Login.hide` takes it out of what others say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from headrace.errors import ConfigError, nearest

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SIZE = re.compile(r"(\d{1,12})(|kB|MB|KiB|MiB|GiB)")
_UNITS = {"": 1, "kB": 1000, "MB": 1000**2, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class Login:
    """Who connects; a password of None was not given."""

    user: str = ""
    password: str | None = field(default=None, repr=False)

    @property
    def userinfo(self) -> str:
        """What stands before the host in a URL, with its '@'; empty without a user."""
        if not self.user:
            return ""
        return quote(self.user, "") + ("" if self.password is None else f":{quote(self.password, '')}") + "@"

    def hide(self, text: str) -> str:
        """A text of someone else's, without the password in any of the ways in which it can be written."""
        if self.password:
            for shown in {self.password, quote(self.password, ""), quote_plus(self.password), quote(self.password)}:
                text = text.replace(shown, "…")
        return text


@dataclass(frozen=True)
class ServerUrl:
    """A URL, taken apart: `hosts` as they were written, `path` decoded and without its first '/'."""

    scheme: str
    login: Login
    hosts: str
    path: str
    options: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str, given: Mapping[str, Any], schemes: Iterable[str], example: str) -> ServerUrl:
        """Take a URL apart.

        Args:
            given: Options beside the URL; they go before those in its query.
            schemes: Those that it may have.
            example: For messages.

        Raises:
            ConfigError: It is none; the message does not hold it, for it may hold a password.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ConfigError(f"expected a URL such as {example}: {error}") from None
        if parts.scheme.lower() not in set(schemes):
            raise ConfigError(f"expected a URL such as {example}, found one of the scheme {parts.scheme!r}")
        if parts.fragment:
            raise ConfigError(f"expected no '#' in a URL such as {example}; write %23 if it is part of a value")
        userinfo, _, hosts = parts.netloc.rpartition("@")
        # With an '@' past where a login ends, a password that was not percent-encoded may be anywhere.
        if "@" in parts.path or not hosts:
            raise ConfigError(
                f"expected a URL such as {example}, found one without a host; in a password, write %2F for '/', %3F "
                "for '?', %40 for '@' and %23 for '#', or ${NAME} for an environment variable"
            )
        user, colon, password = userinfo.partition(":")
        login = Login(expanded(unquote(user)), expanded(unquote(password)) if colon else None)
        path = expanded(unquote(parts.path.removeprefix("/")))
        return cls(parts.scheme.lower(), login, expanded(hosts), path, _options(parts.query, given))


def _options(query: str, given: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in found:
            raise ConfigError(f"expected the option {name!r} once, found it twice")
        found[name] = value
    found |= {name: _plain(value) for name, value in given.items()}
    return {name: expanded(value) for name, value in found.items()}


def _plain(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def expanded(text: str) -> str:
    """A text with each `${NAME}` replaced by the environment variable of that name.

    Raises:
        ConfigError: There is none.
    """

    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(f"a URL refers to the environment variable {found[1]}, which is not set")
        return os.environ[found[1]]

    return _VARIABLE.sub(variable, text)


def whole(options: Mapping[str, str], name: str, default: int, most: int) -> int:
    """An option that is a whole number from 1 to `most`."""
    text = options.get(name, str(default))
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise ConfigError(f"expected {name} to be a whole number from 1 to {most:,}, found {text!r}")
    return int(text)


def size(options: Mapping[str, str], name: str, default: int) -> int:
    """An option that is a number of bytes, such as '64MiB'; at most 1 GiB."""
    text = options.get(name, str(default))
    match = _SIZE.fullmatch(text)
    found = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < found <= 1 << 30:
        raise ConfigError(f"expected {name} to be a size such as '64MiB' or a number of bytes, found {text!r}")
    return found


def one_of(options: Mapping[str, str], name: str, known: tuple[str, ...], default: str) -> str:
    """An option that is one of some words; the default need not be one of them."""
    text = options.get(name, default)
    if name in options and text not in known:
        raise ConfigError(f"expected {name}={' or '.join(known)}, found {text!r}; {nearest(text, known)}")
    return text
