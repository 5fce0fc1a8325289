"""Tables and collections as `Live` offers them: pushes and deletions, and searches that wait for them.

The library is imported when an app has tables: one that has none loads no embedder and no index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from headrace.document import Document
from headrace.errors import ConfigError, DecodeError, HeadraceError, InputError, StaleError
from headrace.runners.base import PUSH
from headrace.runners.history import Historic
from headrace.serving.token import Token

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Collection, Table
    from headrace.runners.base import Runner
    from headrace.runners.library.hits import Hit
    from headrace.runners.library.library import Library
    from headrace.serving.manifests import Manifests

# What a table is called among the positions of a token: this and its name.
_TABLE = "table/"


def open_library(app: App, path: str | Path | None, runner: Runner, packs: Manifests) -> Library:
    """Starts an app's tables and collections beside its runner, which holds the data directory.

    What memories forget is taken out of `packs`, too.
    """
    from headrace.runners.library.library import Library

    if app.runner == "replica":
        raise ConfigError(
            f"the app {app.name!r} has tables, which live where its engine runs: search there, with `headrace run`"
        )
    library = Library(app, None if path is None else Path(path), runner.dead_letters)
    if isinstance(runner, Historic):
        runner.follow_order(library.order)
    for memory in library.memories.values():
        memory.erasing = packs.erasing
    library.start()
    return library


def position_of(table: str) -> str:
    """What a table is called among the positions of a token."""
    return _TABLE + table


def of_table(position: str) -> bool:
    """Whether a token's position is a table's."""
    return position.startswith(_TABLE)


def table_named(app: App, target: Any) -> Table | None:
    """The table that a name, a model or a table stands for; None if it is none."""
    if isinstance(target, str):
        return app.tables.get(target)
    found = (one for one in app.tables.values() if one is target or target in one.schema.models.values())
    return next(found, None)


def push(library: Library, table: Table, rows: Any, format: str | None) -> Token:
    """Writes rows into a table; see `Live.push`."""
    seq, taken, rejects = library.tables[table.name].push(_rows(table, rows, format))
    return Token({_TABLE + table.name: seq}, taken, rejects)


def delete(library: Library, table: Table, keys: Iterable[Any], packs: Manifests | None) -> Token:
    """Takes rows out of a table; see `Live.delete`.

    Args:
        packs: If given, the rows are erased, out of these packs too.
    """
    if isinstance(keys, str | bytes | Mapping):
        raise InputError(f"{table.name}: expected several keys, found {keys!r}; put it into a list")
    listed = list(keys)
    running = library.tables[table.name]
    if packs is None:
        seq = running.delete(listed)
    else:
        with packs.erasing(table.name, [table.schema.key_text(key) for key in listed]) as done:
            seq = running.delete(listed, erase=True)
            done(seq)
    return Token({_TABLE + table.name: seq}, len(listed))


def search(
    library: Library,
    collection: Collection,
    query: str,
    k: int,
    where: pl.Expr | Mapping[str, Any] | None,
    mode: str,
    diversity: float,
    after: Token | str | None,
    timeout: float,
) -> list[Hit]:
    """Searches; see `Live.search`."""
    from headrace.runners.library.search import Asked
    from headrace.runners.library.search import search as searched

    live = library.collections[collection.name]
    asked = Asked.of(live, query, k, where, mode, diversity)
    if after is not None:
        wait(library, collection, after, timeout)
    return searched(live, asked, library.now(), timeout).hits


def wait(library: Library, collection: Collection, after: Token | str, timeout: float) -> None:
    """Waits until a collection has followed the write that returned a token.

    Raises:
        StaleError: It had not in time.
        InputError: The token names a table that there is not.
    """
    for name, seq in Token.parse(after).positions.items():
        if not of_table(name):
            continue
        table = name.removeprefix(_TABLE)
        if table not in library.tables or not isinstance(seq, int):
            raise InputError(f"the token names the table {table!r}, which this app does not have")
        if table == collection.table.name and not library.followed(collection.name, seq, timeout):
            problem = library.collections[collection.name].trouble()
            raise StaleError(
                f"{collection.name}: expected to see the write of the token within {timeout} s; "
                f"the collection is not there yet{': ' + problem if problem else ''}"
            )


def again(library: Library, table: Table, raw: bytes, source: str) -> bool:
    """Writes a dead letter's row, if it is one now, and has it made anew; nothing of it is set aside again.

    What came from a source stays text from outside.
    """
    try:
        library.tables[table.name].once_more(raw, trusted=source == PUSH)
    except HeadraceError:
        return False
    return True


def _rows(table: Table, rows: Any, format: str | None) -> Iterable[Mapping[str, Any] | Document | bytes]:
    if isinstance(rows, str):
        rows = rows.encode()
    if isinstance(rows, bytes | bytearray | memoryview):
        return _parsed(table, bytes(rows), format or "ndjson")
    if isinstance(rows, pl.DataFrame):
        return rows.to_dicts()
    if isinstance(rows, Mapping | Document):
        return [rows]
    if isinstance(rows, Iterable):
        return list(rows)
    raise InputError(f"{table.name}: expected dicts, documents, a Polars frame or bytes, found {type(rows).__name__}")


def _parsed(table: Table, data: bytes, format: str) -> Iterable[Any]:
    if format == "ndjson":
        return [line for line in data.splitlines() if line.strip()]
    if format != "json":
        raise InputError(f'{table.name}: expected format= to be "ndjson" or "json", found {format!r}')
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(
            f"{table.name}: expected a JSON array of objects, found bytes that are not ({error})"
        ) from None
    return found if isinstance(found, list) else [found]
