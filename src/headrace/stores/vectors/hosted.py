"""A vector store whose indexes are kept by a process of their own, in a directory: what `edge:` and `local:` share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

from headrace.errors import ClosedError, ConfigError
from headrace.filters import parse, to_json
from headrace.stores.vectors.base import Found, Point, Query
from headrace.stores.vectors.host import Host, columns_json
from headrace.stores.vectors.wire import id_text, pack, pack_search, pack_write, unpack_found

if TYPE_CHECKING:
    from headrace.document import Column

_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")
# Points a frame: a write of many is sent in several.
_PART = 250


class HostedStore:
    """Indexes in a directory: that of the URL, else `path`.

    Args:
        url: "edge:" within the app's data, or "edge:///absolute/path".
        path: The app's data directory for it.
    """

    remote = False
    scheme: ClassVar[str]
    engine: ClassVar[str]

    def __init__(self, url: str, path: str | Path | None = None, **_: Any) -> None:
        self.path = directory(url, self.scheme, path)
        self._host = Host(self.engine, self.path)

    def open(self, name: str, dimension: int, columns: Mapping[str, Column]) -> HostedIndex:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"expected an index's name of letters, digits, '_' and '-', found {name!r}")
        self._host.open(name, dimension=dimension, columns=columns_json(columns))
        return HostedIndex(self._host, name, dimension, columns)

    @property
    def pid(self) -> int | None:
        """Of the process that keeps the indexes, while one is open."""
        return self._host.pid


class HostedIndex:
    """One index that is open."""

    def __init__(self, host: Host, name: str, dimension: int, columns: Mapping[str, Column]) -> None:
        self._host: Host | None = host
        self._name, self._dimension, self._columns = name, dimension, columns

    def _open(self) -> Host:
        host = self._host
        if host is None:
            raise ClosedError(f"the vector index {self._name!r} has been closed; open it again")
        return host

    def write(self, upserts: Sequence[Point], deletes: Sequence[str]) -> None:
        host = self._open()
        for start in range(0, max(len(upserts), len(deletes)), _PART):
            part = slice(start, start + _PART)
            host.ask(pack_write(self._name, self._dimension, self._columns, upserts[part], deletes[part]))

    def search(self, query: Query) -> Found:
        if query.k <= 0 or (query.vector is None and query.terms is None):
            return Found()
        if query.vector is not None and query.vector.shape != (self._dimension,):
            raise ConfigError(
                f"expected a vector of {self._dimension} numbers, found the shape {query.vector.shape}; "
                "the question was embedded by another embedder"
            )
        where = None if query.where is None else to_json(parse(query.where, self._columns))
        return unpack_found(self._open().ask(pack_search(self._name, query.k, query.vector, query.terms, where)))

    def ids(self) -> Iterable[str]:
        host, first = self._open(), True
        while True:
            page = host.ask(pack({"do": "ids", "name": self._name, "first": first}))
            raw = bytes(page.body)
            yield from (id_text(raw[place : place + 16]) for place in range(0, len(raw), 16))
            if page.header["last"]:
                return
            first = False

    def drop(self) -> None:
        self._release("drop")

    def close(self) -> None:
        self._release("close")

    def _release(self, do: str) -> None:
        host, self._host = self._host, None
        if host is not None:
            host.release(self._name, do)


def directory(url: str, scheme: str, path: str | Path | None) -> Path:
    """Where a URL's indexes lie.

    Raises:
        ConfigError: The URL names no directory, and there is none to be in.
    """
    rest = url.partition(":")[2]
    if rest in ("", "//"):
        if path is None:
            raise ConfigError(
                f'"{scheme}:" lies in the app\'s data directory, which there is none of; '
                f'open the app with one, or write "{scheme}:///absolute/path"'
            )
        return Path(path)
    if not rest.startswith("///"):
        raise ConfigError(f'expected "{scheme}:" or "{scheme}:///absolute/path", found {url!r}')
    return Path(unquote(rest[2:]))
