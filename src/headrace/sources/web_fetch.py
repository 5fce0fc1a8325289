"""One page at a time, politely and within bounds: pace, robots.txt, redirects, size, time.

Every hop of a redirect is judged like a first request: its address, its robots.txt, its pace. What is unpacked is
counted while it is unpacked, so a small answer cannot become a large one. Redirects leave the headers of the user at
home: they may be secrets.
"""

from __future__ import annotations

import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpcore

from headrace.errors import ClosedError, InputError, StorageError, TooLargeError
from headrace.registry import shown_url
from headrace.sources.web_addresses import Backend
from headrace.sources.web_robots import Robots
from headrace.sources.web_url import WebOptions, canonical, host_of
from headrace.units import SECOND

MOST_REDIRECTS = 5
_SILENCE = 10.0  # seconds without a byte
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_HOSTS = 10_000


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        url: Who said it, after redirects.
        status: The HTTP status.
        headers: Names in lower case.
        body: Unpacked; empty unless the status is 200.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Fetcher:
    """Fetches for one source.

    Args:
        options: How.
        stop: Set when no more is wanted: what waits for its turn ends.
    """

    def __init__(self, options: WebOptions, stop: threading.Event) -> None:
        self._options = options
        self.stop = stop
        trust = ssl.create_default_context(cafile=options.ca) if options.ca else None
        self._backend = Backend(options.allow_private)
        self._pool = httpcore.ConnectionPool(
            ssl_context=trust, max_connections=2, keepalive_expiry=30, network_backend=self._backend
        )
        self._robots = Robots(self._robots_file, options.user_agent) if options.robots else None
        self._turns: dict[str, float] = {}  # when a host may be asked again
        self._home = host_of(options.url)

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer for a URL, redirects followed.

        Raises:
            InputError: It may not be fetched: its address, its robots.txt, too many redirects, a URL that is none.
            TooLargeError: The answer is larger than it may be.
            StorageError: The server cannot be reached or does not answer in time.
            ClosedError: No more is wanted.
        """
        ends = time.monotonic() + self._options.timeout / SECOND
        return self._follow(url, headers or {}, ends, self._options.most_bytes, self._robots)

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.close()

    def _robots_file(self, url: str) -> Answer:
        return self._follow(url, {}, time.monotonic() + self._options.timeout / SECOND, 1 << 20, None)

    def _follow(self, url: str, headers: Mapping[str, str], ends: float, most: int, robots: Robots | None) -> Answer:
        for _ in range(MOST_REDIRECTS + 1):
            url = canonical(url)
            pause = self._options.delay / SECOND
            if robots is not None:
                robots.check(url)
                pause = max(pause, robots.delay(url))
            self._take_turn(host_of(url), pause)
            # The time that was spent waiting for a turn is not the server's.
            answer = self._once(url, headers, max(ends, time.monotonic() + 1.0), most)
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                return answer
            url = canonical(answer.headers["location"], url)
        raise InputError(f"expected a page, found more than {MOST_REDIRECTS} redirects, at last to {shown_url(url)}")

    def _take_turn(self, host: str, pause: float) -> None:
        now = time.monotonic()
        wait = self._turns.get(host, 0.0) - now
        if wait > 0 and self.stop.wait(wait):
            raise ClosedError("the reader is closed; open the source again")
        if len(self._turns) > _MOST_HOSTS:
            self._turns = {each: due for each, due in self._turns.items() if due > now}
        self._turns[host] = max(now, now + wait) + pause

    def _once(self, url: str, headers: Mapping[str, str], ends: float, most: int) -> Answer:
        home = self._options.headers if host_of(url) == self._home else {}
        sent = {"User-Agent": self._options.user_agent, "Accept": "text/html,text/markdown;q=0.9,*/*;q=0.5"}
        sent |= {"Accept-Encoding": "gzip, deflate", **headers, **home}
        wait = min(_SILENCE, self._options.timeout / SECOND)
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), wait)
        self._backend.until = ends
        try:
            with self._pool.stream(
                "GET", url, headers=list(sent.items()), extensions={"timeout": timeouts}
            ) as response:
                said = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                if response.status != 200:
                    return Answer(url, response.status, said)
                length = said.get("content-length", "")
                if length.isdigit() and int(length) > most:
                    raise TooLargeError(f"expected a page of at most {most} bytes, found {length}")
                parts = self._while_wanted(response.iter_stream())
                return Answer(url, 200, said, _unpacked(parts, said.get("content-encoding", ""), most))
        except (
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
        ) as error:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            raise StorageError(f"expected {shown_url(url)} to answer, found {what}; it is asked again later") from error
        except ssl.SSLError as error:
            raise StorageError(f"expected {shown_url(url)} to be trusted, found {error.reason}") from error

    def _while_wanted(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        for part in parts:
            if self.stop.is_set():
                raise ClosedError("the reader is closed; open the source again")
            yield part


def _unpacked(parts: Iterator[bytes], encoding: str, most: int) -> bytes:
    """A body, whole."""
    coding = encoding.strip().lower()
    if coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise InputError(f"expected a page packed by gzip or not at all, found {coding[:40]!r}")
    machine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32) if coding not in ("", "identity") else None
    body = bytearray()
    for part in parts:
        try:
            body += part if machine is None else machine.decompress(part, most + 1 - len(body))
        except zlib.error as error:
            raise InputError(f"expected a page packed by {coding}, found {error}") from None
        if len(body) > most:
            raise TooLargeError(f"expected a page of at most {most} bytes, found more")
    return bytes(body)
