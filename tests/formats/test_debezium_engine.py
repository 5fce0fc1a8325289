"""Debezium's messages as changes: those that its engine makes of a real Postgres, in the shapes that it can write."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import ConfigDict

from headrace.document import Document, TableSchema
from headrace.errors import DecodeError
from headrace.formats.debezium import Decode, change_decoder
from headrace.sources.tables import Changes
from headrace.testing.tables import TableModel
from services.debezium import Debezium, Told, connector
from services.postgres import PASSWORD, USER, Postgres

pytestmark = pytest.mark.services

LONG = "".join(f"{number:06d}" for number in range(700))  # past 2 kB: stored apart from the row


class Row(Document):
    model_config = ConfigDict(extra="allow")

    id: int


class Titled(Document):
    id: int
    title: str
    body: str


TITLED = TableSchema.of("rows", [Titled], key="id")
SCHEMA = TableSchema.of("rows", [Row], key="id")
COLUMNS = (
    "id int PRIMARY KEY, title text, body text, price numeric(30, 5), day date, moment timestamp, zoned timestamptz, "
    "at_time time, raw bytea, doc jsonb, tags text[], flag boolean, one uuid, ratio float8, anything numeric"
)
VALUES = (
    "'ünï', 'b', 12345678901234567890.12345, '2024-05-06', '2024-05-06 07:08:09.123456', '2024-05-06 07:08:09+02', "
    r"'01:02:03', '\x00ff', '{\"a\": [1]}', ARRAY['x', NULL], true, '0b1f6a4e-7a0e-4d0e-9d4c-2f2d2e7f0a11', 0.1, 1.50"
).replace('\\"', '"')


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.close()


class Followed:
    """A database that an engine follows."""

    def __init__(self, server: Postgres, folder: Path, *statements: str, **properties: Any) -> None:
        self.connection = psycopg.connect(server.url_of(server.database()), autocommit=True)
        outbox = "id uuid PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb"
        for name, columns in (("rows", COLUMNS), ("outbox", outbox), ("last", "id text PRIMARY KEY")):
            self.run(f"CREATE TABLE {name} ({columns})")
        self.run(*statements)
        database = self.connection.info.dbname
        slot = {"slot.name": database, "publication.name": database}
        self.engine = Debezium(
            folder, connector("127.0.0.1", server.port, database, USER, PASSWORD) | slot | properties
        )
        self.engine.start()

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.connection.execute(statement.encode())

    def told(self, mark: str) -> list[Told]:
        """All that was told of the rows, up to now."""
        self.run(f"INSERT INTO last VALUES ('{mark}')")
        return [each for each in self.engine.until(mark) if ".last" not in each.topic]

    def rows(self) -> dict[str, dict[str, Any]]:
        with self.connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return {str(row["id"]): row for row in cursor.execute("SELECT * FROM rows")}

    def close(self) -> None:
        self.engine.close()
        self.connection.close()


def table(told: list[Told], decode: Decode) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The table that messages make, and why some could not be used."""
    model, refused = TableModel(SCHEMA), []
    for each in told:
        try:
            model.take(Changes(decode(each.key, each.value, each.headers), None))
        except DecodeError as error:
            refused.append(str(error))
    return {key: row.model_dump() for key, row in model.rows.items()}, refused


