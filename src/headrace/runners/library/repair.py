"""An index brought in step with the records: what it lacks is written again, what it should not hold is dropped.

Done at every start, before anything is searched. An index may have lost points (its disk, a server restored from a
backup, an index that lives in memory) or hold some that were never counted; the records know. Vectors come from the
cache of embeddings where it has them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from itertools import islice

from headrace.documents.terms import terms
from headrace.errors import InputError
from headrace.runners.library.spaces import LiveSpace
from headrace.stores.records import ChunkRecord, DocumentRecord, Records
from headrace.stores.vectors.base import Point, Terms

logger = logging.getLogger("headrace")
_BATCH = 500


def repair(space: LiveSpace, records: Records, closing: threading.Event) -> None:
    """Brings a space's index in step; stops early if `closing` is set.

    Raises:
        StorageError: The index or the embedder is out of reach; a later call goes on.
    """
    held = set(space.index.ids())
    missing: list[str] = []
    with records.moment() as moment:
        for one in moment.ids(space.number):
            if one in held:
                held.remove(one)
            else:
                missing.append(one)
    if held or missing:
        logger.info("index %d: %d points are missing and %d too many", space.number, len(missing), len(held))
    for batch in _batches(list(held)):
        space.index.write([], batch)
    for batch in _batches(missing):
        if closing.is_set():
            return
        _write(space, records, batch)


def _write(space: LiveSpace, records: Records, ids: Sequence[str]) -> None:
    with records.moment() as moment:
        found = list(moment.alive(ids).values())
    vectors = space.queue.embed([(chunk.hash, chunk.embedded or chunk.text) for chunk, _ in found])
    words = terms([chunk.embedded or chunk.text for chunk, _ in found])
    space.index.write(
        [
            Point(chunk.id, vector, Terms(*of), payload(document, chunk))
            for (chunk, document), vector, of in zip(found, vectors, words, strict=True)
            if not isinstance(vector, InputError)
        ],
        [],
    )


def payload(document: DocumentRecord, chunk: ChunkRecord) -> dict[str, object]:
    """What an index keeps beside a vector."""
    return {**document.columns, "document": document.key, "text": chunk.text}


def _batches(ids: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while batch := list(islice(rest, _BATCH)):
        yield batch
