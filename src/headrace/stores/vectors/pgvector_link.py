"""Connections to one Postgres: few, opened when they are needed, and shared by threads.

A connection that broke while nobody used it says so at the next statement: everything here can be done twice, so it is
done again once, on a fresh one. A server that is away is told at once, by whoever asked, and the next caller tries
again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors

from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.stores.vectors.servers import Address, parse, scrubbed

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]
# Of each option: what it is for.
OPTIONS = {
    "schema": "the schema that holds the tables",
    "type": "halfvec or vector: two bytes a number, or four",
    "ef_search": "how many candidates a search by meaning keeps",
    "m": "how many neighbours a point has in the graph",
    "ef_construction": "how many candidates are kept while a point is put into the graph",
    "timeout": "how long to wait for the server",
    "connections": "how many connections at once",
    "password_env": "the environment's variable that holds the password",
    "sslmode": "as libpq has it",
    "sslrootcert": "a file of certificates to trust",
    "host": "a directory with the server's socket",
}
_LIBPQ = ("sslmode", "sslrootcert", "host")
INSTALL = (
    "install pgvector 0.8 or newer on the server (https://github.com/pgvector/pgvector) and let a superuser run "
    '"CREATE EXTENSION vector" in this database'
)


class Link:
    """One server.

    Args:
        url: Its URL.

    Raises:
        ConfigError: It is none.
    """

    def __init__(self, url: str) -> None:
        self.address = address = parse(url, OPTIONS)
        self.timeout = address.seconds("timeout", "5s")
        self._conninfo = _conninfo(address)
        self._secrets = (address.password, address.secret("password_env"))
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._most = address.number("connections", 4, 1, 1_000)
        self._effort = address.number("ef_search", 100, 1, 1_000)
        self._free = threading.BoundedSemaphore(self._most)
        self._closed = False

    @property
    def shown(self) -> str:
        return self.address.shown

    def run(self, work: Callable[[Connection], T]) -> T:
        """Runs something that may be run again, in a transaction of its own.

        Raises:
            StorageError: The server is away or refused it.
            ConfigError: It has no pgvector.
            ClosedError: It was closed.
        """
        if not self._free.acquire(timeout=self.timeout):
            raise StorageError(
                f"{self.shown}: all {self._most} connections have been in use for {self.timeout:g} s; write more into "
                "the URL, as in ?connections=16"
            )
        try:
            return self._run(work)
        except psycopg.Error as error:
            raise self._told(error) from error
        finally:
            self._free.release()

    def _run(self, work: Callable[[Connection], T]) -> T:
        with self._lock:
            if self._closed:
                raise ClosedError(f"the index at {self.shown} is closed")
            used = self._idle.pop() if self._idle else None
        if used is not None:
            try:
                return self._on(used, work)
            except (psycopg.OperationalError, psycopg.InterfaceError):
                if not used.closed:
                    raise
                # Others that wait have most likely broken with it.
                self._forget()
        return self._on(self._connect(), work)

    def _on(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        done = False
        try:
            with connection.transaction():
                result = work(connection)
            done = True
            return result
        finally:
            with self._lock:
                keep = not connection.closed and not self._closed and (done or not connection.broken)
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def _connect(self) -> Connection:
        wait = max(2, round(self.timeout))
        connection = psycopg.connect(
            self._conninfo,
            autocommit=True,
            connect_timeout=wait,
            keepalives_idle=30,
            tcp_user_timeout=1_000 * wait,
            application_name="headrace",
        )
        try:
            _prepare(connection)
            register_vector(connection)
        except psycopg.ProgrammingError as error:
            connection.close()
            raise ConfigError(f"{self.shown}: the database has no extension vector; {INSTALL}") from error
        except BaseException:
            connection.close()
            raise
        # Said once for the connection. A filter leaves out what the graph finds: it goes on until k have passed.
        connection.execute(f"SET hnsw.ef_search = {self._effort}")
        connection.execute("SET hnsw.iterative_scan = strict_order")
        connection.execute(f"SET statement_timeout = {round(1_000 * max(self.timeout, 1) * 12)}")
        return connection

    def _forget(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _told(self, error: psycopg.Error) -> StorageError:
        text = scrubbed(error, *self._secrets)
        if isinstance(error, errors.DiskFull):
            return StorageError(f"{self.shown} is full: {text}; make room on the server")
        if isinstance(error, errors.UndefinedTable):
            return StorageError(f"{self.shown}: the index is not there any more ({text}); open it again")
        if isinstance(error, psycopg.OperationalError):
            return StorageError(f"{self.shown} cannot be used: {text}; see that it runs and takes this user")
        return StorageError(f"{self.shown} refused: {text}")

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._forget()


def _prepare(connection: Connection) -> None:
    """Makes the extension, where this user may."""
    if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone() is None:
        # Two that begin at once would both make it.
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(7233184)")
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")


def _conninfo(address: Address) -> str:
    database = address.path.strip("/")
    if "/" in database:
        raise ConfigError(f"{address.shown}: expected one database behind the host, found {database!r}")
    password = address.secret("password_env") or address.password
    user = quote(address.user or "", safe="") + (f":{quote(password, safe='')}" if password else "")
    host = f"[{address.host}]" if ":" in address.host else address.host
    port = f":{address.port}" if address.port else ""
    options = "&".join(f"{name}={quote(address.options[name])}" for name in _LIBPQ if name in address.options)
    return f"postgresql://{user + '@' if user else ''}{host}{port}/{database}" + (f"?{options}" if options else "")
