"""`mongodb:` as a source of a table: a collection's documents, and then every change of it.

    articles = app.table(Article, "mongodb://host:27017/news?collection=articles", key="id")
    mongodb+srv://${USER}:${PASSWORD}@cluster.example.net/news?collection=articles

It needs a replica set or a sharded cluster: only these have change streams. The snapshot and the stream are in
`mongodb_feed`, the rows in `mongodb_rows`; a document's `_id` is the row's `id`. A collection that is dropped empties
the table; a new snapshot follows whenever the stream cannot be gone on with.

| option | is |
|---|---|
| collection | which one; there is no default |
| id | the column that `_id` goes into; "id" |
| must_exist | whether it is a mistake if the collection is not there yet; true |
| wait | for how long the server holds a request while nothing happens; "250ms" |

All others are pymongo's (`authSource`, `tls`, `readPreference`, …).
"""

from __future__ import annotations

from typing import Any

from pymongo.errors import PyMongoError

from headrace.document import TableSchema
from headrace.sources.mongodb_feed import Place, check, explained
from headrace.sources.mongodb_reader import MongoReader
from headrace.sources.mongodb_rows import Rows
from headrace.sources.mongodb_url import MongoUrl


class MongoSource:
    """The source behind `mongodb:` URLs.

    Args:
        url: `mongodb://host:27017/db?collection=articles`
        options: As in the query, and before it.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = MongoUrl.parse(url, options)

    def __repr__(self) -> str:
        return f"MongoSource({self.name!r})"

    @property
    def name(self) -> str:
        """The hosts, the database and the collection."""
        return self._url.name

    def open(self, position: Any | None, schema: TableSchema) -> MongoReader:
        """Begin after a position; see `TableSource.open`. Without one, the server is asked at once what there is.

        Raises:
            ConfigError: The collection is not there, the login is refused, the server has no change streams, the key
                of the table is not one that a delete tells, or the position is not one of this source's.
            StorageError: The server is out of reach.
        """
        rows = Rows(self._url.namespace, schema, self._url.id)
        if position is not None:
            return MongoReader(self._url, rows, Place.read(position, self._url))
        client = self._url.client()
        try:
            check(client, self._url, rows)
        except PyMongoError as error:
            client.close()
            raise explained(error, self._url) from None
        except BaseException:
            client.close()
            raise
        return MongoReader(self._url, rows, Place(self._url.namespace), client)
