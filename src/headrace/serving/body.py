"""A request's body, read within bounds: of size, of time, and of memory over all requests together.

A client decides how much it sends and how fast, so each is bounded here and not by its goodwill. Size: a stated
length is refused before a byte is read, an unstated one as soon as it is passed; what a compressed body unpacks to
counts in the same way. Time: after a grace period a body must come at a least rate, so that one byte a minute does
not hold a connection. Memory: the bodies of all requests share one budget, and one that does not fit is told to
come again, which is better than waiting: two half-read bodies that wait for each other's memory wait for ever.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Receive

from headrace.errors import DecodeError, InputError, TooLargeError
from headrace.serving.problems import BUSY, MEDIA, SLOW_BODY, ProblemError

MIB = 1 << 20
GRACE_SECONDS = 30.0
LEAST_RATE = 64 << 10  # bytes a second

_TYPES = {
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonlines": "ndjson",
    "application/json": "json",
    "text/json": "json",
    "text/csv": "csv",
    "application/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/parquet": "parquet",
}
FORMATS = {
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
# What clients say when they were not told to say anything: curl -d, fetch() with a string, a bare upload.
_GENERIC = {"", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded"}
_BLANKS = b" \t\r\n\xef\xbb\xbf"
_PRETTY = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*\{\s*[\r\n]")


class DisconnectedError(Exception):
    """The client went away before its request was whole: there is nobody to answer."""


class Bodies:
    """Reads bodies; holds the budget that they share."""

    def __init__(self, limit: int, *, total: int = 0, grace: float = GRACE_SECONDS) -> None:
        """
        Args:
            limit: The longest body, in bytes.
            total: What all bodies at one time may take together; four of the longest if not given.
            grace: Seconds that a body may take, before the least rate counts.
        """
        self.limit = limit
        self._free = total or 4 * limit
        self._grace = grace

    @asynccontextmanager
    async def read(
        self, headers: Iterable[tuple[bytes, bytes]], receive: Receive, limit: int = 0
    ) -> AsyncIterator[bytearray]:
        """The whole body, as a context: it keeps its share of the budget until the context ends.

        Raises:
            TooLargeError: It is longer than the limit.
            ProblemError: It came too slowly, or the bodies of others fill the budget.
            DisconnectedError: The client went away.
        """
        limit = min(limit or self.limit, self.limit)
        stated = _stated_length(headers)
        if stated > limit:
            raise _too_large(limit, f"one of {stated:,}")
        body = bytearray()
        try:
            await self._fill(body, receive, limit)
            yield body
        finally:
            self._free += len(body)

    async def _fill(self, body: bytearray, receive: Receive, limit: int) -> None:
        started = asyncio.get_running_loop().time()
        more = True
        while more:
            message = await _next(receive, started + self._grace + len(body) / LEAST_RATE)
            data = message.get("body", b"")
            if len(body) + len(data) > limit:
                raise _too_large(limit, "more")
            self._take(len(data))
            body += data
            more = message.get("more_body", False)

    def _take(self, size: int) -> None:
        if size > self._free:
            raise ProblemError(BUSY, "expected room for this body, found it taken by others; send it again shortly")
        self._free -= size


async def _next(receive: Receive, deadline: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout_at(deadline):
            message = await receive()
    except TimeoutError:
        detail = f"expected the body at {LEAST_RATE >> 10} KiB a second or more, found it slower; send it again"
        # What is still to come of the body would be read as the next request.
        raise ProblemError(SLOW_BODY, detail, {"connection": "close"}) from None
    if message["type"] == "http.disconnect":
        raise DisconnectedError
    return message


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The value of a header, empty if it is not there."""
    return next((value for known, value in headers if known == name), b"")


def unpacked(data: bytearray, encoding: bytes, limit: int) -> bytes | bytearray:
    """What a body is once its Content-Encoding is undone; takes time, so not for the event loop.

    Raises:
        ProblemError: The encoding is not one that is read here.
        TooLargeError: It unpacks to more than `limit`.
        DecodeError: It is not what it claims to be.
    """
    name = encoding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return data
    if name not in ("gzip", "x-gzip", "deflate"):
        raise ProblemError(MEDIA, f"expected the Content-Encoding gzip, deflate or none, found {name!r}")
    plain = bytearray()
    rest: bytes | bytearray = data
    while rest:
        # 32: the header says whether it is gzip or zlib. Several gzip members in a row are one body (RFC 1952).
        machine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            plain += machine.decompress(rest, limit + 1 - len(plain))
        except zlib.error as error:
            raise DecodeError(f"expected a body in {name}, found bytes that are not ({error})") from error
        if len(plain) > limit:
            raise _too_large(limit, "one that unpacks to more")
        if not machine.eof:
            raise DecodeError(f"expected a whole body in {name}, found one that is cut off; send it again")
        rest = machine.unused_data
    return plain


def format_of(content_type: bytes, data: bytes | bytearray, asked: str = "") -> str:
    """The format of a body: as `asked`, else by its Content-Type, else (if that says nothing) by how it begins.

    Raises:
        ProblemError: It is none of the formats read here.
    """
    if asked:
        if asked not in FORMATS:
            raise InputError(f"expected format= to be one of {', '.join(FORMATS)}, found {asked!r}")
        return asked
    media = content_type.decode("latin-1").partition(";")[0].strip().lower()
    if media in _TYPES:
        return _TYPES[media]
    if media in _GENERIC and (found := _sniff(data)):
        return found
    listed = ", ".join(f"{media_type} ({name})" for name, media_type in FORMATS.items())
    raise ProblemError(MEDIA, f"expected a body with the Content-Type {listed}, found {media or 'none'!r}")


def _sniff(data: bytes | bytearray) -> str:
    start = bytes(data[:4096])
    if start.startswith(b"PAR1"):
        return "parquet"
    start = start.lstrip(_BLANKS)
    if start.startswith(b"["):
        return "json"
    if start.startswith(b"{"):
        # A brace alone on its line is the first of an object printed over many lines: not one object a line.
        return "json" if _PRETTY.match(start) else "ndjson"
    return ""


def _stated_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    value = header(headers, b"content-length")
    return int(value) if value.isdigit() else 0


def _too_large(limit: int, found: str) -> TooLargeError:
    size = f"{limit // MIB} MiB" if limit >= MIB and limit % MIB == 0 else f"{limit:,} bytes"
    return TooLargeError(f"expected a body of at most {size}, found {found}; send it in parts")
