"""Who may ask: a bearer key, or nobody but this machine.

Two rules. A server that others can reach needs a key: it does not start without one. A server without a key listens
on loopback only, and there the danger is the user's own browser: a page from elsewhere can reach 127.0.0.1 through a
name of its own that it makes point there (DNS rebinding), or by simply posting to it (request forgery). So without a
key the `Host` must be a loopback name and an `Origin`, if there is one, must be that same host. With a key neither
trick helps an attacker, who does not have it.

Keys are compared in constant time and are never logged, shown in a repr or put in an error message.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path

from headrace.errors import ConfigError

KEY_VARIABLE = "HEADRACE_API_KEY"
FILE_VARIABLE = "HEADRACE_API_KEY_FILE"
# 16 characters of a random alphabet are over 90 bits; what people type is far less, and then length is all there is.
_SHORTEST = 16
_HOSTS_REMEMBERED = 64
_ADVICE = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"

Headers = Iterable[tuple[bytes, bytes]]


class Refusal(Enum):
    """Why a request is refused; the value is what to say about it."""

    KEY = 'expected the header "Authorization: Bearer KEY" with this server\'s API key, found none or another'
    HOST = (
        "expected a Host header that names this machine (localhost or 127.0.0.1), found another name; "
        "to be reached under other names, start the server with an API key"
    )
    ORIGIN = (
        "expected a request from this server's own pages, found an Origin elsewhere; "
        "to be called from other pages, start the server with an API key"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: a loopback address or the name localhost."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):  # reserved for loopback by RFC 6761
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def read_api_key(file: Path | str | None = None, *, environ: Mapping[str, str] = os.environ) -> str | None:
    """The API key: the file's, else the environment's; None if there is none.

    Args:
        file: A file that holds it and nothing else, as secrets are mounted; blanks at its ends do not count.
        environ: Where HEADRACE_API_KEY_FILE and HEADRACE_API_KEY are looked up.

    Raises:
        ConfigError: The file cannot be read, or the key cannot be sent in a header.
    """
    named = file or environ.get(FILE_VARIABLE)
    if named:
        return _from_file(Path(named))
    value = environ.get(KEY_VARIABLE)
    return None if value is None else _checked(value, KEY_VARIABLE)


def check_binding(host: str, key: str | None) -> None:
    """Hold the rule that a server which others can reach has a key.

    Raises:
        ConfigError: `host` is more than loopback and there is no key, or one that can be guessed.
    """
    if is_loopback(host):
        return
    if key is None:
        raise ConfigError(
            f"expected an API key to listen on {host!r}, where other machines can reach the server, found none; "
            f"set {KEY_VARIABLE} ({_ADVICE}) or listen on 127.0.0.1"
        )
    if len(key) < _SHORTEST:
        raise ConfigError(
            f"expected an API key of at least {_SHORTEST} characters to listen on {host!r}, found {len(key)}; {_ADVICE}"
        )


class Guard:
    """Says whether a request may be answered, from its headers alone."""

    def __init__(self, key: str | None, allowed_hosts: Iterable[str] = ()) -> None:
        """
        Args:
            key: The API key, or None for loopback only.
            allowed_hosts: Further names that a `Host` may have when there is no key (a proxy on this machine).
        """
        self._expected = None if key is None else _checked(key, "the API key given").encode("ascii")
        self._allowed = {name.lower() for name in allowed_hosts}
        self._known: set[bytes] = set()

    @property
    def has_key(self) -> bool:
        """Whether requests need a key."""
        return self._expected is not None

    def refuses(self, headers: Headers) -> Refusal | None:
        """Why a request with these headers is refused, or None if it is not."""
        return self._check_host(headers) if self._expected is None else self._check_key(headers, self._expected)

    def _check_key(self, headers: Headers, expected: bytes) -> Refusal | None:
        for name, value in headers:
            if name == b"authorization":
                given = value[7:].strip() if value[:7].lower() == b"bearer " else b""
                return None if hmac.compare_digest(given, expected) else Refusal.KEY
        return Refusal.KEY

    def _check_host(self, headers: Headers) -> Refusal | None:
        host = origin = None
        for name, value in headers:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
        if host is None or not (host in self._known or self._is_ours(host)):
            return Refusal.HOST
        if origin is not None and origin.partition(b"://")[2].lower() != host.lower():
            return Refusal.ORIGIN
        return None

    def _is_ours(self, host: bytes) -> bool:
        name = host.decode("latin-1").lower()
        name = name.partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        ours = is_loopback(name) or name in self._allowed
        if ours and len(self._known) < _HOSTS_REMEMBERED:
            self._known.add(host)
        return ours


def _from_file(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected an API key in the file {str(path)!r}, found {type(error).__name__}") from error
    return _checked(text.strip(), f"the file {str(path)!r}")


def _checked(key: str, where: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        # The key itself must not be shown: a near miss is nearly a key.
        raise ConfigError(
            f"expected {where} to be printable ASCII without blanks, found {len(key)} characters "
            f"that are not; {_ADVICE}"
        )
    return key
