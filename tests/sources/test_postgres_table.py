"""What the log of Postgres tells besides plain rows: types, keys that change, long texts, truncates, other columns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from postgres_models import Article, World, follow
from pydantic import ConfigDict

from headrace.document import Document, TableSchema
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.sources import postgres_changes, postgres_reader, postgres_server, postgres_snapshot
from headrace.sources.postgres import PostgresSource, forget
from headrace.sources.tables import Changes
from headrace.testing.tables import TableModel, batches, read_all
from services.kafka import until
from services.postgres import PASSWORD, Postgres

LONG = "".join(f"{number:06d} " for number in range(2_000))  # is compressed, but not to under 2 kB


class Anything(Document):
    model_config = ConfigDict(extra="allow")

    id: int


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def world_of(postgres: Postgres) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def of(columns: str = "id int PRIMARY KEY, title text, text text", **options: Any) -> World:
        made.append(World(postgres, Anything, columns, **options))
        return made[-1]

    try:
        yield of
    finally:
        for each in made:
            each.close()


def table(model: TableModel) -> dict[str, dict[str, Any]]:
    return {key: row.model_dump() for key, row in model.rows.items()}


TYPES = {
    "small": ("smallint", "-3", -3),
    "whole": ("int", "2147483647", 2147483647),
    "big": ("bigint", "9223372036854775807", 9223372036854775807),
    "single": ("real", "1.5", 1.5),
    "double": ("double precision", "0.1", 0.1),
    "exact": ("numeric(20,5)", "12345678901234.56789", Decimal("12345678901234.56789")),
    "flag": ("boolean", "true", True),
    "texts": ("text", "'ünï\n\t\\ ''x'", None),
    "fixed": ("char(4)", "'ab'", "ab  "),
    "raw": ("bytea", r"'\x00ff'::bytea", b"\x00\xff"),
    "zoned": ("timestamptz", "'2024-05-06 07:08:09.123456+02'", datetime(2024, 5, 6, 5, 8, 9, 123456, UTC)),
    "naive": ("timestamp", "'2024-05-06 07:08:09'", datetime(2024, 5, 6, 7, 8, 9)),
    "day": ("date", "'2024-05-06'", date(2024, 5, 6)),
    "never": ("timestamptz", "'infinity'", "infinity"),
    "object": ("json", """'{"a": [1, null]}'""", {"a": [1, None]}),
    "binary_object": ("jsonb", """'{"a": {"b": 2.5}}'""", {"a": {"b": 2.5}}),
    "words": ("text[]", """ARRAY['a', 'b,"c"', NULL]""", ["a", 'b,"c"', None]),
    "grid": ("int[]", "ARRAY[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
    "days": ("date[]", "ARRAY['2024-05-06'::date]", [date(2024, 5, 6)]),
    "one": ("uuid", "'0b1f6a4e-7a0e-4d0e-9d4c-2f2d2e7f0a11'", "0b1f6a4e-7a0e-4d0e-9d4c-2f2d2e7f0a11"),
    "span": ("interval", "'1 day 2 hours'", "P1DT2H"),
    "mood": ("mood", "'glad'", "glad"),
    "moods": ("mood[]", "ARRAY['glad', 'sad']::mood[]", ["glad", "sad"]),
    "positive": ("positive", "7", 7),
    "nothing": ("int", "NULL", None),
}


def test_every_type_reads_the_same_from_snapshot_and_stream(world_of: Callable[..., World]) -> None:
    world = world_of()
    world.run("CREATE TYPE mood AS ENUM ('glad', 'sad')", "CREATE DOMAIN positive AS int CHECK (value > 0)")
    world.run("DROP TABLE articles", "CREATE TABLE articles (id int PRIMARY KEY)")
    for name, (type_, _, _) in TYPES.items():
        world.run(f"ALTER TABLE articles ADD {name} {type_}")
    insert = f"INSERT INTO articles VALUES (ID, {', '.join(value for _, value, _ in TYPES.values())})"
    world.run(insert.replace("ID", "1"))
    expected = {name: value for name, (_, _, value) in TYPES.items()} | {"texts": "ünï\n\t\\ 'x"}
    found: list[Any] = []
    with closing(world.source.open(None, world.schema)) as reader:
        found += [change.row for batch in batches(reader) for change in batch.changes]
        world.run(insert.replace("ID", "2"))
        found += [change.row for batch in batches(reader) for change in batch.changes]
    assert found == [{"id": 1} | expected, {"id": 2} | expected]


def test_keys_that_change_take_the_old_row_away(world_of: Callable[..., World]) -> None:
    world = world_of()
    model = TableModel(world.schema)
    world.run("INSERT INTO articles VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')")
    with closing(world.source.open(None, world.schema)) as reader:
        follow(reader, model)
        world.run("UPDATE articles SET id = id + 10 WHERE id < 3", "DELETE FROM articles WHERE id = 3")
        found = follow(reader, model)
    assert table(model) == world.rows()
    assert [change.key for batch in found for change in batch.changes] == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_a_truncate_takes_all_away(world_of: Callable[..., World]) -> None:
    world = world_of()
    model = TableModel(world.schema)
    world.run("INSERT INTO articles VALUES (1, 'a', 'x')")
    with closing(world.source.open(None, world.schema)) as reader:
        follow(reader, model)
        with world.connection.transaction():
            world.run("TRUNCATE articles", "INSERT INTO articles VALUES (5, 'new', 'n')")
        follow(reader, model)
    assert list(table(model)) == ["5"]


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_long_text_that_was_left_alone_is_not_lost(world_of: Callable[..., World], identity: str) -> None:
    world = world_of()
    world.run(
        "ALTER TABLE articles ALTER text SET STORAGE EXTERNAL", f"ALTER TABLE articles REPLICA IDENTITY {identity}"
    )
    world.run(*(f"INSERT INTO articles VALUES ({number}, 'a', '{LONG}')" for number in range(6)))
    model = TableModel(world.schema)
    with closing(world.source.open(None, world.schema)) as reader:
        follow(reader, model)
        world.run("UPDATE articles SET title = 'b' WHERE id = 0")
        world.run("UPDATE articles SET id = 11, title = 'c' WHERE id = 1")
        world.run("UPDATE articles SET title = 'd' WHERE id = 2", "DELETE FROM articles WHERE id = 2")
        world.run("UPDATE articles SET id = 13 WHERE id = 3", "DELETE FROM articles WHERE id = 13")
        world.run("UPDATE articles SET id = 14 WHERE id = 4", "UPDATE articles SET id = 24, title = 'e' WHERE id = 14")
        world.run("UPDATE articles SET title = 'f' WHERE id = 5", "UPDATE articles SET text = 'short' WHERE id = 5")
        found = follow(reader, model)
    assert table(model) == world.rows()
    assert all(change.row is None or change.row["text"] for batch in found for change in batch.changes)


def test_columns_may_come_and_go(world_of: Callable[..., World]) -> None:
    world = world_of()
    model = TableModel(world.schema)
    with closing(world.source.open(None, world.schema)) as reader:
        follow(reader, model)
        world.run("INSERT INTO articles VALUES (1, 'a', 'x')", "ALTER TABLE articles ADD lang text DEFAULT 'en'")
        world.run("INSERT INTO articles VALUES (2, 'b', 'y', 'de')", "ALTER TABLE articles DROP title")
        world.run("INSERT INTO articles VALUES (3, 'z', 'fr')", "ALTER TABLE articles RENAME text TO body")
        world.run("INSERT INTO articles VALUES (4, 'w', 'it')", "ALTER TABLE articles RENAME TO essays")
        world.run("INSERT INTO essays VALUES (5, 'v', 'es')", "ALTER TABLE essays RENAME TO articles")
        follow(reader, model)
    assert table(model) == {
        "1": {"id": 1, "title": "a", "text": "x"},
        "2": {"id": 2, "title": "b", "text": "y", "lang": "de"},
        "3": {"id": 3, "text": "z", "lang": "fr"},
        "4": {"id": 4, "body": "w", "lang": "it"},
        "5": {"id": 5, "body": "v", "lang": "es"},
    }


def test_a_table_without_an_identity_is_refused(world_of: Callable[..., World]) -> None:
    """The server would refuse its owner's updates once it is published."""
    world = world_of("id int, text text")
    with pytest.raises(ConfigError, match="REPLICA IDENTITY FULL"):
        world.source.open(None, world.schema)
    world.run("ALTER TABLE articles REPLICA IDENTITY FULL", "INSERT INTO articles VALUES (1, 'a')")
    assert world.run("SELECT count(*) FROM pg_publication") == [(0,)]
    model = TableModel(world.schema)
    with closing(world.source.open(None, world.schema)) as reader:
        follow(reader, model)
        world.run(
            "UPDATE articles SET id = 2", "INSERT INTO articles VALUES (3, 'c')", "DELETE FROM articles WHERE id = 2"
        )
        follow(reader, model)
    assert table(model) == {"3": {"id": 3, "text": "c"}}


