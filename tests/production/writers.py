"""Random inserts, updates and deletes in a real source, which is also asked what it holds when all is done."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

import msgspec
import psycopg
import pymongo
from aiormq.exceptions import AMQPError

from services.mongodb import Mongo
from services.postgres import Postgres
from services.rabbitmq import Rabbit

WORDS = ["river", "engine", "launch", "market", "storm", "court", "budget", "harbour", "signal", "glacier"]
KEYS = [f"a{number}" for number in range(300)]
Row = dict[str, Any]


def body(chance: random.Random) -> str:
    """One to four paragraphs."""
    paragraphs = [" ".join(chance.choices(WORDS, k=chance.randint(3, 40))) for _ in range(chance.randint(1, 4))]
    return "\n\n".join(paragraphs)


class Writer(ABC):
    """Changes a source until as many operations are done; what fails because the source is away is done again.

    Args:
        seed: Of what is done.
        operations: How many.
    """

    def __init__(self, seed: int, operations: int) -> None:
        self._chance = random.Random(seed)
        self._operations = operations
        self.done = 0
        self.calm = threading.Event()  # cleared while the source is being restarted
        self.calm.set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failure: BaseException | None = None

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.calm.set()
        self._thread.join(60)

    def _run(self) -> None:
        try:
            while self.done < self._operations and not self._ending.is_set():
                self.calm.wait(60)
                count = self._chance.randint(1, 20)
                batch = [self._operation() for _ in range(count)]
                while not self._ending.is_set():
                    with suppress(psycopg.Error, pymongo.errors.PyMongoError, AMQPError, OSError, TimeoutError):
                        self.write(batch)
                        break
                    self._ending.wait(0.1)
                self.done += count
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            self.failure = error

    def _operation(self) -> tuple[str, str, Row]:
        key = self._chance.choice(KEYS)
        what = self._chance.choices(["put", "delete", "move"], [80, 17, 3])[0]
        title = f"The {self._chance.choice(WORDS)}"
        return what, key, {"id": key, "title": title, "body": body(self._chance), "version": self.next_version()}

    def next_version(self) -> int:
        return 0

    @abstractmethod
    def write(self, batch: list[tuple[str, str, Row]]) -> None:
        """Does a batch; doing it again is harmless."""

    @abstractmethod
    def rows(self) -> dict[str, Row]:
        """What the source holds."""


class PostgresWriter(Writer):
    """Rows of a table, a transaction a batch; keys change too."""

    def __init__(self, server: Postgres, database: str, seed: int, operations: int) -> None:
        super().__init__(seed, operations)
        self._server, self.database = server, database

    def write(self, batch: list[tuple[str, str, Row]]) -> None:
        with psycopg.connect(self._server.url_of(self.database), connect_timeout=2) as connection:
            for what, key, row in batch:
                if what == "delete":
                    connection.execute("DELETE FROM articles WHERE id = %s", (key,))
                elif what == "move":
                    other = f"{key}-moved"
                    connection.execute("DELETE FROM articles WHERE id = %s", (other,))
                    connection.execute("UPDATE articles SET id = %s WHERE id = %s", (other, key))
                else:
                    connection.execute(
                        "INSERT INTO articles VALUES (%(id)s, %(title)s, %(body)s) "
                        "ON CONFLICT (id) DO UPDATE SET title = excluded.title, body = excluded.body",
                        row,
                    )

    def rows(self) -> dict[str, Row]:
        found = self._server.run("SELECT id, title, body FROM articles", database=self.database)
        return {id: {"id": id, "title": title, "body": text, "version": 0} for id, title, text in found}


class MongoWriter(Writer):
    """Documents of a collection, one by one."""

    def __init__(self, server: Mongo, collection: str, seed: int, operations: int) -> None:
        super().__init__(seed, operations)
        self._server, self._collection = server, collection

    def write(self, batch: list[tuple[str, str, Row]]) -> None:
        documents = self._server.client["news"][self._collection]
        for what, key, row in batch:
            if what == "delete":
                documents.delete_one({"_id": key})
            elif what == "move":
                documents.update_one({"_id": key}, {"$set": {"title": "moved"}})
            else:
                fields = {name: value for name, value in row.items() if name != "id"}
                documents.replace_one({"_id": key}, fields, upsert=True)

    def rows(self) -> dict[str, Row]:
        found = self._server.client["news"][self._collection].find()
        return {one["_id"]: {"id": one["_id"], **{k: one[k] for k in ("title", "body", "version")}} for one in found}


class RabbitWriter(Writer):
    """Messages of a queue; what was not confirmed is sent again, and the greatest version of a key counts."""

    def __init__(self, server: Rabbit, queue: str, seed: int, operations: int) -> None:
        super().__init__(seed, operations)
        self._server, self._queue = server, queue
        self._version = 0
        self._held: dict[str, Row] = {}

    def next_version(self) -> int:
        self._version += 1
        return self._version

    def write(self, batch: list[tuple[str, str, Row]]) -> None:
        messages = []
        for what, key, row in batch:
            change: Row = {"op": "delete" if what == "delete" else "upsert", "key": key, "version": row["version"]}
            if what != "delete":
                change["row"] = row
            messages.append(msgspec.json.encode(change))
        self._server.publish(self._queue, messages)
        for what, key, row in batch:
            if what == "delete":
                self._held.pop(key, None)
            else:
                self._held[key] = row

    def rows(self) -> dict[str, Row]:
        return dict(self._held)
