"""Makes up payments and writes them to Kafka, or to a file: a town's worth of them, a few of them fraud.

People have a country, a usual amount and a few shops of their own; the busy pay often, most do not. Now and then a
card is stolen: first it is tested (many tiny payments within minutes, at shops it never saw, many of them declined),
then it is used (large ones, from abroad). And now and then a shop has its till misused to test a whole list of cards,
nearly all of them declined. The same seed gives the same payments.

The rate is an open loop: each payment has its scheduled moment, and one that is written late is still stamped as if it
had been on time. Some tills report late, so stamps are out of order by up to eight seconds, within the ten seconds of
lateness that the app declares.

    python payments.py --rate 1000 --seconds 60                 to localhost:9092, topic payments
    python payments.py --file payments.ndjson --rate 50         no broker at all
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

MOST_LATE = 8.0  # seconds
COUNTRIES = ("PT", "ES", "FR", "DE", "NL", "IT", "PL", "IE")
FIRST = ("Harbour", "Corner", "Old Town", "Station", "Riverside", "Market", "North", "Garden", "Mill", "Castle")
SECOND = ("Bikes", "Café", "Books", "Bakery", "Pharmacy", "Hardware", "Grocer", "Cinema", "Florist", "Electronics")
SHOPS = tuple(f"{first} {second}" for first in FIRST for second in SECOND)
# A story begins with one payment in so many; its payments then come among the others, this often.
_STORY_EVERY = 2_000
_STORY_SHARE = 0.25
# Stories told at once, at most: past that no card is stolen until one is done with.
_STORIES = 8
_ANSWER_SECONDS, _FLUSH_SECONDS = 10.0, 30.0


@dataclass(frozen=True)
class Person:
    """Who pays, and how they usually do."""

    user_id: str
    country: str
    usual: float
    shops: tuple[str, ...]


class Town:
    """Payments without end, without their times; an iterator.

    Args:
        users: How many people there are.
        seed: The same one gives the same payments.
    """

    def __init__(self, users: int = 10_000, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._people = [self._person(number) for number in range(users)]
        self._stories: deque[Iterator[dict[str, Any]]] = deque()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        chance = self._random
        if len(self._stories) < _STORIES and chance.random() < 1 / _STORY_EVERY:
            self._stories.append(self._theft(self._somebody()) if chance.random() < 0.7 else self._list())
        while self._stories and chance.random() < _STORY_SHARE:
            self._stories.rotate()
            payment = next(self._stories[0], None)
            if payment is not None:
                return payment
            self._stories.popleft()
        return self._ordinary(self._somebody())

    def _person(self, number: int) -> Person:
        chance = self._random
        shops = tuple(chance.sample(SHOPS, chance.randint(2, 6)))
        return Person(f"u{number}", chance.choice(COUNTRIES), chance.lognormvariate(3.0, 0.5), shops)

    def _somebody(self) -> Person:
        # Few pay often and most seldom: the square of a uniform number leans to the first ones.
        return self._people[int(len(self._people) * self._random.random() ** 2)]

    def _ordinary(self, who: Person) -> dict[str, Any]:
        chance = self._random
        amount = who.usual * chance.lognormvariate(0.0, 0.6)
        return _payment(who, amount, chance.choice(who.shops), who.country, declined=chance.random() < 0.01)

    def _theft(self, who: Person) -> Iterator[dict[str, Any]]:
        """A card is tested abroad, and used there."""
        chance = self._random
        abroad = chance.choice([country for country in COUNTRIES if country != who.country])
        for _ in range(chance.randint(8, 20)):
            yield _payment(who, chance.uniform(0.5, 2), chance.choice(SHOPS), abroad, declined=chance.random() < 0.6)
        for _ in range(chance.randint(2, 5)):
            yield _payment(who, chance.uniform(1_000, 4_000), chance.choice(SHOPS), abroad, declined=False)

    def _list(self) -> Iterator[dict[str, Any]]:
        """Somebody has bought a list of cards, and tries them all at one shop."""
        chance = self._random
        shop, country = chance.choice(SHOPS), chance.choice(COUNTRIES)
        for _ in range(chance.randint(30, 60)):
            who = self._somebody()
            yield _payment(who, chance.uniform(0.5, 2), shop, country, declined=chance.random() < 0.85)


def _payment(who: Person, amount: float, merchant: str, country: str, *, declined: bool) -> dict[str, Any]:
    return {
        "user_id": who.user_id,
        "amount": round(max(amount, 0.01), 2),
        "merchant": merchant,
        "country": country,
        "declined": declined,
    }


def late_by(chance: random.Random) -> float:
    """Seconds between a payment and its report: a tenth for most, up to eight for the few whose till was offline."""
    return chance.uniform(0, MOST_LATE) if chance.random() < 0.02 else chance.uniform(0, 0.1)


def stamped(payment: dict[str, Any], moment: float) -> bytes:
    """The message: a JSON object whose `at` is `moment` (seconds since the Unix epoch)."""
    at = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return json.dumps(payment | {"at": at}, ensure_ascii=False).encode()


class Sink(Protocol):
    """Where payments go."""

    def send(self, key: str, message: bytes) -> None: ...

    def close(self) -> int:
        """Waits until all is written; how many could not be."""
        ...


class File:
    """One message a line, at the file's end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def send(self, key: str, message: bytes) -> None:  # noqa: ARG002 - a file has no partitions
        self._file.write(message + b"\n")
        self._file.flush()

    def close(self) -> int:
        self._file.close()
        return 0


