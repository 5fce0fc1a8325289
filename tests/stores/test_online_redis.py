"""Redis and Valkey as the online store: the contract, and what a server can do to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest

from headrace.stores.online.base import Codec, OnlineStore
from headrace.stores.online.redis import RedisStore
from headrace.testing.stores import OnlineStoreContract
from services.redis import Cluster, DebianRedis, Redis8, RedisServer, Valkey


class RedisContract(OnlineStoreContract):
    """The contract with a server that lives as long as the class's tests."""

    server: ClassVar[type[RedisServer] | type[Cluster]]
    url: ClassVar[str]
    many = 1_200  # more than one round trip asks for

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def served(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with cls.server(tmp_path_factory.mktemp("server") / "data") as started:
            cls.url = started.url
            yield

    def make(self, app: str, codecs: Mapping[str, Codec]) -> OnlineStore:
        return RedisStore(self.url, app=app, codecs=codecs, expires=False)


class TestValkey(RedisContract):
    """One Valkey."""

    server = Valkey


class TestRedis8(RedisContract):
    """One Redis 8."""

    server = Redis8


@pytest.mark.services
class TestRedis7(RedisContract):
    """Debian's Redis, from before hash fields could expire."""

    server = DebianRedis


class TestCluster(RedisContract):
    """Three Valkeys that share the keys."""

    server = Cluster


del OnlineStoreContract, RedisContract  # so that they are not collected here
