"""`mongodb:` URLs: which collection of which database, and what the client is told.

    mongodb://host1:27017,host2:27017/news?collection=articles
    mongodb+srv://${USER}:${PASSWORD}@cluster.example.net/news?collection=articles&authSource=admin

What is not an option of ours is one of pymongo's, which refuses what it does not know.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from pymongo import MongoClient
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.uri_parser import parse_uri

from headrace.errors import ConfigError
from headrace.sources.server_url import Login, ServerUrl, one_of
from headrace.units import MILLISECOND, SECOND, duration

OPTIONS = ("collection", "id", "must_exist", "wait")
EXAMPLE = "'mongodb://host:27017/db?collection=articles'"
# A server that is away is told in seconds, not in half a minute, and one that has stopped answering too.
DEFAULTS = {
    "serverSelectionTimeoutMS": "5000",
    "connectTimeoutMS": "5000",
    "socketTimeoutMS": "30000",
    "appName": "headrace",
}


@dataclass(frozen=True)
class MongoUrl:
    """What a `mongodb:` URL says.

    Attributes:
        name: The hosts, the database and the collection, and nothing else.
        uri: For pymongo.
        id: The column that `_id` goes into, beside its own.
        must_exist: Whether a collection that is not there is a mistake.
        wait: Milliseconds that the server holds an idle request; closing takes as long.
    """

    name: str
    uri: str = field(repr=False)
    login: Login
    database: str
    collection: str
    id: str
    must_exist: bool
    wait: int

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any]) -> MongoUrl:
        """Read a URL and the options beside it.

        Raises:
            ConfigError: A part of it cannot be used; the message says which and what is expected.
        """
        parts = ServerUrl.parse(url, options, ("mongodb", "mongodb+srv"), EXAMPLE)
        given = dict(parts.options)
        ours = {name: given.pop(name) for name in OPTIONS if name in given}
        collection = ours.get("collection", "")
        if not parts.path or "/" in parts.path or not collection:
            raise ConfigError(
                f"expected a database as the path and a collection as an option, as in {EXAMPLE}, found the database "
                f"{parts.path!r} and the collection {collection!r}"
            )
        wait = duration(ours.get("wait", "250ms")) // MILLISECOND
        if not 1 <= wait <= 10 * SECOND // MILLISECOND:
            raise ConfigError(f"expected wait to be from '1ms' to '10s', found {ours['wait']!r}")
        lower = {name.lower() for name in given}
        given |= {name: value for name, value in DEFAULTS.items() if name.lower() not in lower}
        uri = f"{parts.scheme}://{parts.login.userinfo}{parts.hosts}/{parts.path}?{urlencode(given)}"
        hosts = ",".join(sorted(parts.hosts.split(",")))
        found = cls(
            name=f"{parts.scheme}://{hosts}/{parts.path}.{collection}",
            uri=uri,
            login=parts.login,
            database=parts.path,
            collection=collection,
            id=ours.get("id") or "id",
            must_exist=one_of(ours, "must_exist", ("true", "false"), "true") == "true",
            wait=wait,
        )
        if parts.scheme == "mongodb":  # the other one asks a name server, which may be away now
            with found.explained():
                parse_uri(uri, warn=False)
        return found

    @property
    def namespace(self) -> str:
        """The database and the collection."""
        return f"{self.database}.{self.collection}"

    def client(self) -> MongoClient[dict[str, Any]]:
        """A client that has not connected yet.

        Raises:
            ConfigError: An option is not one of pymongo's.
        """
        with self.explained():
            return MongoClient(self.uri, connect=False, tz_aware=True)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What pymongo says of a URL, as our error and without a password; what it warns of is an error too."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                yield
            except (ConfigurationError, InvalidURI, ValueError, TypeError, UserWarning) as error:
                raise ConfigError(f"{self.name}: {self.login.hide(str(error))}") from None
