"""The spaces of a collection: for each embedder that its documents are embedded by, one index.

Types of documents may have embedders of their own, so a collection may have several spaces. When the embedder of a type
is changed, its new space is filled in the background while the old one goes on to be searched and to be kept in step;
when it is full, searches switch to it and the old one is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.documents.embed.base import Embedder
from headrace.errors import ConfigError, MissingDependencyError, StorageError
from headrace.runners.embedding.queue import EmbedQueue
from headrace.stores.records import Records, Space
from headrace.stores.vectors.base import VectorIndex

logger = logging.getLogger("headrace")


@dataclass
class LiveSpace:
    """A space that is open.

    Attributes:
        uses: The types of documents in it, and whether it is searched for them.
        queue: What embeds for it.
    """

    number: int
    index: VectorIndex
    queue: EmbedQueue
    uses: dict[str, bool] = field(default_factory=dict)

    @property
    def embedder(self) -> Embedder:
        return self.queue.embedder

    @property
    def searched(self) -> bool:
        """Whether it is searched for any type."""
        return any(self.uses.values())


class Spaces:
    """The spaces of one collection.

    Args:
        records: The collection's.
        specs: Of each type of documents, the embedder that it wants: a name, or an embedder.
        queue_of: The queue in front of an embedder; loads it if need be.
        open_index: Opens an index, by the space's number and dimension.
    """

    def __init__(
        self,
        records: Records,
        specs: Mapping[str, Any],
        queue_of: Callable[[Any], EmbedQueue],
        open_index: Callable[[int, int], VectorIndex],
    ) -> None:
        self._records = records
        self._specs = specs
        self._queue_of = queue_of
        self._open_index = open_index
        self.open: dict[int, LiveSpace] = {}
        self.deferred = False  # whether a new embedder is out of reach, while an old index serves

    def start(self) -> None:
        """Opens what there is, and begins what is wanted and is not there.

        Raises:
            StorageError: An embedder or an index is out of reach; a later call tries again.
            ConfigError: An embedder cannot be had.
        """
        with self._records.moment() as moment:
            found = moment.spaces()
        old = {kind: space.number for space in found for kind, live in space.uses.items() if live}
        specs = {space.number: space.spec for space in found}
        self.deferred = False
        for kind, spec in self._specs.items():
            before = old.get(kind)
            try:
                number = self._wanted(spec)
            except StorageError as error:
                if before is None or not self._revive(before, specs[before]):
                    raise
                logger.warning("the embedder of %s documents is out of reach; the old index serves: %s", kind, error)
                self.deferred = True
                continue
            if before is None or before == number:
                self._records.use(kind, number, live=True)
            elif self._revive(before, specs[before]):
                logger.info("%s documents are embedded anew; the old index serves until they are", kind)
                self._records.use(kind, number, live=False)
            else:
                self._records.use(kind, number, live=True)
            for other in (one for one in found if kind in one.uses and one.number not in (number, before)):
                self._records.end_use(kind, other.number)
        self.refresh()

    def _wanted(self, spec: Any) -> int:
        """The number of the space of an embedder, begun if it is not there."""
        queue = self._queue_of(spec)
        with self._records.moment() as moment:
            known = next((one for one in moment.spaces() if one.embedder == queue.embedder.name), None)
        shown = spec if isinstance(spec, str) else ""
        number = (
            self._records.add_space(shown, queue.embedder.name, queue.embedder.dimension)
            if known is None
            else known.number
        )
        self._open(number, queue)
        return number

    def _open(self, number: int, queue: EmbedQueue) -> None:
        if number not in self.open:
            self.open[number] = LiveSpace(number, self._open_index(number, queue.embedder.dimension), queue)

    def _revive(self, number: int, spec: str) -> bool:
        """Opens a space that was wanted before; False if its embedder cannot be had any more."""
        if number in self.open:
            return True
        try:
            if not spec:
                raise ConfigError("it was handed over as an object")
            queue = self._queue_of(spec)
        except (ConfigError, MissingDependencyError) as error:
            logger.warning("the embedder of an old index cannot be had (%s): it is given up at once", error)
            return False
        self._open(number, queue)
        return True

    def refresh(self) -> None:
        """Reads again which types are in which space, and drops what nothing uses."""
        for space in self.refresh_uses():
            if space.uses:
                continue
            unused = self.open.pop(space.number, None)
            index = unused.index if unused is not None else self._open_index(space.number, space.dimension)
            index.drop()
            self._records.remove_space(space.number)

    def refresh_uses(self) -> list[Space]:
        """Reads again which types are in which space; the spaces as they are recorded."""
        with self._records.moment() as moment:
            found = moment.spaces()
        for space in found:
            if space.number in self.open:
                self.open[space.number].uses = dict(space.uses)
        return found

    def of_kind(self, kind: str, *, live: bool = False) -> dict[int, LiveSpace]:
        """The spaces that documents of a type are in; if `live`, only those that are searched."""
        return {
            number: space
            for number, space in self.open.items()
            if kind in space.uses and (space.uses[kind] or not live)
        }

    def filling(self) -> list[tuple[str, int]]:
        """The types and spaces that are not searched yet."""
        return [
            (kind, number)
            for number, space in sorted(self.open.items())
            for kind, live in space.uses.items()
            if not live
        ]

    def close(self) -> None:
        """Closes the indexes."""
        for space in self.open.values():
            space.index.close()
