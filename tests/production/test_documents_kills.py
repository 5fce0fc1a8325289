"""kill -9 of us and of the source, ten times in 5,000 changes: afterwards source, records and index agree exactly."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import archive
import pytest
from engines import Engine
from writers import MongoWriter, PostgresWriter, RabbitWriter, Writer

import headrace as hr
from headrace.documents.identity import identified
from headrace.documents.states import Raw
from services.debezium import Debezium, connector
from services.kafka import Kraft, until
from services.mongodb import Mongo
from services.postgres import PASSWORD, USER, Postgres
from services.rabbitmq import Rabbit

pytestmark = pytest.mark.services
OPERATIONS = 5_000
KILLS = 10
PATIENCE = 120.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def agree(live: hr.Live, rows: dict[str, dict[str, Any]]) -> None:
    """The table, the records and the index hold these rows, and nothing else."""
    live.drain(PATIENCE)
    store = live.library.tables["articles"].store
    held = {one.key: archive.Article.model_validate_json(one.body or b"") for one in store.as_of()}
    assert held == {key: archive.Article(**row) for key, row in rows.items()}
    running = live.library.collections["library"]
    assert running.wait(lambda: not running.sweeping(), 30)
    (space,) = running.spaces.open.values()
    wanted: set[str] = set()
    for key, row in rows.items():
        raw = Raw(key, "article", archive.Article(**row), 1, 0)
        pieces = running.collection.handlers.pieces(running.collection.handlers.cleaned(raw), space.embedder)
        wanted |= {chunk.id for chunk in identified(f"library/{space.embedder.name}", key, pieces)}
    with running.records.moment() as moment:
        assert set(moment.ids(space.number)) == wanted
    assert set(space.index.ids()) == wanted


def survive(folder: Path, stack: ExitStack, source: str, server: Any, writer: Writer) -> None:
    """Writes, kills by turns us and the server, and compares at the end."""
    chance = random.Random(7)
    engine = Engine(folder / "engine", source, app="archive:app")
    engine.start()
    stack.callback(engine.stop)
    with writer:
        for number, moment in enumerate(sorted(chance.sample(range(100, OPERATIONS - 100), KILLS))):
            until(lambda moment=moment: writer.done >= moment or writer.failure, f"{moment} operations", PATIENCE)
            if number % 2:
                writer.calm.clear()
                server.kill()
                server.start()
                writer.calm.set()
            else:
                engine.kill()
                engine.start()
        until(lambda: writer.done >= OPERATIONS or writer.failure, "all operations", PATIENCE)
    assert writer.failure is None
    if isinstance(server, Connector):
        writer.write([("put", "a-last", {"id": "a-last", "title": "The last", "body": "zz-last", "version": 0})])
        until(lambda: server.carried("zz-last"), "all changes in the topic", PATIENCE)
    engine.kill()
    table = archive.app.tables["articles"]
    # The source comes from the environment, which this process did not have when the app was declared.
    object.__setattr__(table, "url", source)
    try:
        with archive.app.open(folder / "engine" / "data") as live:
            agree(live, writer.rows())
    finally:
        object.__setattr__(table, "url", None)


Make = Callable[[Path, ExitStack], tuple[str, Any, Writer]]


def postgres(folder: Path, stack: ExitStack) -> tuple[str, Any, Writer]:
    server = Postgres()
    stack.callback(server.close)
    server.start()
    database = server.database()
    server.run(
        "CREATE TABLE articles (id text PRIMARY KEY, title text NOT NULL, body text NOT NULL)", database=database
    )
    return server.url_of(database, table="articles"), server, PostgresWriter(server, database, 1, OPERATIONS)


def mongodb(folder: Path, stack: ExitStack) -> tuple[str, Any, Writer]:
    server = Mongo(folder / "mongo")
    stack.callback(server.close)
    server.start()
    collection = server.collection().name
    return server.url(collection), server, MongoWriter(server, collection, 2, OPERATIONS)


def rabbitmq(folder: Path, stack: ExitStack) -> tuple[str, Any, Writer]:
    server = Rabbit(folder / "rabbit")
    stack.callback(server.close)
    server.start()
    queue = server.queue("quorum")
    server.settle()
    return server.url(queue, format="change"), server, RabbitWriter(server, queue, 3, OPERATIONS)


@pytest.mark.parametrize("make", [postgres, mongodb, rabbitmq], ids=lambda make: make.__name__)
def test_source_and_index_agree(make: Make, tmp_path: Path, stack: ExitStack) -> None:
    source, server, writer = make(tmp_path, stack)
    survive(tmp_path, stack, source, server, writer)


class Connector:
    """Debezium, and what carries its messages to a topic; killed and started as one."""

    def __init__(self, folder: Path, postgres: Postgres, database: str, broker: Kraft, topic: str) -> None:
        table = {"table_include_list": "public.articles"}
        login = ("127.0.0.1", postgres.port, database, USER, PASSWORD)
        self.debezium = Debezium(folder / "debezium", connector(*login, **table))
        self._producer, self._topic = broker.producer(), topic
        self._sent = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def start(self) -> None:
        self.debezium.start()
        if not self._thread.is_alive():
            self._thread.start()

    def kill(self) -> None:
        self.debezium.close()

    def close(self) -> None:
        self.kill()
        self._ending.set()
        self._thread.join(20)

    def carried(self, last: str) -> bool:
        """Whether a message that says this is in the topic, and all before it."""
        told = self.debezium.told
        return self._sent == len(told) and any(last.encode() in (one.value or b"") for one in told)

    def _carry(self) -> None:
        while not self._ending.wait(0.02):
            told = self.debezium.told
            end = len(told)
            for one in told[self._sent : end]:
                self._producer.produce(self._topic, value=one.value, key=one.key)
                self._producer.poll(0)
            self._producer.flush(20)
            self._sent = end


def test_debezium_and_index_agree(tmp_path: Path, stack: ExitStack) -> None:
    """The same through Debezium and a topic: what is killed is us and the connector, which tells some changes again."""
    database_url, server, writer = postgres(tmp_path, stack)
    del database_url
    broker = Kraft(tmp_path / "kafka")
    stack.callback(broker.close)
    broker.start()
    topic = broker.create(1)
    carrier = Connector(tmp_path, server, writer.database, broker, topic)
    stack.callback(carrier.close)
    carrier.start()
    source = broker.url(topic, format="debezium")
    survive(tmp_path, stack, source, carrier, writer)
