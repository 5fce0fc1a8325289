"""The store in memory: the machine's own tables are what is read, so nothing is kept twice.

One lock makes a batch visible as a whole. It is held for the few assignments of a commit and for the merging of one
read (microseconds each); whatever is long is computed outside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from headrace.changes import Rows
from headrace.errors import ConfigError
from headrace.stores.online.base import Keeper, Progress


class MemoryStore:
    """`memory:`, for one process. The other stores are compared with it.

    Attributes:
        lock: While it is held, nothing changes.
    """

    remote = False

    def __init__(self, url: str = "memory:", **_: Any) -> None:
        if url not in ("memory", "memory:", "memory://"):
            raise ConfigError(f'the online store "memory:" takes nothing more, found {url!r}')
        self.lock = threading.Lock()
        self._keepers: Mapping[str, Keeper] = {}

    def bind(self, keepers: Mapping[str, Keeper], lineage: Mapping[str, str]) -> None:  # noqa: ARG002 - gone with the process
        self._keepers = keepers

    def write(
        self,
        commits: Sequence[Callable[[], object]],
        rows: Callable[[], Iterable[Rows]],  # noqa: ARG002 - the machines' own rows are what is read
        progress: Progress,  # noqa: ARG002 - the runner in this process is asked for it
    ) -> None:
        with self.lock:
            for commit in commits:
                commit()

    def read(self, view: str, key: Any, now: int | None) -> Any:
        with self.lock:
            return self._keepers[view].read(key, now)

    def read_many(self, view: str, keys: Sequence[Any], now: int | None) -> list[Any]:
        keeper = self._keepers[view]
        with self.lock:
            gathered = keeper.gather(keys, now)
        return keeper.finish(gathered)

    def close(self) -> None:
        """Nothing to let go of; reads go on to answer from what was there."""
