"""A topic that is enriched: the engine and the enrichment read it side by side, each from its own position."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from answering import ModelServer, numbers, verdict
from enriched import NAME, App, rows

from services.kafka import Tansu


def test_a_topic_is_enriched_and_read_on_after_a_restart(tmp_path: Path) -> None:
    broker = Tansu(tmp_path / "tansu")
    with closing(broker), ModelServer() as server:
        broker.start()
        topic = broker.create(2)
        total = 0
        for _ in range(2):
            fresh = rows(*range(total, total + 20))
            broker.produce(topic, [json.dumps(one) for one in fresh] + ["no event"])
            total += 20
            app = App(server.url, source=broker.url(topic), cache=None)
            with app.app.open(tmp_path / "data") as live:
                live.drain(60)
                assert live.read(app.Texts, "t").count == total  # type: ignore[attr-defined]
                found = live.read(app.Verdicts, "t").all  # type: ignore[attr-defined]
                assert sorted((one["number"], one["mood"]) for one in found) == [
                    (number, verdict(number)["mood"]) for number in range(total)
                ]
                # What is no event is set aside by the engine's reading, once, and passed over by this one.
                assert NAME not in live.dead_letters.count()
        assert sorted(number for body in server.asked for number in numbers(body)) == list(range(40))
