"""kill -9 of each part at ten random moments under load: when all input is in, the features equal the oracle's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import till
from engines import Engine
from load import SHOPS, Load, expected

import headrace as hr
from headrace.registry import DEFAULT as CONNECTORS
from services.kafka import Kraft, until
from services.redis import Valkey

pytestmark = pytest.mark.services
KILLS = 10
PATIENCE = 90.0


class Production:
    """A broker, a store, an engine, load on them, and a replica that reads."""

    def __init__(self, folder: Path, stack: ExitStack, processes: int) -> None:
        self.broker = Kraft(folder / "kafka")
        self.broker.start()
        stack.callback(self.broker.close)
        self.redis = Valkey(folder / "redis", save="aof")
        self.redis.start()
        stack.callback(self.redis.close)
        self.topic = self.broker.create(4)
        self.source = self.broker.url(self.topic)
        self.engine = Engine(folder / "engine", self.source, self.redis.url, processes)
        self.engine.start()
        stack.callback(self.engine.stop)
        self.load = stack.enter_context(Load(self.broker, self.topic))

    def replica(self, stack: ExitStack) -> hr.Live:
        """What answers for the engine, in this process."""
        app = till.app
        app.streams["sale"] = hr.Stream("sale", till.sales.schema, self.source, till.sales.lateness)
        app.online, app.runner = self.redis.url, "replica"
        return stack.enter_context(app.open())

    def processed(self, live: hr.Live) -> int:
        """How many sales the engine has taken in, as a reader is told; 0 while it is not told."""
        try:
            return int(live.read_many(till.Shop, SHOPS)["count"].sum())
        except hr.StorageError:
            return 0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def restart_engine(production: Production, _: random.Random) -> None:
    production.engine.kill()
    production.engine.start()


def restart_worker(production: Production, chance: random.Random) -> None:
    production.engine.kill(chance.randrange(2))
    production.engine.start()


def restart_broker(production: Production, _: random.Random) -> None:
    production.broker.kill()
    production.broker.start()


def restart_store(production: Production, _: random.Random) -> None:
    production.redis.kill()
    production.redis.start()


@pytest.mark.parametrize(
    ("restart", "processes"),
    [(restart_engine, 1), (restart_worker, 2), (restart_broker, 1), (restart_store, 1)],
    ids=["engine", "worker", "broker", "store"],
)
def test_the_features_are_right_in_the_end(
    restart: Callable[[Production, random.Random], None], processes: int, tmp_path: Path, stack: ExitStack
) -> None:
    production = Production(tmp_path, stack, processes)
    live = production.replica(stack)
    chance = random.Random(4)
    for _ in range(KILLS):
        # At a random moment of work: so many more sales have been taken in since it was last restarted.
        wanted = production.processed(live) + chance.randrange(1, 1_000)
        until(lambda wanted=wanted: production.processed(live) >= wanted, "progress", PATIENCE)
        restart(production, chance)
    production.load.stop()
    source = CONNECTORS.create("source", production.source).name
    ends = {str(number): end for number, (_, end) in production.broker.ends(production.topic).items()}
    token = hr.Token({source: ends}, 0, [])
    until(lambda: production.processed(live), "an answer", PATIENCE)
    live.read(till.Shop, SHOPS[0], after=token, timeout=PATIENCE)
    found = live.read_many(till.Shop, SHOPS)
    assert difference(found, production.load.sales) == [], production.engine.log


def difference(found: pl.DataFrame, sales: list[dict[str, Any]]) -> list[Any]:
    """The shops whose features are not the oracle's."""
    wanted = expected(sales)
    plain = found.select(wanted.columns).with_columns(
        recent=pl.col("recent").list.eval(pl.element().struct.field("number"))
    )
    return [(a, b) for a, b in zip(plain.rows(), wanted.rows(), strict=True) if a != b]
