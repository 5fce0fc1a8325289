"""To whom a connection may go: addresses of the public internet, unless private ones are allowed.

A URL from a feed, a sitemap or a redirect is chosen by a stranger, and may name a machine that only we can reach
(server-side request forgery). A name is therefore resolved once, here, its addresses are judged, and the connection is
made to one that was judged: resolving again for the connection would let the name's owner answer otherwise the second
time (DNS rebinding). The request still carries the name, and a certificate is checked for it.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from headrace.errors import InputError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Networks that carry IPv4 inside: a translator of ours would turn them into our own private addresses.
_TRANSLATED = [
    ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
]
_TRIED = 4  # addresses of a name


class AddressError(InputError):
    """An address that may not be connected to."""


def is_public(address: str) -> bool:
    """Whether an address, as text, belongs to the public internet."""
    try:
        parsed: _Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if any(parsed in network for network in _TRANSLATED) or parsed.is_site_local:
            return False
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified)


class _Timed(httpcore.NetworkStream):
    """A stream on which nothing goes on for longer than its backend allows: a server may send a byte every second."""

    def __init__(self, stream: httpcore.NetworkStream, backend: Backend) -> None:
        self._stream = stream
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._backend.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secure = self._stream.start_tls(ssl_context, server_hostname, self._backend.left(timeout))
        return _Timed(secure, self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class Backend(httpcore.NetworkBackend):
    """Connects to addresses that were judged.

    Args:
        allow_private: Whether any address will do.
    """

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._plain = httpcore.SyncBackend()
        self.until = float("inf")  # on the monotonic clock: when what is under way has to be over

    def left(self, timeout: float | None) -> float:
        """A timeout, cut to the time that is left.

        Raises:
            httpcore.ReadTimeout: None is.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("it took too long as a whole")
        return left if timeout is None else min(timeout, left)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolves once and connects.

        Raises:
            AddressError: The name has private addresses only.
            httpcore.ConnectError: It has none, or none answers.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host!r} is not known: {error}") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        allowed = [each for each in addresses if self._allow_private or is_public(each)]
        if not allowed:
            raise AddressError(
                f"expected a public address, found that {host!r} is {', '.join(addresses) or 'nowhere'}; "
                "allow_private=True allows private ones"
            )
        failed: Exception = httpcore.ConnectError(f"{host!r} has no address")
        for address in allowed[:_TRIED]:
            try:
                wait = self.left(timeout)
                return _Timed(self._plain.connect_tcp(address, port, wait, local_address, socket_options), self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed
