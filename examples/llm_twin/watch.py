"""Follows a MongoDB collection and publishes its changes to a RabbitMQ queue: inserts, updates and deletes.

    python watch.py --mongodb "mongodb://localhost:27017/?directConnection=true" --rabbitmq amqp://localhost:5672/

It is small because the rules are few, and each is there for a crash:

1. *Whole rows.* A message carries the whole document, never a difference: the same message twice does nothing twice.
2. *Confirm, then remember.* Where the change stream has been read to (its resume token) is stored after the broker has
   confirmed that it has the messages on its disk. Killed in between, the watcher publishes them again.
3. *Versions.* Each message has the cluster time of its change. What is published again never undoes what is newer.
4. *Deletes.* A delete is published by its key. A collection is read whole at first, and again if the database's log no
   longer reaches back to the token; what was deleted meanwhile is found because the keys that were published are kept.

What is kept is in one SQLite file (--state), written in one transaction a batch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from bson.codec_options import CodecOptions
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

BATCH = 200  # changes that are confirmed together
_IDLE_MS = 200
_BACKOFF = 5.0  # seconds, at most, before what is away is tried again
# What a server answers when its log no longer reaches back to a token: history lost, fatal, not found, not resumable.
_LOST = {286, 280, 136, 260, 50811}
# What is tried again. A connection to the broker that breaks cancels what waits for it.
AWAY = (ConnectionFailure, AMQPError, ChannelInvalidStateError, OSError, TimeoutError, asyncio.CancelledError)

log = logging.getLogger("watch")
Change = dict[str, Any]


class State:
    """What outlives the watcher: the resume token, and which keys the queue has been told of."""

    def __init__(self, path: str) -> None:
        self._file = sqlite3.connect(path)
        self._file.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE IF NOT EXISTS token (one INTEGER PRIMARY KEY CHECK (one = 1), value TEXT NOT NULL);"
            "CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY) WITHOUT ROWID;"
        )

    def token(self) -> dict[str, Any] | None:
        """Where to go on; None to begin with the whole collection."""
        found = self._file.execute("SELECT value FROM token").fetchone()
        return None if found is None else json.loads(found[0])

    def keys(self) -> Iterable[str]:
        """The keys that were published and not deleted."""
        return [key for (key,) in self._file.execute("SELECT key FROM keys")]

    def store(self, changes: Iterable[Change], token: Mapping[str, Any] | None) -> None:
        """Remembers what the broker has confirmed, all of it or nothing; without a token, of a snapshot under way."""
        with self._file:
            for change in changes:
                verb = (
                    "DELETE FROM keys WHERE key = ?"
                    if change["op"] == "delete"
                    else "INSERT OR IGNORE INTO keys VALUES (?)"
                )
                self._file.execute(verb, (change["key"],))
            if token is not None:
                self._file.execute("INSERT OR REPLACE INTO token VALUES (1, ?)", (json.dumps(token),))

    def forget(self) -> None:
        """The token leads nowhere any more; the keys stay."""
        with self._file:
            self._file.execute("DELETE FROM token")

    def close(self) -> None:
        self._file.close()


def upsert(document: Mapping[str, Any], version: int, at: int | None = None) -> Change:
    """A document as a change; its `_id` is the row's `id`."""
    row = {name: value for name, value in document.items() if name != "_id"} | {"id": str(document["_id"])}
    return {"op": "upsert", "key": row["id"], "row": row, "version": version, "at": at}


def change_of(event: Mapping[str, Any]) -> Change | None:
    """An event of the change stream as a change; None for those that change no document."""
    version = version_of(event["clusterTime"])
    at = event["clusterTime"].time * 1_000_000
    if event["operationType"] in ("insert", "update", "replace") and event.get("fullDocument") is not None:
        return upsert(event["fullDocument"], version, at)
    # An update whose document is gone when it is looked up is as good as the delete that follows.
    if event["operationType"] in ("delete", "update", "replace"):
        return {"op": "delete", "key": str(event["documentKey"]["_id"]), "version": version, "at": at}
    return None


def version_of(time: Timestamp) -> int:
    """A cluster time as a whole number that grows with every change."""
    return (time.time << 32) | time.inc


def body(change: Change) -> bytes:
    """A change as JSON; times in ISO 8601, what JSON does not know as its text."""
    return json.dumps(change, ensure_ascii=False, default=_plain).encode()


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


