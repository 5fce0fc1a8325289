"""examples/llm_twin between a real RabbitMQ and a server that speaks MongoDB's protocol: killed, and still in step."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twin import FOLDER, LIGHT, twin_module

import headrace as hr
from services.mongodb import Mongo
from services.rabbitmq import Rabbit

pytestmark = pytest.mark.services
PATIENCE = 15.0
seed, watch = twin_module("seed"), twin_module("watch")


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    with Rabbit(tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@pytest.fixture
def mongo(tmp_path: Path) -> Iterator[Mongo]:
    with Mongo(tmp_path / "mongo") as server:
        yield server


class Twin:
    """The watcher as a process, and the app that it feeds."""

    def __init__(self, mongo: Mongo, rabbit: Rabbit, folder: Path) -> None:
        self.mongo, self.rabbit, self.state = mongo, rabbit, folder / "watch.db"
        self.queue = f"twin-{folder.name}"
        self.process: subprocess.Popen[str] | None = None

    @property
    def source(self) -> str:
        return f"rabbitmq://{self.rabbit.address}/?queue={self.queue}&format=change&declare=true&type=classic"

    @property
    def documents(self) -> Any:
        return self.mongo.client["twin"]["documents"]

    def start(self) -> None:
        """Starts the watcher; it has said that it follows."""
        command = [sys.executable, str(FOLDER / "watch.py"), "--queue", self.queue, "--state", str(self.state)]
        servers = {"MONGODB_URL": f"mongodb://{self.mongo.address}/?directConnection=true"}
        servers["RABBITMQ_URL"] = f"amqp://guest:guest@{self.rabbit.address}/"
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | servers)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("following twin.documents")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.communicate(timeout=PATIENCE)
        self.process = None

    def held(self) -> dict[str, str]:
        """The texts that the database holds."""
        return {str(one["_id"]): one["text"] for one in self.documents.find()}


@pytest.fixture
def twin(mongo: Mongo, rabbit: Rabbit, tmp_path: Path) -> Iterator[Twin]:
    made = Twin(mongo, rabbit, tmp_path)
    made.documents.insert_one({"_id": "first", "type": "post", "author": "a", "platform": "X", "text": "first"})
    made.documents.delete_one({"_id": "first"})
    yield made
    if made.process is not None:
        made.kill()


@pytest.fixture
def opened(twin: Twin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], hr.Live]:
    """Opens the app on its queue and its directory."""
    for name, value in {**LIGHT, "HEADRACE_TWIN": twin.source}.items():
        monkeypatch.setenv(name, value)
    return lambda: twin_module("app").app.open(tmp_path / "data")


def searched(live: hr.Live) -> dict[str, str]:
    """The texts that the app holds, once everything that is stored can be searched."""
    return {revision.key: row_text(revision.body) for revision in live.library.tables["documents"].store.as_of()}


def row_text(body: Any) -> str:
    import msgspec

    return str(msgspec.json.decode(body)["text"])


def agree(live: hr.Live, expected: dict[str, str]) -> None:
    """Waits until the app holds what the database holds, and all of it, and nothing else, can be searched."""
    table, collection = live.library.tables["documents"], live.library.collections["twin"]
    with table.changed:
        assert table.changed.wait_for(lambda: searched(live) == expected, PATIENCE), (
            {key for key, text in searched(live).items() if expected.get(key) != text},
            expected.keys() - searched(live).keys(),
        )
    assert collection.wait(lambda: collection.position >= table.store.seq, PATIENCE)
    assert live.stats().collections["twin"].documents == len(expected)
    assert live.stats().tables["documents"].rejected == 0


def post(number: int, text: str) -> dict[str, Any]:
    columns = {"type": "post", "author": "a", "platform": "X", "published": "2026-01-01T00:00:00Z"}
    return {"_id": f"post-{number}", "text": text, **columns}


def test_seeds_edits_and_deletes_arrive(twin: Twin, opened: Callable[[], hr.Live]) -> None:
    url = ["--mongodb", f"mongodb://{twin.mongo.address}/?directConnection=true"]
    with opened() as live:
        twin.start()
        assert seed.main(url) == 0
        agree(live, twin.held())
        assert seed.main([*url, "--edit", "post-2", "I was wrong about dashboards."]) == 0
        assert seed.main([*url, "--delete", "post-3"]) == 0
        agree(live, twin.held())
        assert live.search("twin", "wrong about dashboards", k=1)[0].document == "post-2"
        assert "post-3" not in {hit.document for hit in live.search("twin", "vector index", k=20)}


def test_the_watcher_and_the_app_are_killed_and_nothing_is_missed(twin: Twin, opened: Callable[[], hr.Live]) -> None:
    chance = random.Random(4)
    twin.start()
    live = opened()
    try:
        for turn in range(5):
            for _ in range(60):
                number = chance.randrange(40)
                if chance.random() < 0.3:
                    twin.documents.delete_one({"_id": f"post-{number}"})
                else:
                    document = post(number, f"text {chance.random()}")
                    twin.documents.replace_one({"_id": document["_id"]}, document, upsert=True)
            twin.kill()  # while it publishes
            twin.documents.delete_one({"_id": f"post-{turn}"})  # while nobody looks
            if turn == 2:
                live.close()
                live = opened()
            twin.start()
        agree(live, twin.held())
    finally:
        live.close()


def test_what_was_deleted_while_the_log_was_lost_is_found(twin: Twin, opened: Callable[[], hr.Live]) -> None:
    twin.documents.insert_many([post(number, f"text {number}") for number in range(450)])
    with opened() as live:
        twin.start()
        agree(live, twin.held())
        twin.kill(signal.SIGTERM)
        twin.documents.delete_many({"_id": {"$in": ["post-1", "post-449"]}})
        twin.documents.insert_one(post(500, "new"))
        state = watch.State(str(twin.state))
        state.forget()
        state.close()
        twin.start()
        agree(live, twin.held())


def test_a_dropped_collection_is_empty(twin: Twin, opened: Callable[[], hr.Live]) -> None:
    twin.documents.insert_many([post(number, f"text {number}") for number in range(5)])
    with opened() as live:
        twin.start()
        agree(live, twin.held())
        twin.documents.drop()
        agree(live, {})
        twin.documents.insert_one(post(1, "again"))
        agree(live, {"post-1": "again"})


def test_the_broker_restarts(twin: Twin, opened: Callable[[], hr.Live], rabbit: Rabbit) -> None:
    with opened() as live:
        twin.start()
        twin.documents.insert_many([post(number, "before") for number in range(20)])
        rabbit.restart()
        twin.documents.update_many({}, {"$set": {"text": "after"}})
        twin.documents.delete_one({"_id": "post-7"})
        agree(live, twin.held())
