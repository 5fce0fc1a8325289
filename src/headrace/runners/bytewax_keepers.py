"""Reading views whose shards are divided among the workers of this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from headrace.changes import Rows
from headrace.features.combine import ShardedMachine, virtual_shards
from headrace.features.view import View

if TYPE_CHECKING:
    from headrace.runners.bytewax_site import Site


class Divided:
    """A view, asked for as if one machine kept all of it.

    Args:
        view: The view.
        shards: How many virtual shards there are.
        site: Where the workers are.
    """

    def __init__(self, view: View, shards: int, site: Site) -> None:
        self._view = view
        self._shards = shards
        self._site = site

    def read(self, key: Any, now: int | None) -> Any:
        machines = self._site.machines(self._view.name)
        if len(machines) == 1:
            return machines[0].read(key, now)
        return self._machines([key])[0].read(key, _now(machines, now))

    def gather(self, keys: Sequence[Any], now: int | None) -> Any:
        machines = self._site.machines(self._view.name)
        if len(machines) == 1:
            return [(machines[0], machines[0].gather(keys, now), None)]
        now = _now(machines, now)
        owners = self._machines(keys)
        parts = []
        for machine in machines:
            mine = [place for place, owner in enumerate(owners) if owner is machine]
            if mine:
                parts.append((machine, machine.gather([keys[place] for place in mine], now), mine))
        return parts

    def finish(self, gathered: Any) -> list[Any]:
        if len(gathered) == 1 and gathered[0][2] is None:
            machine, rows, _ = gathered[0]
            found: list[Any] = machine.finish(rows)
            return found
        values: dict[int, Any] = {}
        for machine, rows, places in gathered:
            values |= dict(zip(places, machine.finish(rows), strict=True))
        return [values[place] for place in range(len(values))]

    def all_rows(self) -> Iterator[Rows]:
        for machine in self._site.machines(self._view.name):
            yield from machine.all_rows()

    def _machines(self, keys: Sequence[Any]) -> list[ShardedMachine]:
        """The machine that keeps each key; any, of a shard that has no rows anywhere."""
        owners: dict[int, ShardedMachine] = {}
        anyone: ShardedMachine | None = None
        name = self._view.name
        for engine in self._site.engines():
            if name in engine.machines:
                anyone = engine.machines[name]
                owners |= {shard: anyone for view, shard in tuple(engine.kept) if view == name}
        assert anyone is not None, "asked before the start"
        columns = {
            column: pl.Series(
                [key if len(self._view.keys) == 1 else key[place] for key in keys], dtype=self._view.schema[column]
            )
            for place, column in enumerate(self._view.keys)
        }
        shards = virtual_shards(pl.DataFrame(columns), self._shards)
        return [owners.get(shard, anyone) for shard in np.asarray(shards).tolist()]


def _now(machines: Sequence[ShardedMachine], now: int | None) -> int | None:
    """On event time: the newest that any worker has seen."""
    if now is not None:
        return now
    return max((machine.newest for machine in machines if machine.newest is not None), default=None)