class Watcher:
    """From a collection to a queue."""

    def __init__(self, collection: AsyncCollection[dict[str, Any]], channel: AbstractChannel, queue: str, state: State):
        options: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)
        self._collection = collection.with_options(codec_options=options)
        self._channel, self._queue, self._state = channel, queue, state

    async def run(self) -> None:
        """Publishes until it is cancelled, or something is away; returns when the collection has to be read anew."""
        if self._state.token() is None:
            await self._snapshot()
        try:
            await self._follow()
            log.warning("the collection was dropped or renamed: what is there under its name is read whole")
        except OperationFailure as error:
            if error.code not in _LOST:
                raise
            log.warning("the database's log no longer reaches back to where this stopped: the collection is read whole")
        self._state.forget()

    async def _snapshot(self) -> None:
        """All documents, at the version of the moment before; then deletes of those that are not there any more."""
        hello = await self._collection.database.command("hello")
        version = version_of(
            hello["$clusterTime"]["clusterTime"] if "$clusterTime" in hello else hello["operationTime"]
        )
        async with await self._collection.watch() as stream:
            token = stream.resume_token
        known = set(self._state.keys())
        batch: list[Change] = []
        async for document in self._collection.find():
            batch.append(upsert(document, version))
            known.discard(batch[-1]["key"])
            if len(batch) >= BATCH:
                await self._publish(batch)
                self._state.store(batch, None)
                batch = []
        batch += [{"op": "delete", "key": key, "version": version} for key in known]
        await self._publish(batch)
        self._state.store(batch, token)
        log.info("the collection has been published whole")

    async def _follow(self) -> None:
        """The change stream, until the server ends it."""
        stream = await self._collection.watch(
            [{"$project": {"updateDescription": 0}}],
            full_document="updateLookup",
            resume_after=self._state.token(),
            max_await_time_ms=_IDLE_MS,
        )
        async with stream:
            async for changes, token in _batches(stream):
                await self._publish(changes)
                self._state.store(changes, token)

    async def _publish(self, changes: Iterable[Change]) -> None:
        """Sends changes in order, and returns once the broker has confirmed them all."""
        messages = [
            aio_pika.Message(
                body(change), delivery_mode=aio_pika.DeliveryMode.PERSISTENT, content_type="application/json"
            )
            for change in changes
        ]
        send = self._channel.default_exchange.publish
        # What is sent first is first in the queue; only the confirms are waited for together.
        sent = (send(message, self._queue, mandatory=True, timeout=30) for message in messages)
        for answer in await asyncio.gather(*sent, return_exceptions=True):
            # A connection that breaks cancels what waits for it, which is no wish of ours to stop.
            if isinstance(answer, BaseException):
                raise ConnectionError("the broker did not confirm all of a batch") from answer


async def _batches(stream: Any) -> AsyncIterator[tuple[list[Change], Mapping[str, Any]]]:
    """Changes, at most so many at once, and the token after them; a transaction is never cut in two.

    Within a batch the last change of a document stands for those before it: the changes of a transaction have one
    cluster time, and hence one version.
    """
    changes: dict[str, Change] = {}
    version, token = None, None
    while stream.alive:
        event = await stream.try_next()
        if event is not None and event["operationType"] == "invalidate":
            break
        if event is None or (len(changes) >= BATCH and version_of(event["clusterTime"]) != version):
            if token is not None:
                yield list(changes.values()), token
            changes, token = {}, None
        if event is None:
            continue
        change = change_of(event)
        if change is not None:
            changes.pop(change["key"], None)
            changes[change["key"]] = change
        version, token = version_of(event["clusterTime"]), event["_id"]
    if token is not None:
        yield list(changes.values()), token


async def watch(options: argparse.Namespace) -> None:
    """Follows until cancelled; what is away is tried again."""
    state, backoff = State(options.state), 0.1
    mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(options.mongodb, serverSelectionTimeoutMS=5000)
    collection = mongo[options.database][options.collection]
    try:
        while True:
            try:
                connection = await aio_pika.connect(options.rabbitmq, timeout=5)
                async with connection:
                    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                    await channel.declare_queue(options.queue, durable=True, arguments={"x-queue-type": options.type})
                    print(f"following {options.database}.{options.collection} into {options.queue}", flush=True)
                    backoff = 0.1
                    await Watcher(collection, channel, options.queue, state).run()
            except AWAY as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise
                log.warning("%s is away; trying again in %.1f s", type(error).__name__, backoff)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF)
    finally:
        await mongo.close()
        state.close()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Publishes a MongoDB collection's changes to a RabbitMQ queue.")
    mongodb = os.environ.get("MONGODB_URL", "mongodb://localhost:27017/?directConnection=true")
    made.add_argument("--mongodb", default=mongodb, metavar="URL", help="or MONGODB_URL; a replica set")
    made.add_argument("--database", default="twin", help="(%(default)s)")
    made.add_argument("--collection", default="documents", help="(%(default)s)")
    rabbitmq = os.environ.get("RABBITMQ_URL", "amqp://localhost:5672/")
    made.add_argument("--rabbitmq", default=rabbitmq, metavar="URL", help="or RABBITMQ_URL")
    made.add_argument("--queue", default="twin", help="(%(default)s)")
    made.add_argument("--type", default="classic", choices=("classic", "quorum"), help="of the queue (%(default)s)")
    made.add_argument("--state", default="watch.db", metavar="FILE", help="what it remembers (%(default)s)")
    return made


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="watch: %(message)s")
    logging.getLogger("watch").setLevel(logging.INFO)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # what goes wrong is said here
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(watch(options))
    except PyMongoError as error:
        print(f"watch: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
