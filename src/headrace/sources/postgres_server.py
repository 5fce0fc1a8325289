"""What is asked of a Postgres server besides its stream: the table, the publication, the slot, and rows by key."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import errors, sql
from psycopg2.extensions import BYTES
from psycopg2.extras import LogicalReplicationConnection

from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.sources import postgres_values
from headrace.sources.postgres_output import lsn_number
from headrace.sources.postgres_url import PostgresUrl

# Unless the URL says otherwise: a server that is gone is noticed within a minute.
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "application_name": "headrace",
}
_BUSY = 10.0  # seconds in which a slot that somebody reads may become free
_OLDEST = 130_000

RawRow = tuple[bytes | None, ...]


@dataclass(frozen=True)
class Table:
    """A table as the catalog has it.

    Attributes:
        columns: Names and types of those that the stream tells.
        primary: The primary key's columns, in its order; empty if there is none.
        identity: The columns that the server tells of a row that was deleted.
        partitioned: It is the root of partitions.
        generated: Some of the columns are computed and stored.
    """

    oid: int
    columns: tuple[tuple[str, int], ...]
    primary: tuple[str, ...]
    identity: tuple[str, ...]
    partitioned: bool
    generated: bool


@dataclass(frozen=True)
class Slot:
    """A replication slot as the server has it; `confirmed` is where it goes on, at the earliest."""

    confirmed: int
    lost: bool


class Server:
    """The connections of one reader; one thread uses them, any may `abort`.

    Args:
        url: Which server, and what of it.
        stop: Set when the reader is closed.
    """

    def __init__(self, url: PostgresUrl, stop: threading.Event) -> None:
        self._url = url
        self._stop = stop
        self._open: list[Any] = []
        self._guard = threading.Lock()  # of the list: a file's number is another file's once it is closed
        self._plain: Any = None

    def connect(self, *, replication: bool = False) -> Any:
        """A connection of its own.

        Raises:
            psycopg2.Error: There is none to be had.
        """
        if self._stop.is_set():
            raise ClosedError(f"the reader of {self._url.name} is closed; open the source again")
        settings: dict[str, Any] = _DEFAULTS | dict(self._url.connect)
        settings["options"] = f"{settings.get('options', '')} {postgres_values.SETTINGS} -c row_security=off".strip()
        settings["client_encoding"] = "UTF8"
        factory = LogicalReplicationConnection if replication else None
        try:
            made = psycopg2.connect(connection_factory=factory, **settings)
        except psycopg2.OperationalError as error:
            if "WAL sender" in str(error) or "replication role" in str(error):  # it has no code before it is connected
                raise self._refused(error) from None
            raise
        with self._guard:
            self._open.append(made)
        if not replication:
            made.autocommit = True
        if self._stop.is_set():
            self.abort()
        return made

    def ask(self, query: str | sql.Composable, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query, in a transaction of its own."""
        if self._plain is None:
            self._plain = self.connect()
        with self._plain.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def abort(self) -> None:
        """Ends whatever a connection waits for, at once and for good; from any thread."""
        with self._guard:
            for each in self._open:
                with contextlib.suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(each.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)

    def disconnect(self) -> None:
        """Close all connections; the next question opens another."""
        with self._guard:
            while self._open:
                with contextlib.suppress(psycopg2.Error):
                    self._open.pop().close()
        self._plain = None

    # The table.

    def name_of_table(self) -> sql.Composable:
        return sql.Identifier(*self._url.table)

    def table(self) -> Table:
        """The table, now.

        Raises:
            ConfigError: It is not there, or is of a kind that has no rows of its own.
        """
        found = self.ask(
            "SELECT c.oid::int8, c.relkind::text, c.relreplident::text, current_setting('server_version_num')::int "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
            self._url.table,
        )
        shown = ".".join(self._url.table)
        if not found or found[0][1] not in ("r", "p"):
            kind = "nothing of that name" if not found else "something that is not a table (a view?)"
            raise ConfigError(f"{self._url.name}: expected the table {shown}, found {kind}; mend table= in the URL")
        oid, kind, identity, version = found[0]
        if version < _OLDEST:
            raise ConfigError(f"{self._url.name}: expected Postgres 13 or newer, found version {version}")
        generated = "('', 's')" if version >= 180_000 else "('')"
        columns = self.ask(
            "SELECT attname, atttypid::int8, attgenerated <> '' FROM pg_attribute WHERE attrelid = %s::int8::oid "
            f"AND attnum > 0 AND NOT attisdropped AND attgenerated IN {generated} ORDER BY attnum",
            (oid,),
        )
        names = tuple((name, type_) for name, type_, _ in columns)
        primary = self._index(oid, "indisprimary")
        by_kind = {"d": primary, "f": tuple(name for name, _ in names), "i": self._index(oid, "indisreplident")}
        return Table(
            oid, names, primary, by_kind.get(identity, ()), kind == "p", any(computed for _, _, computed in columns)
        )

    def _index(self, oid: int, which: str) -> tuple[str, ...]:
        found = self.ask(
            "SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY k(number, place) "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number "
            f"WHERE i.indrelid = %s::int8::oid AND i.{which} AND k.place <= i.indnkeyatts ORDER BY k.place",
            (oid,),
        )
        return tuple(name for (name,) in found)

    def types(self) -> postgres_values.Types:
        """What reads values, and asks this server about types that it does not know."""
        return postgres_values.Types(lambda oids: [tuple(each) for each in self.ask(postgres_values.QUERY, (oids,))])

    def select(self, table: Table) -> sql.Composable:
        """`SELECT` every column of the table."""
        columns = sql.SQL(", ").join(sql.Identifier(name) for name, _ in table.columns)
        only = sql.SQL("") if table.partitioned else sql.SQL("ONLY ")
        return sql.SQL("SELECT {} FROM {}{}").format(columns, only, self.name_of_table())

    def rows(self, table: Table, by: Sequence[str], keys: Iterable[tuple[str, ...]], xids: set[int]) -> list[RawRow]:
        """Rows as they are now, by the texts of columns, once some transactions can be seen.

        A transaction is told to a follower of the log a moment before anybody else can see it.
        """
        self._until_visible(xids)
        names = sql.SQL(", ").join(map(sql.Identifier, by))
        where = sql.SQL("{} WHERE ({}) IN %s").format(self.select(table), names)
        wanted = tuple(key if len(by) > 1 else key[0] for key in keys)
        connection = self._plain
        raw_values(connection, table)
        try:
            return list(self.ask(where, (wanted,)))
        finally:
            connection.string_types.clear()

    def _until_visible(self, xids: set[int]) -> None:
        deadline = time.monotonic() + _BUSY
        while True:
            ((shown,),) = self.ask("SELECT pg_current_snapshot()::text")
            _, most, running = shown.split(":")
            hidden = {int(each) & 0xFFFFFFFF for each in running.split(",") if each}
            # Numbers of transactions go round: one is in the future if it is less than half a round ahead.
            if not any(xid in hidden or (xid - int(most)) & 0xFFFFFFFF < 1 << 31 for xid in xids):
                return
            self._pause(deadline, "a committed transaction is not visible yet (a standby has to confirm it?)")

    def _pause(self, deadline: float, why: str) -> None:
        if self._stop.wait(0.02):
            raise ClosedError(f"the reader of {self._url.name} is closed; open the source again")
        if time.monotonic() > deadline:
            raise StorageError(f"{self._url.name}: {why}")

    # The publication.

    def publish(self, table: Table) -> None:
        """See that the publication is there and has the table.

        Raises:
            ConfigError: It has not, and it may not be made here.
        """
        name, shown = self._url.publication, ".".join(self._url.table)
        found = self.ask("SELECT pubinsert AND pubupdate AND pubdelete FROM pg_publication WHERE pubname = %s", (name,))
        has = self.ask(
            "SELECT 1 FROM pg_publication_tables WHERE pubname = %s AND schemaname = %s AND tablename = %s",
            (name, *self._url.table),
        )
        if found and has:
            if not found[0][0]:
                raise ConfigError(f"{self._url.name}: the publication {name!r} leaves out inserts, updates or deletes")
            return
        if found and not self._url.own_publication:
            root = " (with publish_via_partition_root, since it has partitions)" if table.partitioned else ""
            raise ConfigError(
                f"{self._url.name}: expected the publication {name!r} to have the table {shown}{root}; "
                f"ALTER PUBLICATION {name} ADD TABLE {shown}, or leave publication= out of the URL"
            )
        publication = sql.Identifier(name)
        only = sql.SQL("") if table.partitioned else sql.SQL("ONLY ")
        options = ["publish_via_partition_root = true"] if table.partitioned else []
        options += ["publish_generated_columns = stored"] if table.generated else []
        with_ = sql.SQL(f" WITH ({', '.join(options)})" if options else "")
        try:
            self.ask(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(publication))
            made = sql.SQL("CREATE PUBLICATION {} FOR TABLE {}{}{}")
            self.ask(made.format(publication, only, self.name_of_table(), with_))
        except errors.InsufficientPrivilege as error:
            raise ConfigError(
                f"{self._url.name}: the publication {name!r} is not there and may not be made "
                f"({self._url.shown(error)}); let the table's owner run: CREATE PUBLICATION {name} FOR TABLE {shown}"
            ) from None

    # The slot.

    def system(self, stream: Any) -> str:
        """The identifier of the server's data, of which a copy that was restored elsewhere has the same."""
        with stream.cursor() as cursor:
            cursor.execute("IDENTIFY_SYSTEM")
            return str(cursor.fetchone()[0])

    def slot(self) -> Slot | None:
        """The slot; None if there is none.

        Raises:
            ConfigError: It is not one that can be read here.
        """
        found = self.ask(
            "SELECT plugin, database, confirmed_flush_lsn::text, wal_status = 'lost' FROM pg_replication_slots "
            "WHERE slot_name = %s",
            (self._url.slot,),
        )
        if not found:
            return None
        plugin, database, confirmed, lost = found[0]
        if plugin != "pgoutput" or database != self._url.database:
            raise ConfigError(
                f"{self._url.name}: expected the slot {self._url.slot!r} to be one of pgoutput and of the database "
                f"{self._url.database!r}, found one of {plugin!r} and {database!r}; name another with slot="
            )
        return Slot(lsn_number(confirmed) if confirmed else 0, bool(lost) or confirmed is None)

    def make_slot(self, stream: Any) -> tuple[int, str]:
        """A new slot: where it begins, and the name of the snapshot of exactly that moment.

        The snapshot is there until `stream` is used for something else.
        """
        with stream.cursor() as cursor:
            try:
                cursor.create_replication_slot(self._url.slot, output_plugin="pgoutput")
            except errors.InsufficientPrivilege as error:
                raise self._refused(error) from None
            except (errors.ObjectNotInPrerequisiteState, errors.ConfigurationLimitExceeded) as error:
                raise ConfigError(
                    f"{self._url.name}: the server cannot make a slot ({self._url.shown(error)}); expected "
                    "wal_level = logical and a max_replication_slots with room"
                ) from None
            _, begins, snapshot, _ = cursor.fetchone()
        return lsn_number(begins), snapshot

    def drop_slot(self) -> None:
        """Drop the slot, if it is there; waits a moment for whoever reads it.

        Raises:
            StorageError: Somebody goes on reading it.
        """
        deadline = time.monotonic() + _BUSY
        while True:
            try:
                self.ask("SELECT pg_drop_replication_slot(%s)", (self._url.slot,))
                return
            except errors.UndefinedObject:
                return
            except errors.ObjectInUse:
                self._pause(deadline, self._busy())

    def start(self, stream: Any, lsn: int) -> Any:
        """Begin streaming after a place in the log; returns what messages are read from."""
        deadline = time.monotonic() + _BUSY
        options = {"proto_version": "1", "publication_names": sql.Identifier(self._url.publication).as_string(stream)}
        while True:
            cursor = stream.cursor()
            try:
                # Nothing is confirmed by the clock: only what was stored, when it was.
                cursor.start_replication(
                    self._url.slot, start_lsn=lsn, decode=False, status_interval=86_400, options=options
                )
                return cursor
            except errors.ObjectInUse:
                cursor.close()
                self._pause(deadline, self._busy())
            except errors.InsufficientPrivilege as error:
                raise self._refused(error) from None

    def end(self) -> int:
        """Where the server's log ends now."""
        return lsn_number(self.ask("SELECT pg_current_wal_flush_lsn()::text")[0][0])

    def drop(self) -> None:
        """Drop the slot, and the publication if it is ours."""
        if self._url.keep_slot:
            return
        self.drop_slot()
        if self._url.own_publication:
            self.ask(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(self._url.publication)))

    def _busy(self) -> str:
        return (
            f"another process reads the slot {self._url.slot!r}; stop it, or give this one a slot of its own with slot="
        )

    def _refused(self, error: BaseException) -> ConfigError:
        return ConfigError(
            f"{self._url.name}: the user may not follow the log ({self._url.shown(error)}); "
            "a superuser can allow it: ALTER ROLE … REPLICATION"
        )


def raw_values(connection: Any, table: Table) -> None:
    """From now on the connection gives values of the table's types as the server wrote them."""
    found, more = set[int](), {type_ for _, type_ in table.columns}
    with connection.cursor() as cursor:
        while more - found:
            found |= more
            # The values of a domain come under the type that it is made of.
            cursor.execute(
                "SELECT typbasetype::int8 FROM pg_type WHERE oid = ANY(%s::int8[]::oid[]) AND typbasetype <> 0",
                (sorted(more),),
            )
            more = {oid for (oid,) in cursor.fetchall()}
    connection.string_types.update(dict.fromkeys(found, BYTES))
