"""A reader of the `online` benchmark, in a process of its own: an API replica without its HTTP, or bare redis-py.

redis-py reads a total that was stored once: no window is merged and nothing is checked, so it is the floor of what one
round trip from Python costs, and not the same work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bench.child import serve
from headrace.bench.data import user_ids, zipf
from headrace.bench.online_app import ten_minutes
from headrace.bench.online_live import EXPONENT
from headrace.bench.openloop import call_on_schedule


class HeadraceReader:
    """`live.read` and `live.read_rows` of a process without an engine."""

    def __init__(self, url: str, keys: int) -> None:
        self._bench = ten_minutes(url, runner="replica")
        self._live: Any = self._bench.app.open()
        self._keys = keys

    def one(self, key: str) -> object:
        return self._live.read(self._bench.view, key)

    def many(self, keys: list[str]) -> object:
        return self._live.read_rows(self._bench.view, keys)

    def totals(self, now: int, file: str) -> dict[str, Any]:
        """Every key's total at a moment, to a file."""
        ids = user_ids(np.arange(self._keys)).to_list()
        rows = self._live.read_many(self._bench.view, ids, now=now)
        rows.select("user_id", "total").write_ndjson(Path(file))
        return {"keys": rows.height}


class RedisPyReader:
    """GET and MGET of stored totals."""

    def __init__(self, url: str, keys: int) -> None:
        import redis

        self._client: Any = redis.Redis.from_url(url)
        ids = user_ids(np.arange(keys)).to_list()
        with self._client.pipeline(transaction=False) as pipeline:
            for number, key in enumerate(ids):
                pipeline.set(f"total:{key}", f"{number / 7:.2f}")
            pipeline.execute()

    def one(self, key: str) -> object:
        return float(self._client.get(f"total:{key}"))

    def many(self, keys: list[str]) -> object:
        return [float(total) for total in self._client.mget([f"total:{key}" for key in keys])]


READERS: dict[str, Callable[[str, int], Any]] = {"headrace": HeadraceReader, "redis-py": RedisPyReader}


def main(kind: str, url: str, keys: str, seed: str) -> None:
    total, rng = int(keys), np.random.default_rng(int(seed))
    reader = READERS[kind](url, total)

    def reads(rate: float, seconds: float, batch: int) -> dict[str, Any]:
        count = int(rate * seconds)
        ids = user_ids(zipf(count * batch, total, EXPONENT, rng)).to_list()
        call: Callable[[int], object] = lambda i: reader.one(ids[i])  # noqa: E731
        if batch > 1:
            lots = [ids[i : i + batch] for i in range(0, len(ids), batch)]
            call = lambda i: reader.many(lots[i])  # noqa: E731
        return {"latency": call_on_schedule(call, rate, count).to_dict()}

    def handle(do: str, **how: Any) -> dict[str, Any]:
        result: dict[str, Any] = reads(**how) if do == "reads" else reader.totals(**how)
        return result

    serve(handle)


if __name__ == "__main__":
    main(*sys.argv[1:])
