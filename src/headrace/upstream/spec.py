"""One model server, as it is declared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from headrace.errors import ConfigError
from headrace.units import SECOND, duration

URLS_VARIABLE = "HEADRACE_UPSTREAMS"
KEY_FILE_VARIABLE = "HEADRACE_UPSTREAM_KEY_FILE"
_MOST = 64
_LIMITS = ("connect", "first_byte", "between", "total")


@dataclass(frozen=True)
class Upstream:
    """A server that answers `POST /v1/chat/completions` as OpenAI documents it.

    Args:
        url: Up to and with its ``/v1``.
        model: The model to ask it for; None asks for the one that the client named. Servers of one model stand in for
            each other.
        key_env: The environment variable that holds its API key.
        key_file: The file that holds it. The key itself is never part of a declaration, and is shown nowhere.
        concurrent: The most requests that it is given at a time.
        connect: How long a connection may take.
        first_byte: How long it may think before its answer begins.
        between: How long an answer may pause.
        total: How long an answer may take.
        health: Asked by GET every few seconds: from the host's root if it begins with "/", else below `url`. None: not.

    Raises:
        ConfigError: The URL or a limit cannot be.
    """

    url: str
    model: str | None = None
    key_env: str | None = None
    key_file: str | None = None
    concurrent: int = 32
    connect: str | timedelta | float = field(default="3s", repr=False)
    first_byte: str | timedelta | float = field(default="60s", repr=False)
    between: str | timedelta | float = field(default="30s", repr=False)
    total: str | timedelta | float = field(default="5m", repr=False)
    health: str | None = field(default="models", repr=False)

    def __post_init__(self) -> None:
        parts = _parts(self.url)
        if parts is None or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
            raise ConfigError(
                f"expected an upstream's URL such as http://127.0.0.1:8000/v1, found {_shown(self.url)!r}"
            )
        if self.health is not None and not _is_plain(self.health):
            raise ConfigError(f"{_shown(self.url)}: expected health to be a path, found {self.health!r}")
        if parts.username or parts.password:
            raise ConfigError(
                f"expected an upstream's URL without a password, found one in {_shown(self.url)!r}; "
                "name the variable or file that holds the key with key_env= or key_file="
            )
        if not 1 <= self.concurrent <= 10_000:
            raise ConfigError(f"{self.url}: expected concurrent from 1 to 10,000, found {self.concurrent!r}")
        for name in _LIMITS:
            duration(getattr(self, name))

    def seconds(self, name: str) -> float:
        """A limit: "connect", "first_byte", "between" or "total"."""
        return duration(getattr(self, name)) / SECOND

    @property
    def endpoint(self) -> str:
        """Where completions are asked for."""
        return self.url.rstrip("/") + "/chat/completions"

    @property
    def health_url(self) -> str | None:
        """What a health check asks for, or None."""
        if self.health is None:
            return None
        if self.health.startswith("/"):
            parts = urlsplit(self.url)
            return urlunsplit((parts.scheme, parts.netloc, self.health, "", ""))
        return f"{self.url.rstrip('/')}/{self.health}"

    def key(self, environ: Mapping[str, str] = os.environ) -> str:
        """The API key; empty if there is none.

        Raises:
            ConfigError: The variable or file that was named does not hold one.
        """
        if self.key_env is not None:
            found, where = environ.get(self.key_env, ""), f"the variable {self.key_env}"
        elif self.key_file is not None:
            where = f"the file {self.key_file!r}"
            try:
                found = Path(self.key_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{self.url}: expected a key in {where}, found {type(error).__name__}") from error
        else:
            return ""
        if not found or not found.isascii() or not found.isprintable() or " " in found:
            raise ConfigError(f"{self.url}: expected {where} to hold a key of printable ASCII, found none")
        return found


def read(text: str, *, key_file: str | None = None) -> Upstream:
    """An upstream from a line such as ``http://127.0.0.1:8000/v1?model=small&concurrent=8``.

    Raises:
        ConfigError: It is not one.
    """
    parts = _parts(text.strip())
    if parts is None:
        raise ConfigError(f"expected an upstream's URL such as http://127.0.0.1:8000/v1, found {_shown(text)!r}")
    options = dict(parse_qsl(parts.query))
    unknown = set(options) - {"model", "concurrent", "key_env", "key_file", "health", *_LIMITS}
    if unknown:
        raise ConfigError(
            f"{_shown(text)}: expected model, concurrent, key_env, key_file, health, "
            f"{', '.join(_LIMITS)}, found {sorted(unknown)}"
        )
    concurrent = options.pop("concurrent", "32")
    if not concurrent.isdigit():
        raise ConfigError(f"{_shown(text)}: expected concurrent= to be a number, found {concurrent!r}")
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", parts.fragment))
    if key_file and "key_env" not in options:
        options.setdefault("key_file", key_file)
    return Upstream(url, concurrent=int(concurrent), **options)


def from_environment(environ: Mapping[str, str] = os.environ) -> tuple[Upstream, ...]:
    """The upstreams of HEADRACE_UPSTREAMS, divided by blanks or commas; each with HEADRACE_UPSTREAM_KEY_FILE.

    Raises:
        ConfigError: One of them is none.
    """
    texts = environ.get(URLS_VARIABLE, "").replace(",", " ").split()
    if len(texts) > _MOST:
        raise ConfigError(f"expected at most {_MOST} upstreams in {URLS_VARIABLE}, found {len(texts)}")
    return tuple(read(text, key_file=environ.get(KEY_FILE_VARIABLE)) for text in texts)


def _is_plain(text: str) -> bool:
    """Whether it may stand in the line of a request: printable ASCII without a blank."""
    return text.isascii() and text.isprintable() and " " not in text


def _parts(url: str) -> SplitResult | None:
    """The parts of a URL; None if it is none, or has no host or a port that cannot be."""
    try:
        parts = urlsplit(url)
        sane = _is_plain(url) and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        return None
    return parts if sane else None


def _shown(url: str) -> str:
    """A URL without what may be a secret."""
    origin, _, rest = url.partition("?")[0].partition("#")[0].partition("://")
    return f"{origin}://{rest.rpartition('@')[2]}" if rest else origin.rpartition("@")[2]