class Topic:
    """A Kafka topic; a user's payments are all in one partition, so in their order.

    Raises:
        SystemExit: No broker answers.
    """

    def __init__(self, brokers: str, topic: str) -> None:
        from confluent_kafka import KafkaException, Producer

        self._topic, self._failed = topic, 0
        self._producer = Producer(
            {
                "bootstrap.servers": brokers,
                "log_level": 0,  # what goes wrong is told to `close` and to `__init__`
                "enable.idempotence": True,  # a message that is sent again is there once
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.timeout.ms": int(_FLUSH_SECONDS * 1000),
            }
        )
        try:
            self._producer.list_topics(topic, timeout=_ANSWER_SECONDS)
        except KafkaException as error:
            raise SystemExit(
                f"payments: expected a broker at {brokers}, found none ({error.args[0].str()}); "
                "start one, name it with --brokers, or write to a --file"
            ) from None

    def send(self, key: str, message: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._topic, message, key, on_delivery=self._told)
            except BufferError:
                self._producer.poll(0.1)  # the queue is full: what has been delivered makes room
                continue
            self._producer.poll(0)
            return

    def close(self) -> int:
        return self._producer.flush(_FLUSH_SECONDS) + self._failed

    def _told(self, error: object, _: object) -> None:
        self._failed += error is not None


def send(
    sink: Sink, town: Iterator[dict[str, Any]], rate: float, count: int | None, seed: int, stop: threading.Event
) -> int:
    """Sends payments at a rate, until there are `count` or it is told to stop; how many."""
    chance = random.Random(seed + 1)
    begin, epoch, sent = time.monotonic(), time.time(), 0
    while (count is None or sent < count) and not stop.is_set():
        due = sent / rate
        ahead = begin + due - time.monotonic()
        if ahead > 0 and stop.wait(ahead):
            break
        payment = next(town)
        sink.send(payment["user_id"], stamped(payment, epoch + due - late_by(chance)))
        sent += 1
    return sent


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that what is under way is still written."""
    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Makes up payments and writes them to Kafka, or to a file.")
    made.add_argument("--brokers", default="localhost:9092", help="HOST:PORT, several with commas (%(default)s)")
    made.add_argument("--topic", default="payments", help="%(default)s")
    made.add_argument("--file", type=Path, help="write to this file instead, a payment a line")
    made.add_argument("--rate", type=float, default=100.0, help="payments a second (%(default)s)")
    made.add_argument("--seconds", type=float, help="how long (until Ctrl-C)")
    made.add_argument("--users", type=int, default=10_000, help="how many people pay (%(default)s)")
    made.add_argument("--seed", type=int, default=1, help="the same one gives the same payments (%(default)s)")
    return made


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    if options.rate <= 0 or options.users <= 0:
        parser().error(f"expected --rate and --users greater than 0, found {options.rate:g} and {options.users}")
    count = None if options.seconds is None else int(options.rate * options.seconds)
    sink: Sink = File(options.file) if options.file else Topic(options.brokers, options.topic)
    with stopping() as stop:
        sent = send(sink, Town(options.users, options.seed), options.rate, count, options.seed, stop)
        lost = sink.close()
    where = options.file or f"{options.topic} at {options.brokers}"
    print(f"{sent - lost:,} payments written to {where}" + (f"; {lost:,} could not be" if lost else ""))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
