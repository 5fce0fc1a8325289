# Made of client_async/remote.py by `make client`: change that, not this.
"""A running server, with the methods of a `Live`.

Code that reads features should not care where the engine runs, so the methods, what they return and what they raise
are those of `Live`: a push returns a `Token`, a read a `Row` with attributes, a bulk read a Polars frame with the
server's own types (it travels as an Arrow stream, so nothing is guessed from JSON), and a problem in an answer is
raised as the exception that it was in the server. What only the way there can do wrong is a `RemoteError`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import msgspec
import polars as pl

from headrace.document import Document
from headrace.filter_expr import conditions
from headrace.runners.library.hits import Hit
from headrace.schema import Event, Reject
from headrace.serving import client_wire as wire
from headrace.serving.client_sync.changes import Following
from headrace.serving.client_sync.chats import Chats
from headrace.serving.client_sync.contexts import Contexts
from headrace.serving.client_sync.memories import Memories
from headrace.serving.options import LONGEST_WAIT
from headrace.serving.rows import Row
from headrace.serving.stats import Stats
from headrace.serving.token import Token
from headrace.serving.tool_calls import DEFAULT_SECONDS

if TYPE_CHECKING:
    from headrace.app import Stream
    from headrace.declarations import Collection, Table
    from headrace.features.view import View
    from headrace.serving.live import Rows
    from headrace.serving.tool_forms import Form


class Remote(Contexts, Memories, Chats, Following):
    """A running server, with the methods of `Live`, for any number of threads.

    Closed by leaving its `with` block.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 10.0) -> None:
        super().__init__(url, api_key=api_key, timeout=timeout)
        self._tables: set[str] | None = None

    # -- in --------------------------------------------------------------------------------------------------------

    def push(
        self, target: Stream | Table | type[Event] | type[Document] | str, rows: Rows, *, format: str | None = None
    ) -> Token:
        """As `Live.push`. Of many rejected rows the first 10,000 are named, and all are dead letters on the server."""
        name = wire.name_of(target)
        table = self._is_table(target, name)
        if table and isinstance(rows, pl.DataFrame):
            rows = rows.to_dicts()
        content, kind, lines = wire.rows_as_body(name, rows, format)
        found = self._call(
            "PUT" if table else "POST",
            f"/v1/{'tables' if table else 'streams'}/{quote(name, safe='')}",
            content=content,
            headers={"content-type": kind},
            params={"errors": wire.MOST_ERRORS},
        )
        answer = found.json()
        rejected = [
            Reject(one["row"], one["reason"], lines[one["row"]] if one["row"] < len(lines) else b"")
            for one in answer["errors"]
        ]
        return Token(Token.parse(answer["token"]).positions, answer["accepted"], rejected)

    def delete(self, table: Table | type[Document] | str, keys: Iterable[Any], *, erase: bool = False) -> Token:
        """As `Live.delete`."""
        name = wire.name_of(table)
        body = msgspec.json.encode({"keys": wire.several(name, keys), "erase": erase}, enc_hook=str)
        answer = (self._call("DELETE", f"/v1/tables/{quote(name, safe='')}", content=body)).json()
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
        name = wire.name_of(view)
        options = wire.read_options(after, now, max_age, timeout)
        reviver = self._reviver(name)
        parts = wire.key_parts(key, reviver.keys)
        if not wire.UNSAFE.isdisjoint(parts) and max_age is None:
            return (self._rows(name, [key], options, timeout))[0]
        path = "/".join(quote(part, safe="") for part in parts)
        answer = self._call("GET", f"/v1/features/{quote(name, safe='')}/{path}", wait=timeout, params=options)
        return reviver.row(msgspec.json.decode(answer.content))

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
        name = wire.name_of(view)
        options = wire.read_options(after, now, None, timeout)
        answer = self._read(name, wire.several(name, keys), options, timeout, wire.ARROW)
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
        name = wire.name_of(view)
        return self._rows(name, wire.several(name, keys), wire.read_options(after, now, None, timeout), timeout)

    def _rows(self, name: str, keys: list[Any], options: Mapping[str, Any], timeout: float) -> list[Row]:
        answer = self._read(name, keys, options, timeout, "application/json")
        reviver = self._reviver(name)
        return [reviver.row(found) for found in msgspec.json.decode(answer.content)["rows"]]

    def _read(
        self, name: str, keys: list[Any], options: Mapping[str, Any], timeout: float, accept: str
    ) -> httpx.Response:
        headers = {"accept": accept, "content-type": "application/json"}
        body = msgspec.json.encode({"keys": keys, **options})
        path = f"/v1/features/{quote(name, safe='')}"
        return self._call("POST", path, wait=timeout, content=body, headers=headers)

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
        path = f"/v1/collections/{quote(wire.name_of(collection), safe='')}/search"
        answer = self._call("POST", path, wait=timeout, content=body)
        return msgspec.json.decode(answer.content, type=wire.Hits).hits

    # -- tools -----------------------------------------------------------------------------------------------------

    def tools(self, form: Form = "chat") -> list[dict[str, Any]]:
        """As `Live.tools`."""
        found: list[dict[str, Any]] = (self._call("GET", "/v1/tools", params={"form": form})).json()
        return found

    def call(
        self, name: str, arguments: Mapping[str, Any] | str | None = None, *, timeout: float = DEFAULT_SECONDS
    ) -> dict[str, Any]:
        """As `Live.call`."""
        content = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {})
        address = f"/v1/tools/{quote(name, safe='')}"
        answer = self._call("POST", address, wait=timeout, params={"timeout": timeout}, content=content)
        found: dict[str, Any] = answer.json()
        return found

    # -- looking after it ------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """As `Live.stats`."""
        return msgspec.convert(self.status(), Stats)

    def status(self) -> dict[str, Any]:
        """All that `GET /v1/status` says, as plain values: the figures, the time, and what is declared."""
        status: dict[str, Any] = (self._call("GET", "/v1/status")).json()
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
        answer = (self._call("POST", "/v1/dead-letters/replay", wait=LONGEST_WAIT, content=body)).json()
        return answer["replayed"], answer["still_rejected"]

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_table(self, target: Any, name: str) -> bool:
        """Whether rows go to a table: by what was handed over, or by what the server declares."""
        if not isinstance(target, str):
            return wire.takes_rows(target)
        with self._lock:
            if self._tables is None:
                self._tables = set((self.status())["declared"]["tables"])
        return name in self._tables