def test_a_key_that_deletes_do_not_tell_is_refused(world_of: Callable[..., World]) -> None:
    world = world_of("number int PRIMARY KEY, id int")
    with pytest.raises(ConfigError, match="only number, and the key is id"):
        world.source.open(None, world.schema)


@pytest.mark.parametrize(
    ("options", "message"), [({"table": "artcles"}, "nothing of that name"), ({"columns": "title"}, "no id")]
)
def test_what_is_not_there_is_said(world_of: Callable[..., World], options: dict[str, Any], message: str) -> None:
    world = world_of()
    with pytest.raises(ConfigError, match=message):
        world.another(**options).open(None, world.schema)


def test_partitions_are_one_table(world_of: Callable[..., World]) -> None:
    world = world_of()
    world.run(
        "DROP TABLE articles",
        "CREATE TABLE articles (id int PRIMARY KEY, text text) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF articles FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE high PARTITION OF articles FOR VALUES FROM (10) TO (20)",
        "INSERT INTO articles VALUES (1, 'a'), (11, 'b')",
    )
    model = TableModel(world.schema)
    with closing(world.source.open(None, world.schema)) as reader:
        follow(reader, model)
        world.run("UPDATE articles SET id = 12 WHERE id = 1", "INSERT INTO low VALUES (2, 'c')")
        follow(reader, model)
    assert table(model) == world.rows()


