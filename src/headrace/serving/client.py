"""`hr.connect(url)`: a running server with the methods of a `Live`, over HTTP.

Code that reads features should not care where the engine runs, so the methods, what they return and what they raise
are those of `Live`: a push returns a `Token`, a read a `Row` with attributes, a bulk read a Polars frame with the
server's own types (it travels as an Arrow stream, so nothing is guessed from JSON), and a problem in an answer is
raised as the exception that it was in the server. What only the way there can do wrong is a `RemoteError`.

Nothing is tried twice: a push whose answer was lost may have been stored, and to send it again would count it twice.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import msgspec
import polars as pl
from pydantic import BaseModel

from headrace.declarations import Table
from headrace.document import Document
from headrace.errors import InputError, RemoteError
from headrace.filter_expr import conditions
from headrace.runners.library.hits import Hit
from headrace.schema import Event, Reject
from headrace.serving.body import FORMATS
from headrace.serving.client_context import RemoteContext
from headrace.serving.client_memory import RemoteMemories
from headrace.serving.options import LONGEST_WAIT
from headrace.serving.problems import error_of
from headrace.serving.revive import Reviver
from headrace.serving.rows import Row
from headrace.serving.stats import Stats
from headrace.serving.token import Token
from headrace.serving.tool_calls import DEFAULT_SECONDS
from headrace.units import SECOND, duration, from_micros

if TYPE_CHECKING:
    from headrace.app import Stream
    from headrace.declarations import Collection
    from headrace.features.view import View
    from headrace.serving.live import Rows
    from headrace.serving.tool_forms import Form

_ARROW = "application/vnd.apache.arrow.stream"
_NDJSON = FORMATS["ndjson"]
# Path segments that clients and proxies take for themselves (or lose); such a key goes in a body.
_UNSAFE = {"", ".", ".."}
_MOST_ERRORS = 10_000


class Hits(msgspec.Struct):
    """The body of a search's answer."""

    hits: list[Hit]


def connect(url: str, *, api_key: str | None = None, timeout: float = 10.0) -> Remote:
    """A client of a running server.

    Args:
        url: Where it is: "http://127.0.0.1:8900".
        api_key: The server's key, if it has one.
        timeout: Seconds to wait for the server, besides what a read itself waits.

    Raises:
        InputError: `url` is not an HTTP address, or the key cannot be sent.
    """
    return Remote(url, api_key=api_key, timeout=timeout)


