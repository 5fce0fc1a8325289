"""What the tests of collections and queues share: a table to fill, and counts of what must not be left behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headrace.document import Document, TableSchema
from headrace.errors import StorageError
from headrace.sources.tables import Changes, TableReader
from headrace.testing.tables import TableModel

PATIENCE = 30.0


class Article(Document):
    id: str
    text: str
    rev: int = 0


SCHEMA = TableSchema.of("articles", [Article], "id")


def texts(model: TableModel) -> dict[str, str]:
    """A table as keys and texts."""
    return {key: str(getattr(row, "text", None)) for key, row in model.rows.items()}


def read_until(reader: TableReader, model: TableModel, expected: Any, *, store: bool = True) -> list[Changes]:
    """Reads, past any outage, until the table is as expected; the batches that it took."""
    found: list[Changes] = []
    deadline = time.monotonic() + PATIENCE
    while texts(model) != expected:
        assert time.monotonic() < deadline, f"expected {len(expected)} rows, found {len(model.rows)}"
        batch = read_past_outages(reader, 0.05)
        if batch is not None:
            model.take(batch)
            found.append(batch)
            if store:
                reader.stored(batch)
    return found


def read_past_outages(reader: TableReader, timeout: float) -> Changes | None:
    """A batch; None also while the server is away."""
    try:
        return reader.read(timeout)
    except StorageError:
        return None


def next_batch(reader: TableReader) -> Changes:
    """The next batch, whenever it comes."""
    deadline = time.monotonic() + PATIENCE
    while (batch := reader.read(0.2)) is None:
        assert time.monotonic() < deadline, "no batch came"
    return batch


def failure(reader: TableReader) -> StorageError:
    """What a reader fails with, once its server is away."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            reader.read(0.2)
        except StorageError as error:
            return error
    raise AssertionError("the reader did not notice that the server is away")


def sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for each in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{each}").startswith("socket:")
        except OSError:
            continue  # the one of the listing itself
    return count


@contextmanager
def nothing_left() -> Iterator[None]:
    """No thread and no socket is there afterwards that was not there before."""
    gc.collect()
    before = set(threading.enumerate()), sockets()
    yield
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    while (more := set(threading.enumerate()) - before[0]) or sockets() > before[1]:
        assert time.monotonic() < deadline, f"left behind: {more}, {sockets() - before[1]} sockets"
        time.sleep(0.02)
