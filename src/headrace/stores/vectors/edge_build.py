"""Builds a sealed shard of Qdrant Edge from others, in a process of its own: `… edge_build JOB`.

`optimize()` holds the interpreter until it is done. Here it holds nothing but this process, which is polite (`nice`)
and ends with the one that started it. The shards that it reads are copies that nobody else has open.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headrace.document import Column
from headrace.stores.vectors.edge_shard import DENSE, WORDS, loaded, made, put, records
from headrace.stores.vectors.wire import Batch

_PR_SET_PDEATHSIG = 1


def job(
    sources: list[Path], target: Path, dimension: int, columns: dict[str, Column], gone: list[list[bytes]]
) -> bytes:
    """What to build, as `main` reads it: a shard of all points but, of each source, those that are gone."""
    return msgspec.msgpack.encode(
        {
            "sources": [str(source) for source in sources],
            "target": str(target),
            "dimension": dimension,
            "columns": {name: [column.type, column.many] for name, column in columns.items()},
            "gone": gone,
        }
    )


def main(path: str) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    build(msgspec.msgpack.decode(Path(path).read_bytes()))


def build(work: dict[str, Any]) -> None:
    columns = {name: Column(kind, many) for name, (kind, many) in work["columns"].items()}
    shard = made(Path(work["target"]), work["dimension"], columns, indexed=True)
    for source, gone in zip(work["sources"], map(set, work["gone"]), strict=True):
        opened = loaded(Path(source))
        for page in records(opened, [DENSE, WORDS], payload=True):
            left = [one for one in page if one.id.bytes not in gone]
            words = [one.vector.get(WORDS) for one in left]
            put(
                shard,
                Batch(
                    [one.id.bytes for one in left],
                    np.array([one.vector[DENSE] for one in left], np.float32),
                    [np.array(one.indices if one else [], np.uint32) for one in words],
                    [np.array(one.values if one else [], np.float32) for one in words],
                    [one.payload or {} for one in left],
                    [],
                ),
            )
        opened.close()
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1])
