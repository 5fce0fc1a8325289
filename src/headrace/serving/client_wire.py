"""What a client sends and is answered, without the sending: addresses, bodies, queries, and errors.

Pure functions, which the client for threads and the one for an event loop share: what the two have in common and never
waits is here.
"""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import httpx
import msgspec
import polars as pl
from pydantic import BaseModel

from headrace.declarations import Table
from headrace.document import Document
from headrace.errors import InputError, RemoteError
from headrace.runners.library.hits import Hit
from headrace.schema import snake_case
from headrace.serving.body import FORMATS
from headrace.serving.token import Token
from headrace.units import SECOND, duration, from_micros

ARROW = "application/vnd.apache.arrow.stream"
# Path segments that clients and proxies take for themselves (or lose); such a key goes in a body.
UNSAFE = frozenset({"", ".", ".."})
MOST_ERRORS = 10_000
_NDJSON = FORMATS["ndjson"]


class Hits(msgspec.Struct):
    """The body of a search's answer."""

    hits: list[Hit]


def address(url: str) -> str:
    """A server's address, without a slash at its end.

    Raises:
        InputError: It is none.
    """
    try:
        parsed = httpx.URL(url)
        if parsed.scheme in ("http", "https") and parsed.host:
            return url.rstrip("/")
    except (httpx.InvalidURL, ValueError):
        pass
    raise InputError(f'expected an address such as "http://127.0.0.1:8900", found {url!r}')


def headers(api_key: str | None) -> dict[str, str]:
    """The headers of every request.

    Raises:
        InputError: The key cannot be sent.
    """
    made = {"accept": "application/json"}
    if api_key is not None:
        if not api_key.isascii() or not api_key.isprintable():
            raise InputError("expected an API key of printable ASCII, found another; take the server's own")
        made["authorization"] = f"Bearer {api_key}"
    return made


@contextlib.contextmanager
def reaching(url: str, http: httpx.Client | httpx.AsyncClient, wanted: str = "an answer") -> Iterator[None]:
    """What goes wrong on the way to a server, as `RemoteError`."""
    try:
        yield
    except httpx.HTTPError as error:
        raise RemoteError(
            f"expected {wanted} from {url}, found none: {str(error) or type(error).__name__}; "
            "is the server running, and is this its address?"
        ) from error
    except RuntimeError as error:  # what httpx raises once it is closed
        if not http.is_closed:
            raise
        raise RemoteError(f"expected an open connection to {url}, found it closed; connect again") from error


def hang_up(answer: httpx.Response | None) -> None:
    """Ends a stream that another thread may be reading: closing a socket would not wake it."""
    stream = None if answer is None else answer.extensions.get("network_stream")
    connection = None if stream is None else stream.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # it has ended already
            connection.shutdown(socket.SHUT_RDWR)


def name_of(given: Any) -> str:
    """The name of what is declared; of a model, what `app.stream` calls it."""
    if isinstance(given, type):
        return snake_case(given.__name__)
    return given if isinstance(given, str) else str(given.name)


def takes_rows(target: Any) -> bool:
    """Whether what was handed over is a table, or its model."""
    return isinstance(target, Table) or (isinstance(target, type) and issubclass(target, Document))


def several(name: str, keys: Iterable[Any]) -> list[Any]:
    """Keys as a list.

    Raises:
        InputError: It is one key.
    """
    if isinstance(keys, str | bytes | Mapping):
        raise InputError(f"{name}: expected several keys, found {keys!r}; put it into a list")
    return list(keys)


def rows_as_body(name: str, rows: Any, format_: str | None) -> tuple[bytes, str, list[bytes]]:
    """Rows as a body, its Content-Type, and the bytes of each row where they are lines.

    Raises:
        InputError: They are no rows, or of no known format.
    """
    if isinstance(rows, pl.DataFrame):
        buffer = io.BytesIO()
        rows.write_parquet(buffer)
        return buffer.getvalue(), FORMATS["parquet"], []
    if isinstance(rows, str | bytes | bytearray | memoryview):
        data = rows.encode() if isinstance(rows, str) else bytes(rows)
        if (format_ or "ndjson") not in FORMATS:
            raise InputError(f"{name}: expected format= to be one of {', '.join(FORMATS)}, found {format_!r}")
        return data, FORMATS[format_ or "ndjson"], []
    if isinstance(rows, Mapping | BaseModel):
        rows = [rows]
    if not isinstance(rows, Iterable):
        raise InputError(f"{name}: expected dicts, events, a Polars frame or bytes, found {type(rows).__name__}")
    lines = [_line(name, row) for row in rows]
    return b"\n".join(lines), _NDJSON, lines


def _line(name: str, row: Any) -> bytes:
    if isinstance(row, BaseModel):
        return row.model_dump_json(by_alias=True).encode()
    return as_json(row, f"{name}: expected rows that JSON can hold, found {row!r}")


def as_json(value: Any, problem: str) -> bytes:
    """A value as JSON.

    Raises:
        InputError: With `problem`, if JSON cannot hold it.
    """
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InputError(f"{problem} ({error})") from error


def key_parts(key: Any, names: Sequence[str]) -> list[str]:
    """A key's parts as they stand in a path.

    Raises:
        InputError: It names other columns.
    """
    if isinstance(key, Mapping):
        if set(key) != set(names):
            raise InputError(f"expected the key columns {list(names)}, found {list(key)}")
        return [_text(key[name]) for name in names]
    return [_text(part) for part in (key if isinstance(key, list | tuple) else [key])]


def _text(part: Any) -> str:
    if isinstance(part, bool):
        return "true" if part else "false"
    return part.isoformat() if isinstance(part, datetime | date) else str(part)


def read_options(
    after: Token | str | None, now: datetime | int | None, max_age: str | timedelta | float | None, timeout: float
) -> dict[str, Any]:
    """The options of a read, those that were given."""
    options: dict[str, Any] = {}
    if after is not None:
        options["after"] = str(after)
    if now is not None:
        options["now"] = moment(now)
    if max_age is not None:
        options["max_age"] = seconds(max_age)
    if options:
        options["timeout"] = timeout
    return options


def moment(given: datetime | int) -> str:
    """A time as text."""
    return (from_micros(given) if isinstance(given, int) else given).isoformat()


def seconds(given: str | timedelta | float | None) -> float | None:
    """A duration in seconds."""
    return None if given is None else duration(given) / SECOND


def given(**options: Any) -> dict[str, Any]:
    """Those options that are not None."""
    return {name: value for name, value in options.items() if value is not None}
