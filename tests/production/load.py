"""Load for the production tests: sales written to a topic by a thread, and what the features are then."""

from __future__ import annotations

import json
import random
import threading
from typing import Any

import polars as pl

from services.kafka import Broker

START = 1_700_000_000_000_000
SHOPS = [f"s{number}" for number in range(40)]


def sale(number: int, chance: random.Random) -> dict[str, Any]:
    """The number'th sale: a hundred a second of event time, out of order by up to a few seconds."""
    late = chance.randrange(5_000_000) if number % 3 == 0 else 0
    return {"shop": SHOPS[chance.randrange(len(SHOPS))], "number": number, "at": START + number * 10_000 - late}


class Load:
    """Writes sales to a topic until told to stop, each at least once.

    Args:
        broker: Where to; it may go away and come back.
        topic: Its name.
        rate: Sales a second.
    """

    def __init__(self, broker: Broker, topic: str, rate: int = 1_000) -> None:
        self.sales: list[dict[str, Any]] = []
        self._topic = topic
        self._rate = rate
        self._producer = broker.producer(**{"delivery.timeout.ms": 120_000, "retry.backoff.ms": 50})
        self._stop = threading.Event()
        self._failed: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends it, when all that was written has been acknowledged."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            assert self._producer.flush(120) == 0
            assert self._failed == []

    def _run(self) -> None:
        chance = random.Random(7)
        number = 0
        while not self._stop.wait(0.05):
            for _ in range(self._rate // 20):
                self._write(sale(number, chance))
                number += 1
            self._producer.poll(0)

    def _write(self, one: dict[str, Any]) -> None:
        self.sales.append(one)
        self._producer.produce(self._topic, json.dumps(one), one["shop"], on_delivery=self._delivered)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self._failed.append(str(error))


def expected(sales: list[dict[str, Any]]) -> pl.DataFrame:
    """What `till.Shop` says of every shop when all sales are in, computed over the whole list at once."""
    frame = pl.DataFrame(sales).with_row_index("arrival")
    now = frame["at"].max()
    second = pl.col("at") // 1_000_000 * 1_000_000

    def within(span: int) -> pl.Expr:
        return (second > now - span) & (second <= now)

    number, minute = pl.col("number"), within(60_000_000)
    found = frame.group_by("shop").agg(
        count=pl.len().cast(pl.Int64),
        total=number.sum(),
        numbers=number.filter(minute).n_unique().cast(pl.Int64),
        odd=(number % 2 == 1).sum().cast(pl.Int64),
        last_10s=number.filter(within(10_000_000)).sum(),
        greatest=number.filter(minute).max(),
        recent=number.filter(minute)
        .sort_by(pl.col("at").filter(minute), pl.col("arrival").filter(minute), descending=True)
        .head(3),
    )
    return pl.DataFrame({"shop": SHOPS}).join(found, on="shop", how="left", maintain_order="left")
