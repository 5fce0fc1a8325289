"""The store in memory keeps the contract that all stores keep."""

from collections.abc import Mapping

from headrace.stores.online.base import Codec, OnlineStore
from headrace.stores.online.memory import MemoryStore
from headrace.testing.stores import OnlineStoreContract


class TestMemory(OnlineStoreContract):
    """`memory:`"""

    def make(self, app: str, codecs: Mapping[str, Codec]) -> OnlineStore:
        return MemoryStore()


del OnlineStoreContract  # so that it is not collected here