def test_columns_that_were_asked_for(world_of: Callable[..., World]) -> None:
    world = world_of()
    world.run("INSERT INTO articles VALUES (1, 'a', 'x')")
    source = world.another(columns="id,title")
    with closing(source.open(None, world.schema)) as reader:
        rows = [change.row for batch in batches(reader) for change in batch.changes]
        world.run("INSERT INTO articles VALUES (2, 'b', 'y')")
        rows += [change.row for batch in batches(reader) for change in batch.changes]
    assert rows == [{"id": 1, "title": "a"}, {"id": 2, "title": "b"}]


# Snapshots.


def test_no_change_is_lost_while_the_snapshot_is_read(
    world_of: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows change, come and go behind and before the place that was read to."""
    monkeypatch.setattr(postgres_snapshot, "MOST_ROWS", 3)
    world = world_of()
    world.run("INSERT INTO articles SELECT n, 'a', 'x' FROM generate_series(1, 30) n")
    model, told = TableModel(world.schema), []
    with closing(world.source.open(None, world.schema)) as reader:
        for number, batch in enumerate(batches(reader)):
            model.take(batch)
            told.append(batch)
            if batch.snapshot:
                world.run(f"UPDATE articles SET title = 'b{number}' WHERE id % 5 = {number % 5}")
                world.run(f"UPDATE articles SET id = id + 100 WHERE id = {30 - number}")
                world.run(f"DELETE FROM articles WHERE id = {number + 2}")
        follow(reader, model)
    snapshot = [change.row for batch in told if batch.snapshot for change in batch.changes]
    assert [row["title"] for row in snapshot if row is not None and not isinstance(row, bytes)] == ["a"] * 30
    assert table(model) == world.rows()


@pytest.mark.parametrize("key", ["PRIMARY KEY", "NOT NULL"])
def test_a_snapshot_that_was_broken_off_goes_on(
    world_of: Callable[..., World], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """After the last key, or from the beginning where there is none; also if rows changed in between."""
    monkeypatch.setattr(postgres_snapshot, "MOST_ROWS", 3)
    world = world_of(f"id int {key}, title text")
    if key != "PRIMARY KEY":
        world.run("ALTER TABLE articles REPLICA IDENTITY FULL")
    world.run("INSERT INTO articles SELECT n, 'a' FROM generate_series(1, 20) n")
    model, position, begun = TableModel(world.schema), None, 0
    for number in range(4):
        with closing(world.source.open(position, world.schema)) as reader:
            batch = reader.read(10)
            assert batch is not None
            begun += batch.begins
            model.take(batch)
            reader.stored(batch)
            position = batch.position
        world.run(f"UPDATE articles SET id = {40 + number} WHERE id = {20 - number}")
        world.run(
            f"UPDATE articles SET id = {-number} WHERE id = {15 - number}", f"DELETE FROM articles WHERE id = {number}"
        )
    with closing(world.source.open(position, world.schema)) as reader:
        follow(reader, model)
    assert table(model) == world.rows()
    assert begun == (1 if key == "PRIMARY KEY" else 4)


def test_without_a_snapshot_only_changes_are_told(world_of: Callable[..., World]) -> None:
    world = world_of(snapshot="never")
    world.run("INSERT INTO articles VALUES (1, 'a', 'x')")
    world.source.open(None, world.schema).close()
    world.run("INSERT INTO articles VALUES (2, 'b', 'y')")
    found = read_all(world.source, world.schema)
    assert [[change.row for change in batch.changes] for batch in found] == [[{"id": 2, "title": "b", "text": "y"}]]
    assert not any(batch.begins or batch.complete or batch.snapshot for batch in found)


def test_when_the_slot_is_gone_deletes_are_found(world_of: Callable[..., World]) -> None:
    world = world_of()
    world.run("INSERT INTO articles VALUES (1, 'a', 'x'), (2, 'b', 'y')")
    model = TableModel(world.schema)
    with closing(world.source.open(None, world.schema)) as reader:
        position = follow(reader, model)[-1].position
    world.source.drop()
    world.run("DELETE FROM articles WHERE id = 1", "INSERT INTO articles VALUES (3, 'c', 'z')")
    with closing(world.source.open(position, world.schema)) as reader:
        found = follow(reader, model)
    assert [found[0].begins, found[-1].complete] == [True, True]
    assert table(model) == world.rows()


def test_when_the_slot_is_gone_and_no_snapshot_is_wanted_it_is_said(world_of: Callable[..., World]) -> None:
    world = world_of(snapshot="never")
    with closing(world.source.open(None, world.schema)) as reader:
        world.run("INSERT INTO articles VALUES (1, 'a', 'x')")
        position = follow(reader, TableModel(world.schema))[-1].position
    world.source.drop()
    world.run("INSERT INTO articles VALUES (2, 'b', 'y')")
    letters = [letter for batch in read_all(world.source, world.schema, position) for letter in batch.letters]
    assert ["was not read" in letter.reason for letter in letters] == [True]


@pytest.mark.parametrize("lie", [{"system": "1"}, {"table": 1}, {"slot": "another"}, {"lsn": "0/1"}])
def test_a_position_that_no_longer_holds_begins_a_snapshot(world_of: Callable[..., World], lie: dict[str, Any]) -> None:
    world = world_of()
    world.run("INSERT INTO articles VALUES (1, 'a', 'x')")
    position = read_all(world.source, world.schema)[-1].position
    assert [
        read_all(world.source, world.schema, position),
        read_all(world.source, world.schema, position | lie)[0].begins,
    ] == [
        [],
        True,
    ]


def test_a_table_that_was_made_again_is_read_again(world_of: Callable[..., World]) -> None:
    world = world_of()
    world.run("INSERT INTO articles VALUES (1, 'a', 'x')")
    model = TableModel(world.schema)
    with closing(world.source.open(None, world.schema)) as reader:
        position = follow(reader, model)[-1].position
    world.run("DROP TABLE articles", "CREATE TABLE articles (id int PRIMARY KEY, text text)")
    world.run("INSERT INTO articles VALUES (2, 'b')")
    with closing(world.source.open(position, world.schema)) as reader:
        follow(reader, model)
        world.run("INSERT INTO articles VALUES (3, 'c')")
        follow(reader, model)
    assert table(model) == world.rows()


# Transactions and the slot.


def test_transactions_are_told_whole(world_of: Callable[..., World]) -> None:
    world = world_of()
    with closing(world.source.open(None, world.schema)) as reader:
        list(batches(reader))
        world.run("INSERT INTO articles SELECT n, 'a', 'x' FROM generate_series(1, 2500) n")
        sizes = [len(batch.changes) for batch in batches(reader)]
    assert sizes == [2500]


def test_a_transaction_that_is_too_large_is_told_in_parts(
    world_of: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stands at the place before it, so that whoever stops is told all of it again."""
    monkeypatch.setattr(postgres_changes, "MOST_OPEN", 100_000)
    world = world_of()
    model = TableModel(world.schema)
    with closing(world.source.open(None, world.schema)) as reader:
        before = follow(reader, model)[-1].position
        world.run("INSERT INTO articles SELECT n, 'a', 'x' FROM generate_series(1, 2500) n")
        found = follow(reader, model)
    assert len(found) > 2
    assert {str(batch.position) for batch in found[:-1]} == {str(before)}
    assert table(model) == world.rows()


def test_many_small_transactions_come_together(world_of: Callable[..., World]) -> None:
    world = world_of()
    with closing(world.source.open(None, world.schema)) as reader:
        list(batches(reader))
        world.run(*(f"INSERT INTO articles VALUES ({number}, 'a', 'x')" for number in range(1_500)))
        found = list(batches(reader))
    assert sum(len(batch.changes) for batch in found) == 1_500
    assert max(len(batch.changes) for batch in found) <= 1_000


def confirmed(world: World) -> int:
    ((lsn,),) = world.run(
        f"SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = '{world.source.slot}'"
    )
    return int(lsn)


def test_the_slot_moves_only_when_a_batch_was_stored(world_of: Callable[..., World]) -> None:
    world = world_of()
    with closing(world.source.open(None, world.schema)) as reader:
        for batch in batches(reader):
            reader.stored(batch)
        before = confirmed(world)
        world.run("INSERT INTO articles VALUES (1, 'a', 'x')")
        found = list(batches(reader))
        assert confirmed(world) == before
        assert reader.lag()["bytes"] > 0
        reader.stored(found[-1])
        until(lambda: confirmed(world) > before, "the slot to move")
        assert reader.lag() == {"bytes": 0}


def test_the_slot_moves_though_nothing_happens_to_the_table(
    world_of: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the server would keep all of its log for a table that is quiet."""
    monkeypatch.setattr(postgres_reader, "IDLE", 0.05)
    world = world_of()
    world.run("CREATE TABLE busy (n int)")
    with closing(world.source.open(None, world.schema)) as reader:
        follow(reader, TableModel(world.schema))
        before = confirmed(world)
        world.run("INSERT INTO busy SELECT n FROM generate_series(1, 20000) n")
        end = int(world.run("SELECT pg_current_wal_flush_lsn() - '0/0'")[0][0])
        told: list[Changes] = []

        def moved() -> bool:  # the server says how far it is by and by, and takes note of what it is told
            batch = reader.read(0.02)
            if batch is not None:
                told.append(batch)
                reader.stored(batch)
            return confirmed(world) > end - 10_000

        until(moved, "the slot at the end of the log")
        assert [batch.changes for batch in told] == [[]] * len(told)
        assert confirmed(world) > before + 1_000_000
    assert read_all(world.source, world.schema, told[-1].position) == []


def test_two_readers_of_a_slot_get_in_each_others_way(
    world_of: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "_BUSY", 0.1)
    world = world_of()
    with closing(world.source.open(None, world.schema)) as reader:
        position = follow(reader, TableModel(world.schema))[-1].position
        with pytest.raises(StorageError, match="slot="):
            world.source.open(position, world.schema)
        other = world.another(slot="another_slot")
        with closing(other.open(None, world.schema)) as second:
            world.run("INSERT INTO articles VALUES (1, 'a', 'x')")
            told = [[change.row for batch in batches(each) for change in batch.changes] for each in (reader, second)]
        other.drop()
    assert told == [[{"id": 1, "title": "a", "text": "x"}]] * 2


def test_forgetting_leaves_nothing(world_of: Callable[..., World]) -> None:
    world = world_of()
    world.source.open(None, world.schema).close()
    assert world.slots() == [world.source.slot]
    forget(world.server.url_of(world.database, table="articles"))
    forget(world.server.url_of(world.database, table="articles"))
    assert [world.slots(), world.run("SELECT pubname FROM pg_publication")] == [[], []]


def test_what_others_made_is_kept(world_of: Callable[..., World]) -> None:
    world = world_of()
    world.run(
        "CREATE PUBLICATION theirs FOR ALL TABLES", "SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')"
    )
    world.run("INSERT INTO articles VALUES (1, 'a', 'x')", "CREATE TABLE other (id int PRIMARY KEY)")
    source, model = world.another(publication="theirs", slot="theirs", keep_slot=True), TableModel(world.schema)
    with closing(source.open(None, world.schema)) as reader:
        follow(reader, model)
        world.run("INSERT INTO other VALUES (7)", "TRUNCATE other", "INSERT INTO articles VALUES (2, 'b', 'y')")
        follow(reader, model)
    source.drop()
    assert table(model) == world.rows()
    assert [world.slots(), world.run("SELECT pubname FROM pg_publication")] == [["theirs"], [("theirs",)]]
    world.run("SELECT pg_drop_replication_slot('theirs')")


def test_a_publication_without_the_table_is_refused(world_of: Callable[..., World]) -> None:
    world = world_of()
    world.run("CREATE PUBLICATION theirs")
    with pytest.raises(ConfigError, match="ALTER PUBLICATION theirs ADD TABLE"):
        world.another(publication="theirs").open(None, world.schema)


# Errors.


def test_a_server_that_is_not_there_is_a_storage_error(postgres: Postgres) -> None:
    url = postgres.url_of("postgres", table="articles").replace(f":{postgres.port}/", ":1/")
    with pytest.raises(StorageError) as found:
        PostgresSource(url).open(None, TableSchema.of("articles", [Article], key="id"))
    assert PASSWORD not in str(found.value)
    assert "127.0.0.1:1/postgres/public.articles" in str(found.value)


def test_a_user_who_may_not_follow_the_log_is_told_so(world_of: Callable[..., World]) -> None:
    world = world_of()
    world.run(
        "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN PASSWORD 'x'", "GRANT SELECT ON articles TO reader"
    )
    source = PostgresSource(world.server.url_of(world.database, table="articles", user="reader", password="x"))
    with pytest.raises(ConfigError, match="CREATE PUBLICATION"):
        source.open(None, world.schema)
    world.run(f"CREATE PUBLICATION {source.publication} FOR TABLE ONLY articles")
    with pytest.raises(ConfigError, match="REPLICATION"):
        source.open(None, world.schema)
    world.run("ALTER ROLE reader REPLICATION")
    source.open(None, world.schema).close()
    world.run("ALTER ROLE reader NOREPLICATION", "DROP OWNED BY reader", "DROP ROLE reader")


def test_closing_ends_a_snapshot_that_takes_long(world_of: Callable[..., World]) -> None:
    world = world_of()
    reader = world.source.open(None, world.schema)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            reader._server.ask("SELECT pg_sleep(60)")
        except Exception as error:  # noqa: BLE001 - whatever it is, it came at once
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND wait_event = 'PgSleep'"
    until(lambda: world.run(query) != [(0,)], "the query to run")
    reader.close()
    thread.join(10)
    assert len(raised) == 1
    with pytest.raises(ClosedError):
        reader.read(0)
