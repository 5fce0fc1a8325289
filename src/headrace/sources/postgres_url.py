"""`postgres:` URLs of tables: which table of which database, under what names it is followed.

    postgres://reader:${PGPASSWORD}@db.example:5432/news?table=public.articles
    postgresql://db.example/news?table=articles&columns=id,title,body&slot=headrace_articles&sslmode=verify-full

The URL is libpq's, and so is every parameter of the query that is not named here (`sslmode`, `sslrootcert`,
`connect_timeout`, …). `${NAME}` stands for an environment variable; a password may also be in libpq's own places
(PGPASSWORD, ~/.pgpass, a service file).

The slot's and the publication's names come from the database and the table alone, so that every later run finds them.
Two applications that follow the same table each need a slot of their own: `slot=`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from headrace.errors import ConfigError, nearest

OPTIONS = ("table", "slot", "publication", "columns", "snapshot", "keep_slot")
_EXAMPLE = "'postgres://user@host:5432/database?table=public.articles'"
_ENCODE = (
    "in a password, write %2F for '/', %3F for '?', %40 for '@' and %23 for '#', or ${NAME} for an environment variable"
)
_SLOT = re.compile(r"[a-z0-9_]{1,63}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_UNKNOWN = re.compile(r'invalid (?:URI query parameter|connection option|dsn: invalid connection option) "?([\w.]+)"?')
_SECRET = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")


@dataclass(frozen=True)
class PostgresUrl:
    """What a `postgres:` URL of a table says.

    Attributes:
        name: Server, database, schema and table, and nothing else.
        connect: libpq's parameters.
        database: Its name.
        table: Schema and table.
        slot: The replication slot's name.
        publication: The publication's name.
        own_publication: Nobody named it: it is ours to drop.
        columns: Those that rows are to have; None for all.
        snapshot: Whether the rows that are there already are told.
        keep_slot: The slot and the publication are never dropped, only read.
    """

    name: str
    connect: Mapping[str, str] = field(repr=False)
    database: str
    table: tuple[str, str]
    slot: str
    publication: str
    own_publication: bool = True
    columns: tuple[str, ...] | None = None
    snapshot: bool = True
    keep_slot: bool = False

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any]) -> PostgresUrl:
        """Read a URL and the options beside it.

        Raises:
            ConfigError: A part of it cannot be used; the message says which and what is expected.
        """
        connect, given = _taken_apart(url, options)
        database = connect.get("dbname")
        if not database:
            raise ConfigError(f"expected a database in the URL's path, as in {_EXAMPLE}, found none")
        schema, dot, table = given.get("table", "").rpartition(".")
        if not table or (dot and not schema):
            raise ConfigError(
                f"expected table=NAME or table=SCHEMA.NAME, as in {_EXAMPLE}, found {given.get('table')!r}"
            )
        schema = schema or "public"
        ours = _derived(database, schema, table)
        slot = given.get("slot") or ours
        if not _SLOT.fullmatch(slot):
            raise ConfigError(f"expected slot to be of a-z, 0-9 and '_', 63 at most, found {slot!r}")
        columns = tuple(filter(None, (each.strip() for each in given.get("columns", "").split(","))))
        return cls(
            name=f"postgres://{connect.get('host', 'local')}:{connect.get('port', '5432')}/{database}/{schema}.{table}",
            connect=connect,
            database=database,
            table=(schema, table),
            slot=slot,
            publication=given.get("publication") or ours,
            own_publication=not given.get("publication"),
            columns=columns or None,
            snapshot=_one_of(given, "snapshot", ("initial", "never")) == "initial",
            keep_slot=_one_of(given, "keep_slot", ("false", "true")) == "true",
        )

    def shown(self, error: BaseException) -> str:
        """What a library said, on one line and without any secret of this URL."""
        text = " ".join(str(error).split())
        for name in _SECRET:
            if self.connect.get(name):
                text = text.replace(self.connect[name], "…")
        return text


def _taken_apart(url: str, options: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """libpq's parameters, and ours."""
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise ConfigError(f"expected a URL such as {_EXAMPLE}, found one that cannot be taken apart") from None
    if parts.scheme not in ("postgres", "postgresql"):
        raise ConfigError(f"expected a URL such as {_EXAMPLE}, found one of the scheme {parts.scheme!r}")
    for name, _ in pairs:
        if [each for each, _ in pairs].count(name) > 1:
            raise ConfigError(f"expected the parameter {name!r} once, found it twice")
    given = dict(pairs) | {name: _plain(value) for name, value in options.items()}
    theirs = {name: value for name, value in given.items() if name not in OPTIONS}
    if "@" in parts.path:  # a password that was not percent-encoded may be anywhere
        raise ConfigError(f"expected a URL such as {_EXAMPLE}, found '@' after a '/'; {_ENCODE}")
    try:
        base = parse_dsn(urlunsplit(("postgresql", parts.netloc, parts.path, "", "")))
        make_dsn(**theirs)
    except psycopg2.ProgrammingError as error:
        unknown = _UNKNOWN.search(str(error))
        if unknown:
            raise ConfigError(
                f"a Postgres source has no option {unknown[1]!r}; {nearest(unknown[1], OPTIONS)}, and libpq's"
            ) from None
        raise ConfigError(f"expected a URL such as {_EXAMPLE}, found one that libpq cannot read; {_ENCODE}") from None
    expanded = {name: _expanded(value) for name, value in ({**base, **theirs}).items()}
    return expanded, {name: _expanded(value) for name, value in given.items() if name in OPTIONS}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _expanded(text: str) -> str:
    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(f"a Postgres URL refers to the environment variable {found[1]}, which is not set")
        return os.environ[found[1]]

    return _VARIABLE.sub(variable, text)


def _derived(database: str, schema: str, table: str) -> str:
    """A name for slot and publication: readable, of a slot's few characters, and never that of another table."""
    digest = hashlib.blake2b("\0".join((database, schema, table)).encode(), digest_size=5).hexdigest()
    readable = re.sub(r"[^a-z0-9]+", "_", table.lower()).strip("_")[:32]
    return f"headrace_{readable or 'table'}_{digest}"


def _one_of(given: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    found = given.get(name, known[0]).lower()
    if found not in known:
        raise ConfigError(f"expected {name}={' or '.join(known)}, found {found!r}; {nearest(found, known)}")
    return found