def plain(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows with the values that are texts in the messages as such."""
    for row in rows.values():
        row["one"] = None if row["one"] is None else str(row["one"])
    return rows


def test_envelopes_with_schemas_make_the_table(postgres: Postgres, tmp_path: Path) -> None:
    """Random changes, keys that change among them, and truncates; every type."""
    dice = random.Random(5)
    followed = Followed(postgres, tmp_path, "ALTER TABLE rows REPLICA IDENTITY FULL",
        f"INSERT INTO rows SELECT n, {VALUES} FROM generate_series(1, 5) n",
        **{"skipped.operations": "none", "converter.schemas.enable": "true"})  # fmt: skip
    try:
        followed.told("snapshot")
        for number in range(300):
            change(followed, dice, number)
        followed.run(f"INSERT INTO rows VALUES (1000, {VALUES})", "INSERT INTO rows (id) VALUES (1001)")
        followed.run(f"UPDATE rows SET body = '{LONG}' WHERE id = 1000", "UPDATE rows SET title = 'z' WHERE id = 1000")
        rows, refused = table(followed.told("end"), change_decoder(SCHEMA, "debezium"))
        expected = plain(followed.rows())
        wrong = {key: (row, expected.get(key)) for key, row in rows.items() if row != expected.get(key)}
        assert (wrong, sorted(rows), refused) == ({}, sorted(expected), [])
    finally:
        followed.close()


def change(followed: Followed, dice: random.Random, number: int) -> None:
    key, other = dice.randrange(12), dice.randrange(12)
    text = dice.choice(["short", LONG])
    followed.run(
        dice.choices(
            [
                f"INSERT INTO rows (id, title, body) VALUES ({key}, '{number}', '{text}') ON CONFLICT (id) DO UPDATE "
                "SET title = excluded.title",
                f"UPDATE rows SET title = '{number}' WHERE id = {key}",
                f"UPDATE rows SET id = {other} WHERE id = {key} AND NOT EXISTS (SELECT FROM rows WHERE id = {other})",
                f"DELETE FROM rows WHERE id = {key}",
                "TRUNCATE rows",
            ],
            [6, 4, 4, 3, 0.2],
        )[0]
    )


def test_without_schemas_and_with_what_was_left_alone(postgres: Postgres, tmp_path: Path) -> None:
    """A long text that an update left alone is not in the log: such a row is refused, and nothing is emptied."""
    followed = Followed(
        postgres, tmp_path, "ALTER TABLE rows ALTER body SET STORAGE EXTERNAL", **{"converter.schemas.enable": "false"}
    )
    try:
        followed.told("snapshot")
        followed.run(f"INSERT INTO rows (id, title, body) VALUES (1, 'a', '{LONG}'), (2, 'b', 'short'), (3, 'c', 'd')")
        followed.run(
            "UPDATE rows SET title = 'new'", "UPDATE rows SET id = 12 WHERE id = 2", "DELETE FROM rows WHERE id = 3"
        )
        rows, refused = table(followed.told("end"), change_decoder(TITLED, "debezium"))
        assert {key: (row["title"], row["body"]) for key, row in rows.items()} == {
            "1": ("a", LONG),
            "12": ("new", "short"),
        }
        assert ["no value of body" in reason for reason in refused] == [True]
    finally:
        followed.close()


@pytest.mark.parametrize("handling", ["rewrite", "tombstone"])
def test_flattened_rows_make_the_table(postgres: Postgres, tmp_path: Path, handling: str) -> None:
    followed = Followed(postgres, tmp_path, **{
        "converter.schemas.enable": "false",
        "transforms": "unwrap",
        "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
        "transforms.unwrap.delete.tombstone.handling.mode": handling,
        "transforms.unwrap.add.fields": "op,table,lsn,source.ts_ms",
    })  # fmt: skip
    try:
        followed.told("snapshot")
        followed.run("INSERT INTO rows (id, title) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        followed.run(
            "UPDATE rows SET id = 12 WHERE id = 2", "DELETE FROM rows WHERE id = 3", "UPDATE rows SET flag = true"
        )
        rows, refused = table(followed.told("end"), change_decoder(SCHEMA, "debezium"))
        assert (rows, refused) == (followed.rows(), [])
    finally:
        followed.close()


def test_an_outbox_makes_the_table(postgres: Postgres, tmp_path: Path) -> None:
    followed = Followed(postgres, tmp_path, **{
        "converter.schemas.enable": "false",
        "table.include.list": "public.outbox,public.last",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.table.fields.additional.placement": "type:envelope:eventType",
        "predicates": "isOutbox",
        "predicates.isOutbox.type": "org.apache.kafka.connect.transforms.predicates.TopicNameMatches",
        "predicates.isOutbox.pattern": ".*outbox",
        "transforms.outbox.predicate": "isOutbox",
    })  # fmt: skip
    event = "INSERT INTO outbox VALUES (gen_random_uuid(), 'article', {}, {}, {})"
    try:
        followed.told("snapshot")
        followed.run(
            event.format("'1'", "'ArticleWritten'", """'{"title": "a"}'"""),
            event.format("'2'", "'ArticleWritten'", """'{"title": "b"}'"""),
            event.format("'1'", "'ArticleChanged'", """'{"title": "c"}'"""),
            event.format("'2'", "'ArticleDeleted'", """'{"title": "b"}'"""),
        )
        assert table(followed.told("end"), change_decoder(SCHEMA, "outbox")) == ({"1": {"id": 1, "title": "c"}}, [])
    finally:
        followed.close()