class Remote(RemoteContext, RemoteMemories):
    """A running server, with the methods of `Live`. May be used from any thread; closed by leaving its `with` block."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 10.0) -> None:
        headers = {"accept": "application/json"}
        if api_key is not None:
            if not api_key.isascii() or not api_key.isprintable():
                raise InputError("expected an API key of printable ASCII, found another; take the server's own")
            headers["authorization"] = f"Bearer {api_key}"
        self.url = _address(url)
        self._timeout = timeout
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        self._revivers: dict[str, Reviver] = {}
        self._tables: set[str] | None = None
        self._lock = threading.Lock()

    # -- in --------------------------------------------------------------------------------------------------------

    def push(
        self, target: Stream | Table | type[Event] | type[Document] | str, rows: Rows, *, format: str | None = None
    ) -> Token:
        """As `Live.push`. Of many rejected rows the first 10,000 are named, and all are dead letters on the server."""
        name = _name(target)
        table = self._is_table(target, name)
        if table and isinstance(rows, pl.DataFrame):
            rows = rows.to_dicts()
        content, kind, lines = _encoded(name, rows, format)
        answer = self._call(
            "PUT" if table else "POST",
            f"/v1/{'tables' if table else 'streams'}/{quote(name, safe='')}",
            content=content,
            headers={"content-type": kind},
            params={"errors": _MOST_ERRORS},
        ).json()
        rejected = [
            Reject(one["row"], one["reason"], lines[one["row"]] if one["row"] < len(lines) else b"")
            for one in answer["errors"]
        ]
        return Token(Token.parse(answer["token"]).positions, answer["accepted"], rejected)

    def delete(self, table: Table | type[Document] | str, keys: Iterable[Any], *, erase: bool = False) -> Token:
        """As `Live.delete`."""
        name = _name(table)
        if isinstance(keys, str | bytes | Mapping):
            raise InputError(f"{name}: expected several keys, found {keys!r}; put it into a list")
        body = msgspec.json.encode({"keys": list(keys), "erase": erase}, enc_hook=str)
        answer = self._call("DELETE", f"/v1/tables/{quote(name, safe='')}", content=body).json()
        return Token(Token.parse(answer["token"]).positions, answer["deleted"])

    def drain(self, timeout: float | None = None) -> None:
        """As `Live.drain`; waits a minute at most."""
        wait = LONGEST_WAIT if timeout is None else timeout
        self._call("POST", "/v1/drain", wait=wait, content=msgspec.json.encode({"timeout": wait}))

    # -- out -------------------------------------------------------------------------------------------------------

    def read(
        self,
        view: View | str,
        key: Any,
        *,
        after: Token | str | None = None,
        now: datetime | int | None = None,
        max_age: str | timedelta | float | None = None,
        timeout: float = 10.0,
    ) -> Row:
        """As `Live.read`."""
        name = _name(view)
        options = _options(after, now, max_age, timeout)
        parts = [_text(part) for part in _parts(key, self._reviver(name).keys)]
        if _UNSAFE.isdisjoint(parts) or max_age is not None:
            path = "/".join(quote(part, safe="") for part in parts)
            answer = self._call("GET", f"/v1/features/{quote(name, safe='')}/{path}", wait=timeout, params=options)
            found = msgspec.json.decode(answer.content)
        else:
            answer = self._call(
                "POST", f"/v1/features/{quote(name, safe='')}", wait=timeout, content=_body([key], options)
            )
            found = msgspec.json.decode(answer.content)["rows"][0]
        return self._reviver(name).row(found)

    def read_many(
        self,
        view: View | str,
        keys: Iterable[Any],
        *,
        after: Token | str | None = None,
        now: datetime | int | None = None,
        timeout: float = 10.0,
    ) -> pl.DataFrame:
        """As `Live.read_many`."""
        name = _name(view)
        if isinstance(keys, str | bytes | Mapping):
            raise InputError(f"{name}: expected several keys, found {keys!r}; put it into a list")
        answer = self._call(
            "POST",
            f"/v1/features/{quote(name, safe='')}",
            wait=timeout,
            content=_body(list(keys), _options(after, now, None, timeout)),
            headers={"accept": _ARROW, "content-type": "application/json"},
        )
        return pl.read_ipc_stream(io.BytesIO(answer.content))

    def read_rows(
        self,
        view: View | str,
        keys: Iterable[Any],
        *,
        after: Token | str | None = None,
        now: datetime | int | None = None,
        timeout: float = 10.0,
    ) -> list[Row]:
        """As `Live.read_rows`."""
        name = _name(view)
        if isinstance(keys, str | bytes | Mapping):
            raise InputError(f"{name}: expected several keys, found {keys!r}; put it into a list")
        body = _body(list(keys), _options(after, now, None, timeout))
        answer = self._call("POST", f"/v1/features/{quote(name, safe='')}", wait=timeout, content=body)
        reviver = self._reviver(name)
        return [reviver.row(found) for found in msgspec.json.decode(answer.content)["rows"]]

    def search(
        self,
        collection: Collection | str,
        query: str,
        *,
        k: int = 5,
        where: pl.Expr | Mapping[str, Any] | None = None,
        mode: str = "hybrid",
        diversity: float = 0.0,
        after: Token | str | None = None,
        timeout: float = 10.0,
    ) -> list[Hit]:
        """As `Live.search`."""
        asked: dict[str, Any] = {"query": query, "k": k, "mode": mode, "diversity": diversity, "timeout": timeout}
        if after is not None:
            asked["after"] = str(after)
        if where is not None:
            asked["where"] = conditions(where) if isinstance(where, pl.Expr) else dict(where)
        body = msgspec.json.encode(asked)
        path = f"/v1/collections/{quote(_name(collection), safe='')}/search"
        answer = self._call("POST", path, wait=timeout, content=body)
        return msgspec.json.decode(answer.content, type=Hits).hits

    # -- tools -----------------------------------------------------------------------------------------------------

    def tools(self, form: Form = "chat") -> list[dict[str, Any]]:
        """As `Live.tools`."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/tools", params={"form": form}).json()
        return found

    def call(
        self, name: str, arguments: Mapping[str, Any] | str | None = None, *, timeout: float = DEFAULT_SECONDS
    ) -> dict[str, Any]:
        """As `Live.call`."""
        content = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {})
        address = f"/v1/tools/{quote(name, safe='')}"
        found: dict[str, Any] = self._call(
            "POST", address, wait=timeout, params={"timeout": timeout}, content=content
        ).json()
        return found

    # -- looking after it ------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """As `Live.stats`."""
        return msgspec.convert(self.status(), Stats)

    def status(self) -> dict[str, Any]:
        """All that `GET /v1/status` says, as plain values: the figures, the time, and what is declared."""
        status: dict[str, Any] = self._call("GET", "/v1/status").json()
        return status

    def ready(self) -> tuple[bool, str]:
        """As `Live.ready`; a server that does not answer is not ready."""
        try:
            answer = self._http.get("/readyz")
            found = answer.json()
            return bool(found["ready"]), str(found["reason"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            return False, f"{self.url} does not answer as a Headrace server: {error}"

    def replay_dead_letters(self, ids: Sequence[int] | None = None) -> tuple[int, int]:
        """As `Live.replay_dead_letters`."""
        body = msgspec.json.encode({"ids": None if ids is None else list(ids)})
        answer = self._call("POST", "/v1/dead-letters/replay", wait=LONGEST_WAIT, content=body).json()
        return answer["replayed"], answer["still_rejected"]

    def close(self) -> None:
        """Let go of the connections; the server goes on."""
        self._http.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, path: str, *, wait: float = 0.0, **request: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, timeout=self._timeout + wait, **request)
        except httpx.HTTPError as error:
            raise RemoteError(
                f"expected an answer from {self.url}, found none: {error or type(error).__name__}; "
                "is the server running, and is this its address?"
            ) from error
        except RuntimeError as error:  # what httpx raises once it is closed
            raise RemoteError(f"expected an open connection to {self.url}, found it closed; connect again") from error
        if answer.status_code != httpx.codes.OK:
            raise error_of(answer.status_code, answer.content)
        return answer

    def _is_table(self, target: Any, name: str) -> bool:
        """Whether rows go to a table: by what was handed over, or by what the server declares."""
        if not isinstance(target, str):
            return isinstance(target, Table) or (isinstance(target, type) and issubclass(target, Document))
        with self._lock:
            if self._tables is None:
                self._tables = set(self.status()["declared"]["tables"])
        return name in self._tables

    def _reviver(self, view: str) -> Reviver:
        """How a view's JSON becomes values again: asked of the server once."""
        with self._lock:
            if view not in self._revivers:
                self._revivers = Reviver.of_document(self._call("GET", "/openapi.json").json())
            # A view that the server does not have: let the server say so, with the nearest name.
            return self._revivers.get(view) or Reviver((), {})


def _address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
        if parsed.scheme in ("http", "https") and parsed.host:
            return url.rstrip("/")
    except (httpx.InvalidURL, ValueError):
        pass
    raise InputError(f'expected an address such as "http://127.0.0.1:8900", found {url!r}')


def _name(given: Any) -> str:
    """The name of a stream or view; of a model, what `app.stream` calls it."""
    if isinstance(given, type):
        from headrace.schema import snake_case

        return snake_case(given.__name__)
    return given if isinstance(given, str) else str(given.name)


def _encoded(name: str, rows: Any, format_: str | None) -> tuple[bytes, str, list[bytes]]:
    """Rows as a body, its Content-Type, and the bytes of each row where they are lines."""
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
    try:
        return msgspec.json.encode(row)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InputError(f"{name}: expected rows that JSON can hold, found {row!r}: {error}") from error


def _parts(key: Any, names: Sequence[str]) -> list[Any]:
    if isinstance(key, Mapping):
        if set(key) != set(names):
            raise InputError(f"expected the key columns {list(names)}, found {list(key)}")
        return [key[name] for name in names]
    return list(key) if isinstance(key, list | tuple) else [key]


def _text(part: Any) -> str:
    if isinstance(part, bool):
        return "true" if part else "false"
    return part.isoformat() if isinstance(part, datetime | date) else str(part)


def _options(
    after: Token | str | None, now: datetime | int | None, max_age: str | timedelta | float | None, timeout: float
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if after is not None:
        options["after"] = str(after)
    if now is not None:
        options["now"] = (from_micros(now) if isinstance(now, int) else now).isoformat()
    if max_age is not None:
        options["max_age"] = duration(max_age) / SECOND
    if options:
        options["timeout"] = timeout
    return options


def _body(keys: list[Any], options: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({"keys": keys, **options})
