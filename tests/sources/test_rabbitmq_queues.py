"""Queues as sources of a table: the contract for each type, redelivery, bounds, and servers that go away."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any

import pytest
from aio_pika.exceptions import AMQPError
from hypothesis import given, settings
from hypothesis import strategies as st
from mongo_and_rabbit import (
    PATIENCE,
    SCHEMA,
    Article,
    failure,
    next_batch,
    nothing_left,
    read_past_outages,
    read_until,
    texts,
)

from headrace.document import TableSchema
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.sources.rabbitmq import RabbitSource
from headrace.sources.rabbitmq_reader import RabbitReader
from headrace.testing.tables import TableModel, TableSourceContract, batches, read_all
from services.kafka import free_ports
from services.rabbitmq import Rabbit

pytestmark = pytest.mark.services


TYPES = ("classic", "quorum", "stream")


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    with Rabbit(tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@pytest.fixture(scope="module")
def young_queues(rabbit: Rabbit) -> tuple[float, dict[str, str]]:
    """A queue of each type, and when they were made."""
    return time.monotonic(), {type: rabbit.queue(type) for type in TYPES}


@pytest.fixture
def old_queues(young_queues: tuple[float, dict[str, str]]) -> dict[str, str]:
    """They outlive a kill; a quorum queue that is killed in its first seconds never has a leader again."""
    made, queues = young_queues
    until(lambda: time.monotonic() - made > 8, True)
    return queues


class World:
    """A queue of its own in a server that is shared."""

    schema = SCHEMA

    def __init__(self, rabbit: Rabbit, type: str) -> None:
        self._rabbit = rabbit
        self._queue = rabbit.queue(type)
        self.source = RabbitSource(rabbit.url(self._queue))

    def put(self, key: str, text: str) -> str:
        self._rabbit.publish(self._queue, [row(key, text)])
        return key

    def delete(self, key: str) -> None:
        self._rabbit.publish(self._queue, [(b"", {"headers": {"op": "delete", "key": key}})])

    def text(self, document: Any) -> str:
        return str(document.text)


@pytest.mark.usefixtures("young_queues")
class TestClassic(TableSourceContract):
    snapshots = remembers = False

    @pytest.fixture
    def world(self, rabbit: Rabbit) -> World:
        return World(rabbit, "classic")


class TestQuorum(TableSourceContract):
    snapshots = remembers = False

    @pytest.fixture
    def world(self, rabbit: Rabbit) -> World:
        return World(rabbit, "quorum")


class TestStream(TableSourceContract):
    snapshots = False

    @pytest.fixture
    def world(self, rabbit: Rabbit) -> World:
        return World(rabbit, "stream")


def row(key: str, text: str, **more: Any) -> bytes:
    return json.dumps({"id": key, "text": text, **more}).encode()


def until(asked: Callable[[], Any], expected: Any) -> None:
    """Asks until the answer is as expected: the server tells nobody when it has counted."""
    deadline = time.monotonic() + PATIENCE
    while (found := asked()) != expected:
        assert time.monotonic() < deadline, f"expected {expected}, found {found}"
        time.sleep(0.02)


def ready(rabbit: Rabbit, queue: str) -> int:
    """How many messages the server has that nobody holds."""
    return int(rabbit.do(lambda channel: channel.queue_declare(queue, passive=True)).message_count)


def is_there(rabbit: Rabbit, queue: str) -> bool:
    """Whether a queue can be used: after a start, one after the other comes back."""
    try:
        return ready(rabbit, queue) >= 0
    except AMQPError:
        return False


def test_a_queue_that_is_not_there(rabbit: Rabbit) -> None:
    with nothing_left():
        with pytest.raises(ConfigError, match="declare=true"):
            RabbitSource(rabbit.url("missing")).open(None, SCHEMA)
        for type in ("classic", "quorum", "stream"):
            RabbitSource(rabbit.url(f"made-{type}", declare="true", type=type)).open(None, SCHEMA).close()
            RabbitSource(rabbit.url(f"made-{type}")).open(None, SCHEMA).close()
        with pytest.raises(ConfigError, match="another kind"):
            RabbitSource(rabbit.url("made-classic", type="stream")).open(None, SCHEMA)


def test_logins_that_are_refused_and_servers_that_are_away(rabbit: Rabbit) -> None:
    queue = rabbit.queue()
    (port,) = free_ports(1)
    refused = f"amqp://guest:s3cr3t@{rabbit.address}/?queue={queue}"
    elsewhere = f"amqp://guest:guest@{rabbit.address}/nowhere?queue={queue}"
    away = f"amqp://guest:s3cr3t@127.0.0.1:{port}/?queue={queue}"
    with nothing_left():
        for url, kind in ((refused, ConfigError), (elsewhere, ConfigError), (away, StorageError)):
            with pytest.raises(kind) as raised:
                RabbitSource(url).open(None, SCHEMA)
            assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("type", ["classic", "quorum"])
def test_what_is_not_stored_comes_again_in_its_order(rabbit: Rabbit, type: str) -> None:
    queue = rabbit.queue(type)
    source = RabbitSource(rabbit.url(queue))
    rabbit.publish(queue, [row("a", str(number)) for number in range(8)])
    with closing(source.open(None, SCHEMA)) as reader:
        first = next_batch(reader)
        if len(first.changes) < 8:
            next_batch(reader)
    with closing(source.open(None, SCHEMA)) as reader:
        again = list(batches(reader))
        told = [change.row["text"] for batch in again for change in batch.changes if change.row is not None]
        assert told == [str(number) for number in range(8)]
        reader.stored(again[-1])
    assert ready(rabbit, queue) == 0
    assert read_all(source, SCHEMA) == []


def test_garbage_is_a_letter_once(rabbit: Rabbit) -> None:
    queue = rabbit.queue()
    source = RabbitSource(rabbit.url(queue))
    rabbit.publish(queue, [b"\xff\x00", row("a", "t"), b"[1]", b'{"id"'])
    model = TableModel(SCHEMA)
    with closing(source.open(None, SCHEMA)) as reader:
        found = read_until(reader, model, {"a": "t"})
        found += [batch for batch in batches(reader) if reader.stored(batch) is None]
    letters = [letter for batch in found for letter in batch.letters]
    assert [letter.trace.raw for letter in letters] == [b"\xff\x00", b"[1]", b'{"id"']
    assert read_all(source, SCHEMA) == []


def test_a_huge_message_is_a_letter_and_the_rest_goes_on(rabbit: Rabbit) -> None:
    queue = rabbit.queue()
    rabbit.publish(queue, [row("a", "x" * (17 << 20)), row("b", "t")])
    model = TableModel(SCHEMA)
    with closing(RabbitSource(rabbit.url(queue)).open(None, SCHEMA)) as reader:
        found = read_until(reader, model, {"b": "t"})
    (letter,) = [letter for batch in found for letter in batch.letters]
    assert len(letter.trace.raw) > 17 << 20


def test_prefetch_bounds_what_is_held(rabbit: Rabbit) -> None:
    queue = rabbit.queue()
    rabbit.publish(queue, [row(f"k{number}", "t") for number in range(50)])
    model = TableModel(SCHEMA)
    with closing(RabbitSource(rabbit.url(queue, prefetch=10)).open(None, SCHEMA)) as reader:
        held = []
        while sum(len(batch.changes) for batch in held) < 10:
            held.append(next_batch(reader))
        assert reader.read(0.1) is None
        assert not reader.at_end()
        assert (ready(rabbit, queue), reader.lag()) == (40, {"messages": 50})
        for batch in held:
            model.take(batch)
            reader.stored(batch)
        read_until(reader, model, {f"k{number}": "t" for number in range(50)})
        assert reader.at_end()
        assert reader.lag() == {"messages": 0}


@pytest.mark.parametrize("type", ["classic", "quorum", "stream"])
def test_bytes_bound_what_is_held(rabbit: Rabbit, type: str) -> None:
    queue = rabbit.queue(type)
    expected = {f"k{number}": "x" * 200_000 for number in range(40)}
    rabbit.publish(queue, [row(key, text) for key, text in expected.items()])
    model, most = TableModel(SCHEMA), 0
    with closing(RabbitSource(rabbit.url(queue, bytes="1MiB")).open(None, SCHEMA)) as reader:
        while texts(model) != expected:
            batch = next_batch(reader)
            most = max(most, _linked(reader).inbox.bytes + sum(len(change.raw) for change in batch.changes))
            model.take(batch)
            reader.stored(batch)
    assert most < 2 << 20


def _linked(reader: RabbitReader) -> Any:
    link = reader._link
    assert link is not None
    return link


def test_an_older_version_that_comes_again_does_not_win(rabbit: Rabbit) -> None:
    schema = TableSchema.of("articles", [Article], "id", version="rev")
    queue = rabbit.queue()
    rabbit.publish(queue, [row("a", "new", rev=2), row("a", "old", rev=1)])
    model = TableModel(schema)
    for batch in read_all(RabbitSource(rabbit.url(queue)), schema):
        model.take(batch)
    assert texts(model) == {"a": "new"}


def test_a_stream_begins_where_it_is_told(rabbit: Rabbit) -> None:
    queue = rabbit.queue("stream")
    rabbit.publish(queue, [row(f"k{number}", "t") for number in range(5)])

    def keys(position: Any = None, **options: Any) -> list[str]:
        found = read_all(RabbitSource(rabbit.url(queue, **options)), SCHEMA, position)
        return [change.row["id"] for batch in found for change in batch.changes if change.row is not None]

    assert keys() == keys(start=0) == ["k0", "k1", "k2", "k3", "k4"]
    assert keys(start=3) == keys({"rabbitmq": f"/{queue}", "offset": 3}) == ["k3", "k4"]
    assert keys(start="2020-01-01T00:00:00Z") == keys()
    assert keys(start="next") == keys({"rabbitmq": f"/{queue}", "offset": 5}) == []


def test_a_stream_that_was_cut_tells_what_it_lost(rabbit: Rabbit) -> None:
    queue = rabbit.queue("stream", **{"x-max-length-bytes": 2_000, "x-stream-max-segment-size-bytes": 1_000})
    source = RabbitSource(rabbit.url(queue))
    rabbit.publish(queue, [row("a", "t")])
    position = read_all(source, SCHEMA)[-1].position
    model = TableModel(SCHEMA)
    rabbit.publish(queue, [row(f"k{number}", "x" * 500) for number in range(40)])
    found = read_all(source, SCHEMA, position)
    (letter,) = [letter for batch in found for letter in batch.letters]
    for batch in found:
        model.take(batch)
    assert "messages 1 to" in letter.reason
    assert "k39" in texts(model)
    assert "k0" not in texts(model)


def test_a_stream_that_was_made_again_is_read_from_its_beginning(rabbit: Rabbit) -> None:
    queue = rabbit.queue("stream")
    source = RabbitSource(rabbit.url(queue))
    rabbit.publish(queue, [row(f"k{number}", "t") for number in range(5)])
    position = read_all(source, SCHEMA)[-1].position
    rabbit.delete(queue)
    rabbit.do(lambda channel: channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "stream"}))
    rabbit.publish(queue, [row("new", "t")])
    (batch,) = read_all(source, SCHEMA, position)
    assert [change.row["id"] for change in batch.changes if change.row is not None] == ["new"]
    assert "made again" in batch.letters[0].reason
    assert read_all(source, SCHEMA, batch.position) == []


def test_a_queue_that_is_deleted(rabbit: Rabbit) -> None:
    queue = rabbit.queue()
    with nothing_left(), closing(RabbitSource(rabbit.url(queue)).open(None, SCHEMA)) as reader:
        rabbit.delete(queue)
        assert "deleted" in str(failure(reader))
        assert "not there" in str(failure(reader))


def test_a_read_that_waits_ends_at_once_and_nothing_is_left(rabbit: Rabbit) -> None:
    queue = rabbit.queue()
    with nothing_left():
        reader = RabbitSource(rabbit.url(queue)).open(None, SCHEMA)
        ended = threading.Event()

        def wait() -> None:
            with pytest.raises(ClosedError):
                reader.read(60)
            ended.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        reader.close()
        assert ended.wait(2)
        waiting.join()
        for _ in range(3):
            rabbit.publish(queue, [row("a", "t")])
            reader = RabbitSource(rabbit.url(queue)).open(None, SCHEMA)
            next_batch(reader)
            reader.close()


def churn(rabbit: Rabbit, queue: str, rng: random.Random, rows: dict[str, str], revision: int) -> int:
    """Random messages, and the table that they make."""
    messages: list[Any] = []
    for _ in range(1 + rng.randrange(20)):
        key, revision = f"k{rng.randrange(20)}", revision + 1
        headers = {"key": key, "v": revision}
        if rng.random() < 0.3:
            rows.pop(key, None)
            messages.append((b"", {"headers": {**headers, "op": "delete"}}))
        else:
            rows[key] = str(revision)
            messages.append((row(key, rows[key]), {"headers": headers}))
    published = False
    while not published:  # the server may just have been killed; what is sent twice is harmless
        try:
            rabbit.publish(queue, messages)
            published = True
        except (AMQPError, OSError):
            continue
    return revision


def reopened(source: RabbitSource, position: Any) -> RabbitReader:
    while True:
        try:
            return source.open(position, SCHEMA)
        except StorageError:
            continue


@pytest.mark.parametrize("version", ["", "v"])
@pytest.mark.parametrize("type", ["classic", "quorum", "stream"])
@settings(max_examples=2)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_killed_the_table_is_what_was_sent(rabbit: Rabbit, type: str, version: str, seed: int) -> None:
    rng, rows, model = random.Random(seed), dict[str, str](), TableModel(SCHEMA)
    queue = rabbit.queue(type)
    options = {"version": version} if version else {}
    source = RabbitSource(rabbit.url(queue, prefetch=rng.choice([3, 20, 500]), **options))
    reader, position, revision = source.open(None, SCHEMA), None, 0
    for _ in range(15):
        revision = churn(rabbit, queue, rng, rows, revision)
        killed = rng.random() < 0.3  # after it had taken a batch, and before or after it said so
        for _ in range(rng.randrange(4)):
            if (batch := read_past_outages(reader, 0.02)) is not None:
                model.take(batch)
                position = batch.position
                if not killed or rng.random() < 0.5:
                    reader.stored(batch)
        if killed:
            reader.close()
            reader = reopened(source, position)
    read_until(reader, model, rows)
    reader.close()


def test_a_server_that_is_killed(rabbit: Rabbit, old_queues: Mapping[str, str]) -> None:
    rng = random.Random(1)
    model: dict[str, TableModel] = {}
    rows: dict[str, dict[str, str]] = {}
    with nothing_left(), ExitStack() as open_readers:
        readers: dict[str, RabbitReader] = {}
        for type, queue in old_queues.items():
            readers[type] = open_readers.enter_context(closing(RabbitSource(rabbit.url(queue)).open(None, SCHEMA)))
            model[type], rows[type] = TableModel(SCHEMA), dict[str, str]()
            churn(rabbit, queue, rng, rows[type], 0)
            model[type].take(next_batch(readers[type]))
        rabbit.kill()
        for reader in readers.values():
            failure(reader)
        rabbit.start()
        for type, queue in old_queues.items():
            until(lambda queue=queue: is_there(rabbit, queue), True)  # what is sent before that is lost
            churn(rabbit, queue, rng, rows[type], 100)
            read_until(readers[type], model[type], rows[type])
