"""Tables of Postgres, followed by logical replication: `postgres://user@host/db?table=schema.articles`.

What a URL may say is in `headrace.sources.postgres_url`, what reading promises in `headrace.sources.postgres_reader`.
The streaming is psycopg2's; the messages in it are decoded in `headrace.sources.postgres_output`, since no decoder that
is kept up is to be had.

The server needs `wal_level = logical`, and the user the attribute REPLICATION and, to make the publication, to own the
table. What is made there, a slot and a publication, stays when reading ends, and the server keeps its log for it: a
table that is not to be followed any more is `drop`ped.
"""

from __future__ import annotations

import threading
from typing import Any

import psycopg2

from headrace.document import TableSchema
from headrace.errors import StorageError
from headrace.sources.postgres_place import Place
from headrace.sources.postgres_reader import PostgresReader
from headrace.sources.postgres_server import Server
from headrace.sources.postgres_url import PostgresUrl


class PostgresSource:
    """The source of a table behind `postgres:` and `postgresql:` URLs.

    Args:
        url: Server, database and table.
        options: As in the query.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = PostgresUrl.parse(url, options)

    def __repr__(self) -> str:
        return f"PostgresSource({self.name!r})"

    @property
    def name(self) -> str:
        """Server, database, schema and table."""
        return self._url.name

    @property
    def slot(self) -> str:
        """The replication slot's name."""
        return self._url.slot

    @property
    def publication(self) -> str:
        """The publication's name."""
        return self._url.publication

    def open(self, position: Any | None, schema: TableSchema) -> PostgresReader:
        """Begin after a position; see `TableSource.open`. Makes publication and slot if they are not there."""
        place = None if position is None else Place.read(position, self.name)
        reader = PostgresReader(self._url, schema, place)
        try:
            reader.connect()
        except BaseException:
            reader.close()
            raise
        return reader

    def drop(self) -> None:
        """Drop the slot and the publication, so that the server keeps nothing for this table any more.

        A publication that the URL names is left, and with `keep_slot=true` the slot too. Again does nothing.

        Raises:
            StorageError: The server is out of reach, or somebody reads the slot.
        """
        server = Server(self._url, threading.Event())
        try:
            server.drop()
        except psycopg2.Error as error:
            raise StorageError(f"{self.name}: cannot be dropped ({self._url.shown(error)})") from None
        finally:
            server.disconnect()


def forget(url: str, **options: Any) -> None:
    """Drop the slot and the publication of a table's URL; see `PostgresSource.drop`."""
    PostgresSource(url, **options).drop()
