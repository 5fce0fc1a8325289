"""A shop whose totals are in Redis: what the tests of failures share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from headrace.errors import StorageError
from headrace.features import spec
from headrace.features.codec import RowCodec
from headrace.features.view import View
from headrace.stores.online.redis import RedisStore
from headrace.testing.stores import START, Engine, declared
from services.redis import RedisServer

FOREVER = declared("sales", last=spec.last("what"), total=spec.sum("amount", over="10m", every="1m"))
TOTALS = declared("sales", total=spec.sum("amount", over="10m", every="1m"))
PATIENCE = 20.0


@contextmanager
def engine(url: str, view: View = TOTALS, **options: Any) -> Iterator[Engine]:
    with closing(RedisStore(url, app="shop", codecs={"sales": RowCodec(view)}, **options)) as store:
        yield Engine(store, [view], "one")


@contextmanager
def reader(url: str, view: View = TOTALS) -> Iterator[RedisStore]:
    with closing(RedisStore(url, app="shop", codecs={"sales": RowCodec(view)})) as store:
        yield store


def total(store: Any, key: str = "a", now: int = START) -> float:
    found: float = store.read("sales", key, now).features[-1]
    return found


def until(done: Callable[[], bool], what: str) -> None:
    """Asks again and again; for what a server gives no sign of."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.01)


def rows_of(server: RedisServer, key: str = "a") -> bytes:
    """The name of a key's hash."""
    found: list[bytes] = server.client.keys(f"hr:shop:sales:*:{key}")
    assert len(found) == 1
    return found[0]


def answers(store: RedisStore) -> bool:
    try:
        total(store)
    except StorageError:
        return False
    return True
