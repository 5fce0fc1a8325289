"""The URL of a Redis or Valkey: one server, a cluster, or one found through sentinels.

    redis://[user[:password]@]host[:port][/db][?option=…]         rediss:// with TLS
    redis+cluster://host:port,host:port                           any of the cluster's nodes
    redis+sentinel://host:port,host:port/service[/db]             the sentinels, and the name they know the server by

`valkey` for `redis` means the same. Whoever reads a message or a log sees the URL as `shown`, without credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

from headrace.errors import ConfigError, nearest
from headrace.units import SECOND, duration

Mode = Literal["single", "cluster", "sentinel"]
_PORT, _SENTINEL_PORT = 6379, 26379
# Of each option: what it is for.
OPTIONS = {
    "timeout": "how long to wait for the server",
    "connections": "how many connections may read at once",
    "password_file": "a file whose first line is the password",
    "ca": "a file of certificates to trust (TLS)",
    "cert": "the client's certificate (TLS)",
    "key": "the key of the client's certificate (TLS)",
    "sentinel_username": "the user at the sentinels",
    "sentinel_password_file": "a file whose first line is the password at the sentinels",
}
TIMEOUT = "1s"
CONNECTIONS = 16


@dataclass(frozen=True, repr=False)
class Target:
    """Where the server is and how to speak to it.

    Attributes:
        hosts: One, or any of a cluster's nodes, or the sentinels.
        service: What the sentinels call the server.
        timeout: Seconds to wait for a connection, and for an answer.
        connections: How many connections may read at once.
        shown: The URL without credentials and options.
    """

    mode: Mode
    hosts: tuple[tuple[str, int], ...]
    db: int
    service: str
    username: str | None
    password: str | None
    sentinel_username: str | None
    sentinel_password: str | None
    tls: Mapping[str, Any] | None
    timeout: float
    connections: int
    shown: str

    def __repr__(self) -> str:
        return f"Target({self.shown})"


def parse(url: str) -> Target:
    """Reads a URL.

    Raises:
        ConfigError: It is none, or an option is unknown or wrong.
    """
    scheme, _, rest = url.partition("://")
    server, _, kind = scheme.lower().partition("+")
    mode: Any = kind or "single"
    rest, _, query = rest.partition("?")
    address, _, path = rest.partition("/")
    credentials, _, listed = address.rpartition("@")
    shown = f"{scheme}://{listed}" + (f"/{path}" if path else "")
    if server not in ("redis", "rediss", "valkey", "valkeys") or mode not in ("single", "cluster", "sentinel"):
        raise ConfigError(f"expected a URL such as redis://host:6379/0 or redis+cluster://host:7000, found {shown}")
    options = _options(query, shown)
    hosts = _hosts(listed, mode, shown)
    service, db = _path(path, mode, shown)
    user, _, password = credentials.partition(":")
    secret = _secret(options, "password_file") or unquote(password) or None
    return Target(
        mode=mode,
        hosts=hosts,
        db=db,
        service=service,
        username=unquote(user) or None,
        password=secret,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=_secret(options, "sentinel_password_file"),
        tls=_tls(options, server in ("rediss", "valkeys"), shown),
        timeout=duration(options.get("timeout", TIMEOUT)) / SECOND,
        connections=_number(options.get("connections", str(CONNECTIONS)), 1, 10_000, "connections"),
        shown=shown,
    )


def _options(query: str, shown: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(f"{shown}: no option {name!r}; {nearest(name, OPTIONS)}")
    return options


def _hosts(listed: str, mode: Mode, shown: str) -> tuple[tuple[str, int], ...]:
    default = _SENTINEL_PORT if mode == "sentinel" else _PORT
    hosts = []
    for one in listed.split(",") if listed else ["localhost"]:
        host, colon, port = one.rpartition(":")
        if not colon or one.endswith("]"):
            host, port = one, str(default)
        if not host:
            raise ConfigError(f"{shown}: expected host or host:port, found {one!r}")
        hosts.append((host.strip("[]"), _number(port, 1, 65_535, "the port")))
    if mode == "single" and len(hosts) > 1:
        raise ConfigError(
            f"{shown}: expected one host, found {len(hosts)}; for a cluster write redis+cluster://, for sentinels "
            "redis+sentinel://"
        )
    return tuple(hosts)


def _path(path: str, mode: Mode, shown: str) -> tuple[str, int]:
    parts = [unquote(part) for part in path.split("/") if part]
    if mode == "sentinel":
        if not parts:
            raise ConfigError(f"{shown}: expected the service's name, as in redis+sentinel://host:26379/mymaster")
        service, parts = parts[0], parts[1:]
    else:
        service = ""
    if len(parts) > 1 or (mode == "cluster" and parts not in ([], ["0"])):
        what = "a cluster has database 0 only" if mode == "cluster" else "expected at most the database's number"
        raise ConfigError(f"{shown}: {what}, found {path!r}")
    return service, _number(parts[0], 0, 1_000_000, "the database") if parts else 0


def _number(text: str, low: int, high: int, what: str) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise ConfigError(f"expected {what} as a whole number from {low} to {high}, found {text!r}")
    return int(text)


def _secret(options: Mapping[str, str], name: str) -> str | None:
    if name not in options:
        return None
    try:
        lines = Path(options[name]).read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"{name}={options[name]}: expected a file that can be read: {error.strerror}") from None
    return lines[0] if lines else None


def _tls(options: Mapping[str, str], wanted: bool, shown: str) -> Mapping[str, Any] | None:
    files = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
    given = {files[name]: options[name] for name in files if name in options}
    if given and not wanted:
        raise ConfigError(f"{shown}: {', '.join(sorted(set(files) & set(options)))} need TLS; write rediss://")
    for path in given.values():
        if not Path(path).is_file():
            raise ConfigError(f"{shown}: expected a file of certificates or a key, found none at {path}")
    return {"ssl": True, "ssl_cert_reqs": "required", **given} if wanted else None
