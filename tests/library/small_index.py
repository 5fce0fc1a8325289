"""An index that is full after a few points, as a disk or a paid plan may be; and then is given more room."""

from __future__ import annotations

from headrace.errors import StorageError
from headrace.stores.vectors.memory import MemoryVectors


class SmallVectors:
    """The memory store, with room for `room` points."""

    remote = False
    room = 3

    def __init__(self, url: str, **options: object) -> None:
        self._inner = MemoryVectors("memory:")

    def open(self, name, dimension, columns):
        return SmallIndex(self._inner.open(name, dimension, columns))


class SmallIndex:
    def __init__(self, inner) -> None:
        self._inner = inner
        self.search, self.ids, self.drop, self.close = inner.search, inner.ids, inner.drop, inner.close

    def write(self, upserts, deletes):
        held = set(self._inner.ids()) | {point.id for point in upserts}
        if len(held) > SmallVectors.room:
            raise StorageError(f"the index is full: it has room for {SmallVectors.room} points; free some, or buy more")
        self._inner.write(upserts, deletes)
