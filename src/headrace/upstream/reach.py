"""The way to a server: its address, TLS, and the proxy that the environment names for it.

HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are read as other programs read them. Plain HTTP is asked of the proxy
by the whole URL, TLS goes through a tunnel (CONNECT), so that a proxy sees neither the key nor what is said.
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from headrace.errors import ConfigError

_HERE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Reach:
    """The way to a server.

    Attributes:
        host: The server's name.
        authority: What requests call it: with the port, if that is not the usual one.
        address: Where to connect to.
        tls: How to encrypt, or None.
        prefix: What stands before a request's path: the whole origin, for a proxy.
        headers: For the proxy.
        tunnel: The request that makes a tunnel, or None.
    """

    host: str
    authority: str
    address: tuple[str, int]
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    tunnel: bytes | None = field(default=None, repr=False)

    def target(self, path: str) -> str:
        """What a request line asks for."""
        return self.prefix + path


def reach(url: str) -> Reach:
    """The way to the server of a URL.

    Raises:
        ConfigError: It leads through a proxy that is not spoken to here.
    """
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    name = f"[{host}]" if ":" in host else host
    authority = name if port == (443 if secure else 80) else f"{name}:{port}"
    tls = _context() if secure else None
    proxy = _proxy(parts.scheme, host, port)
    if proxy is None:
        return Reach(host, authority, (host, port), tls)
    credentials = _credentials(proxy)
    address = (proxy.hostname or "", proxy.port or 80)
    if not secure:
        return Reach(host, authority, address, None, f"http://{authority}", credentials)
    lines = "".join(f"{label}: {value}\r\n" for label, value in ({"host": f"{name}:{port}"} | credentials).items())
    tunnel = f"CONNECT {name}:{port} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
    return Reach(host, authority, address, tls, tunnel=tunnel)


def _context() -> ssl.SSLContext:
    import httpx  # it takes half a second, and knows where a machine without certificates has some

    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ConfigError(
            f"expected SSL_CERT_FILE or SSL_CERT_DIR to name certificates, found {type(error).__name__}: {error}"
        ) from error


def _proxy(scheme: str, host: str, port: int) -> SplitResult | None:
    if host in _HERE:
        return None
    found = getproxies()
    text = found.get(scheme) or found.get("all")
    if not text or proxy_bypass(f"{host}:{port}") or proxy_bypass(host):
        return None
    try:
        proxy = urlsplit(text if "://" in text else f"http://{text}")
        why = "" if proxy.scheme == "http" else f"one of {proxy.scheme}://"
        why = why or ("" if proxy.hostname and proxy.port != 0 else "one without a host or a port that can be")
    except ValueError:  # its text is part of what may be a password
        why = "one that is no URL (of a password, write / as %2F, @ as %40)"
    if why:
        raise ConfigError(
            f"expected the proxy for {host} to be named as http://host:port, found {why}; "
            "change HTTPS_PROXY (HTTP_PROXY, ALL_PROXY), or name the host in NO_PROXY"
        )
    return proxy


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"proxy-authorization": f"Basic {base64.b64encode(pair).decode()}"}
