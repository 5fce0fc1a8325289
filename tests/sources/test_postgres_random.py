"""Random changes of a table, with readers that are killed and begin again wherever they once stood: the table is right.

The long version kills the server as well.
"""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgres_models import World, follow
from pydantic import ConfigDict

from headrace.document import Document
from headrace.errors import StorageError
from headrace.sources import postgres_changes, postgres_reader, postgres_snapshot
from headrace.testing.tables import TableModel, batches
from services.postgres import Postgres

LONG = "".join(f"{number:06d}" for number in range(700))  # past 2 kB: stored apart from the row


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


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that every one is met."""
    monkeypatch.setattr(postgres_snapshot, "MOST_ROWS", 5)
    monkeypatch.setattr(postgres_changes, "MOST_CHANGES", 4)
    monkeypatch.setattr(postgres_changes, "MOST_OPEN", 20_000)
    monkeypatch.setattr(postgres_reader, "IDLE", 0.001)


def change(world: World, dice: random.Random) -> None:
    """A transaction of a few random changes, some of them rolled back."""
    with world.connection.transaction(force_rollback=dice.random() < 0.1):
        for _ in range(dice.choice([1, 1, 1, 2, 5, 30])):
            key, other = dice.randrange(12), dice.randrange(12)
            what = dice.random()
            if what < 0.45:
                text = dice.choice(["short", LONG, f"{dice.random()}{LONG}", None])
                world.connection.execute(
                    "INSERT INTO articles VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET title = excluded.title"
                    + dice.choice(["", ", text = excluded.text"]),
                    (key, f"{dice.random()}", text),
                )
            elif what < 0.6:
                world.connection.execute("UPDATE articles SET title = %s WHERE id = %s", (f"{dice.random()}", key))
            elif what < 0.75:
                query = "UPDATE articles SET id = %s WHERE id = %s AND NOT EXISTS (SELECT FROM articles WHERE id = %s)"
                world.connection.execute(query, (other, key, other))
            elif what < 0.93:
                world.connection.execute("DELETE FROM articles WHERE id = %s", (key,))
            elif what < 0.96:
                world.connection.execute("TRUNCATE articles")
            else:
                world.connection.execute("INSERT INTO elsewhere SELECT n FROM generate_series(1, 50) n")


def begin(postgres: Postgres) -> World:
    world = World(postgres, Anything, "id int PRIMARY KEY, title text, text text")
    world.run("ALTER TABLE articles ALTER text SET STORAGE EXTERNAL", "CREATE TABLE elsewhere (n int)")
    return world


def state(model: TableModel) -> dict[str, dict[str, Any]]:
    return {key: row.model_dump() for key, row in model.rows.items()}


@given(seed=st.integers(0, 2**32))
def test_any_reader_from_any_position_makes_the_table(postgres: Postgres, seed: int) -> None:
    dice = random.Random(seed)
    world = begin(postgres)
    model = TableModel(world.schema)
    given_out: list[tuple[Any, TableModel]] = [(None, copy.deepcopy(model))]
    try:
        for _ in range(6):
            for _ in range(dice.randrange(8)):
                change(world, dice)
            # The newest position, or an old one: what was stored after it is read again, or a snapshot begins.
            position, model = given_out[-1 if dice.random() < 0.7 else dice.randrange(len(given_out))]
            model = copy.deepcopy(model)
            with closing(world.source.open(position, world.schema)) as reader:
                stop = dice.randrange(1, 12)
                for number, batch in enumerate(batches(reader)):
                    model.take(batch)
                    given_out.append((batch.position, copy.deepcopy(model)))
                    if dice.random() < 0.7:
                        reader.stored(batch)
                    if dice.random() < 0.3:
                        change(world, dice)
                    if number == stop:
                        break
        with closing(world.source.open(given_out[-1][0], world.schema)) as reader:
            follow(reader, model)
        assert state(model) == world.rows()
        old, model = dice.choice(given_out)
        with closing(world.source.open(old, world.schema)) as reader:
            follow(reader, model)
        assert state(model) == world.rows()
    finally:
        world.close()


@pytest.mark.services
def test_kills_of_the_server_change_nothing() -> None:
    """Ten times, in the middle of reading; what the client was not told to be committed may be there or not."""
    dice = random.Random(7)
    server = Postgres()
    server.start()
    world = begin(server)
    model = TableModel(world.schema)
    reader = world.source.open(None, world.schema)
    try:
        for round_ in range(10):
            for _ in range(30):
                change(world, dice)
                batch = reader.read(0)
                if batch is not None:
                    model.take(batch)
                    reader.stored(batch)
            if round_ % 2:
                server.kill()
                assert fails(reader, model)
            else:  # an orderly end waits until those who follow the log have all of it
                ending = threading.Thread(target=server.stop)
                ending.start()
                assert fails(reader, model)
                ending.join(10)
                assert not ending.is_alive()
            server.start()
            world.connection.close()
            world.connection = psycopg.connect(server.url_of(world.database), autocommit=True)
        follow(reader, model)
        assert state(model) == world.rows()
    finally:
        reader.close()
        world.connection.close()
        server.close()


def fails(reader: Any, model: TableModel) -> bool:
    """What was on its way may still come; then there is an error, and one at every later read."""
    for _ in range(1_000):
        try:
            batch = reader.read(0.01)
        except StorageError:
            with pytest.raises(StorageError):
                reader.read(0.01)
            return True
        if batch is not None:
            model.take(batch)
            reader.stored(batch)
    return False
