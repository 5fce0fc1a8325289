"""A collection's chunks as they are at one moment, read from its records.

One read transaction sees one state of the records, so a snapshot holds each document either before or after a
revision, and never some of both. Of a type of documents only the space that is searched counts: one that is still being
filled has no say yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from headrace.stores.history.reading import Reading
from headrace.stores.records import ChunkRecord, DocumentRecord, Moment

_FORMAT = 1


class ChunkReader:
    """A collection's records at one moment.

    Attributes:
        position: The version of the table that the collection had followed.
        embedders: The names of the embedders of the spaces that are searched, by the space's number.
    """

    def __init__(self, moment: Moment, keys: Iterator[str]) -> None:
        self.position = moment.position
        spaces = moment.spaces()
        self.embedders = {space.number: space.embedder for space in spaces if any(space.uses.values())}
        self._live = {(kind, space.number) for space in spaces for kind, live in space.uses.items() if live}
        self._moment = moment
        self._keys = keys

    def documents(self) -> Iterator[tuple[DocumentRecord, list[ChunkRecord]]]:
        """Each document with its chunks, in the order of the keys."""
        for key in self._keys:
            document = self._moment.documents([key])[key]
            chunks = self._moment.of_document(key)
            yield document, [chunk for chunk in chunks if (document.kind, chunk.space) in self._live]


@contextlib.contextmanager
def chunks(path: Path, name: str) -> Iterator[ChunkReader]:
    """A collection's chunks as they are now, for as long as the block takes.

    Args:
        path: The database of its records.
        name: The collection's name, for errors.

    Raises:
        InputError: There is no such database.
        StorageError: It cannot be read.
    """
    reading = Reading(path, _FORMAT, f"the collection {name!r}")
    try:
        with reading.moment() as run:
            moment = Moment(run)
            keys = (key for (key,) in run.execute("SELECT key FROM documents ORDER BY key"))
            yield ChunkReader(moment, keys)
    finally:
        reading.close()
