"""Mends Bytewax's recovery partitions before a start, of what an epoch that was never finished has left in them.

A dataflow goes on from its last finished epoch: of each key Bytewax loads the newest state that was saved before the
epoch to begin with. When processes are killed, though, some of them may have saved keys for the epoch that was under
way. Those saves stay, under a number that the next run uses again. It overwrites them only for keys that change in its
own epoch of that number, whose end falls elsewhere; any other key is then believed to have the state of an epoch that
never was, and the events in it are counted once more. So before a run, saves of unfinished epochs are deleted.

Seen in Bytewax 0.21.1, where `snaps` holds the saves by key and epoch, `exs` the runs with the epoch each began with,
and `fronts` how far each worker of a run has come.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from headrace.errors import StorageError

_PATIENCE = 30.0


def forget_unfinished(folder: Path) -> int:
    """Deletes the saves of epochs that were not finished; returns how many they were.

    Args:
        folder: The recovery partitions, of which none is in use.

    Raises:
        StorageError: They cannot be read or written.
    """
    try:
        with ExitStack() as held:
            parts = [
                held.enter_context(closing(sqlite3.connect(path, timeout=_PATIENCE)))
                for path in sorted(folder.glob("part-*.sqlite3"))
            ]
            begin = _resume_epoch(parts)
            if begin is None:
                return 0
            forgotten = 0
            for part in parts:
                with part:
                    forgotten += part.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (begin,)).rowcount
            return forgotten
    except sqlite3.Error as error:
        raise StorageError(f"the recovery partitions in {folder} cannot be mended: {error}") from error


def _resume_epoch(parts: Sequence[sqlite3.Connection]) -> int | None:
    """The epoch that the next run begins with, as Bytewax finds it; None if nothing has run yet."""
    runs = [row for part in parts for row in part.execute("SELECT ex_num, worker_count, resume_epoch FROM exs")]
    if not runs:
        return None
    last, workers, begun = max(runs)
    reached: dict[int, int] = dict.fromkeys(range(workers), begun)
    for part in parts:
        for worker, front in part.execute("SELECT worker_index, worker_frontier FROM fronts WHERE ex_num = ?", (last,)):
            reached[worker] = max(reached.get(worker, begun), front)
    return min(reached.values())
