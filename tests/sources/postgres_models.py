"""A table of Postgres that tests follow and change."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from headrace.document import Document, TableSchema
from headrace.sources.postgres import PostgresSource
from headrace.sources.tables import Changes, TableReader
from headrace.testing.tables import TableModel, batches
from services.postgres import Postgres


class Article(Document):
    id: str
    text: str | None = None


class World:
    """A database of its own, with the table `articles`; see `headrace.testing.tables.TableWorld`."""

    def __init__(
        self,
        server: Postgres,
        model: type[Document],
        columns: str = "id text PRIMARY KEY, text text",
        **options: Any,
    ) -> None:
        self.server = server
        self.database = server.database()
        self.connection = psycopg.connect(server.url_of(self.database), autocommit=True)
        self.run(f"CREATE TABLE articles ({columns})")
        self.options = {"table": "articles"} | options
        self.source = self.another()
        self.schema = TableSchema.of("articles", [model], key="id")

    def another(self, **options: Any) -> PostgresSource:
        """A source of the same table."""
        return PostgresSource(self.server.url_of(self.database, **(self.options | options)))

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Statements, each in a transaction of its own; the rows of the last."""
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            found = self.connection.execute(statement.encode())
            rows = found.fetchall() if found.description else []
        return rows

    def put(self, key: str, text: str) -> str:
        self.connection.execute(
            "INSERT INTO articles (id, text) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET text = excluded.text",
            (key, text),
        )
        return key

    def delete(self, key: str) -> None:
        self.connection.execute("DELETE FROM articles WHERE id = %s", (key,))

    def text(self, document: Any) -> str:
        return str(document.text)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The table as it is, by key."""
        with self.connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return {self.schema.key_text(row): row for row in cursor.execute("SELECT * FROM articles")}

    def slots(self) -> list[str]:
        """The names of the database's slots."""
        query = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        return [name for (name,) in self.run(query)]

    def close(self) -> None:
        """Leaves nothing behind: a slot that nobody reads keeps the server's log."""
        if self.connection.broken:
            self.connection = psycopg.connect(self.server.url_of(self.database), autocommit=True)
        self.run(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
            "WHERE database = current_database() AND active_pid IS NOT NULL"
        )
        self.source.drop()
        self.connection.close()
        self.server.run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.database)).as_string(None))


def follow(reader: TableReader, model: TableModel) -> list[Changes]:
    """Read to the end, each batch stored; returns them."""
    found = []
    for batch in batches(reader):
        model.take(batch)
        reader.stored(batch)
        found.append(batch)
    return found
