"""The model that the Kafka tests read, and what they do over and over."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from typing import Any

import headrace as hr
from headrace.runners.feeder import Feeder
from headrace.runners.inbox import Inbox
from headrace.runners.intake import Intake
from headrace.runners.setaside import SetAside
from headrace.schema import Schema
from headrace.sources.base import Chunk, Skipped
from headrace.sources.kafka import KafkaSource
from headrace.stores.dead_letters import DeadLetter, DeadLetters
from headrace.testing.sources import read_rest

PATIENCE = 60.0


class Payment(hr.Event):
    n: int
    user: str = ""
    at: datetime = hr.event_time(unit="ms")


SCHEMA = Schema.of(Payment)


def payment(n: int, **more: Any) -> bytes:
    return json.dumps({"n": n, "at": 1_767_225_600_000 + n} | more).encode()


def payments(count: int, start: int = 0) -> list[bytes]:
    return [payment(n) for n in range(start, start + count)]


def values(chunks: Iterable[Chunk]) -> list[bytes]:
    return [value for chunk in chunks for value in chunk.messages or ()]


def gaps(chunks: Iterable[Chunk]) -> list[Skipped]:
    return [each for chunk in chunks for each in chunk.skipped]


def read(source: KafkaSource, position: Any = None) -> list[Chunk]:
    """All that is there now."""
    with closing(source.open(position)) as reader:
        return read_rest(reader)


class Fed:
    """A feeder of payments, as an engine runs it, and what came of it."""

    def __init__(self, source: KafkaSource, position: Any = None, most_rows: int = 1 << 20) -> None:
        self.letters = DeadLetters(None)
        self.inbox = Inbox(most_rows)
        self.setaside = SetAside(self.letters, lambda: 42)
        self.setaside.writers["payment"] = self.writer = source.writer(SCHEMA)
        intake = Intake("payment", SCHEMA, source, self.setaside, lambda: 42)
        self.feeder = Feeder("payment", source, intake, self.inbox)
        self.position: Any = position
        self.feeder.start(position)

    def numbers(self, timeout: float = PATIENCE) -> list[int]:
        """Of all payments that are there now."""
        assert self.feeder.caught_up(timeout), self.feeder.problem
        return self.taken()

    def taken(self, timeout: float = 0) -> list[int]:
        """Of those that have come so far."""
        found: list[int] = []
        while works := self.inbox.take(timeout):
            self.position = works[-1].position
            found += [number for work in works for number in work.frame["n"]]
        return found

    def dead(self) -> list[DeadLetter]:
        return sorted(self.letters.list(limit=1000), key=lambda letter: letter.source)

    def close(self) -> None:
        self.inbox.close()
        self.feeder.close()
        self.writer.close()
