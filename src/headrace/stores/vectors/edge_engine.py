"""What `edge:` keeps one index with: shards of Qdrant Edge, one small that is written and sealed ones that are indexed.

New points go into the fresh shard, which is searched by comparing with every point. When it has grown it is sealed and
another one begun. A builder (a process of its own, see `edge_build`) makes an indexed shard of it, which takes its
place; and one of several indexed ones, when there are many of a size (as in a log-structured merge tree). A sealed
shard never changes: what goes from it is noted, and left out of its answers, until a builder leaves it out.

BM25 counts over all shards. Edge counts within one, so here the frequencies are counted, and a question's words are
sent with their weights; the shards only multiply and add.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from headrace.document import Column
from headrace.filters import Filter
from headrace.stores.vectors import edge_shard
from headrace.stores.vectors.base import Terms, Vector
from headrace.stores.vectors.edge_build import job
from headrace.stores.vectors.edge_files import EdgeFiles
from headrace.stores.vectors.edge_shard import DENSE, WORDS
from headrace.stores.vectors.postings import idf
from headrace.stores.vectors.wire import Batch, Frame, Ranked, unpack_write

# Points in the fresh shard: 20,000 take 1.3 ms to compare with.
FRESH = 20_000
SLICE = 64
# So many sealed shards of a size become one; sizes are by powers of this.
_FAN = 4
# A shard of which so much is gone is built anew.
_MOST_GONE = 0.4
_LOOK, _RETRY = 0.1, 60.0


@dataclass(slots=True)
class _Shard:
    """One that is open: which points of it are gone, how many there were, and whether it is indexed."""

    number: int
    points: edge.EdgeShard
    count: int = 0
    gone: set[bytes] = field(default_factory=set)
    indexed: bool = False

    @property
    def live(self) -> int:
        return self.count - len(self.gone)


@dataclass(slots=True)
class _Build:
    """A builder at work: on which shards, and what was gone from each when it began."""

    process: subprocess.Popen[bytes]
    number: int
    sources: list[_Shard]
    gone: list[set[bytes]]


class EdgeEngine:
    """One index; made by `child.Server`, which calls it from one thread."""

    def __init__(self, path: Path, dimension: int, columns: dict[str, Column]) -> None:
        self._dimension, self._columns = dimension, columns
        self._files = EdgeFiles(path, dimension)
        self._shards: list[_Shard] = []
        # Which shard an id's point is in, and its words.
        self._owner: dict[bytes, _Shard] = {}
        self._words: dict[bytes, bytes] = {}
        self._frequency: Counter[int] = Counter()
        self._build: _Build | None = None
        self._not_before = 0.0
        self._load()

    def _load(self) -> None:
        shutil.rmtree(self._files.build, ignore_errors=True)
        if not self._files.shards:
            self._begin()
            return
        self._files.tidy()
        gone: dict[int, set[bytes]] = {number: set() for number in self._files.shards}
        for one, number in self._files.gone():
            gone.setdefault(number, set()).add(one)
        for number in self._files.shards:
            shard = _Shard(number, edge_shard.loaded(self._files.shard(number)), gone=gone[number])
            shard.indexed = (self._files.shard(number) / "indexed").exists()
            self._shards.append(shard)
            for page in edge_shard.records(shard.points, [WORDS]):
                shard.count += len(page)
                for record in page:
                    self._take(shard, record)

    def _take(self, shard: _Shard, record: Any) -> None:
        one = record.id.bytes
        if one in shard.gone:
            return
        before = self._owner.get(one)
        if before is not None:
            # It died between writing the point anew and noting that the old one is gone.
            self._forget(one)
            before.gone.add(one)
            self._files.add_gone([(one, before.number)])
        words = record.vector.get(WORDS)
        self._enter(shard, one, np.array(words.indices if words else [], np.uint32))

    def _begin(self) -> None:
        """Begins a fresh shard, behind the others."""
        number = self._files.number()
        points = edge_shard.made(self._files.shard(number), self._dimension, self._columns)
        if self._shards:
            self._shards[-1].points.flush()
        self._shards.append(_Shard(number, points))
        self._commit()

    def _commit(self) -> None:
        gone = [(one, shard.number) for shard in self._shards for one in shard.gone]
        self._files.commit([shard.number for shard in self._shards], gone)

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, frame: Frame) -> Iterator[bool]:
        batch = unpack_write(frame, self._dimension)
        for start in range(0, len(batch.deletes), SLICE):
            self._remove(batch.deletes[start : start + SLICE])
            yield False
        for start in range(0, len(batch.ids), SLICE):
            self._put(batch.part(start, start + SLICE))
            yield False

    def _put(self, batch: Batch) -> None:
        fresh = self._shards[-1]
        edge_shard.put(fresh.points, batch)
        # First the new one, then the old one: after a death in between the old one is found out.
        moved = [one for one in batch.ids if self._owner.get(one, fresh) is not fresh]
        self._note_gone(moved)
        fresh.count += sum(one not in self._owner for one in batch.ids)
        for one, words in zip(batch.ids, batch.words, strict=True):
            self._forget(one)
            self._enter(fresh, one, words)

    def _remove(self, ids: Sequence[bytes]) -> None:
        fresh = self._shards[-1]
        known = [one for one in ids if one in self._owner]
        mine = [one for one in known if self._owner[one] is fresh]
        edge_shard.delete(fresh.points, mine)
        fresh.count -= len(mine)
        self._note_gone([one for one in known if self._owner[one] is not fresh])
        for one in mine:
            self._forget(one)

    def _note_gone(self, ids: Sequence[bytes]) -> None:
        """Points go from sealed shards."""
        self._files.add_gone([(one, self._owner[one].number) for one in ids])
        for one in ids:
            self._owner[one].gone.add(one)
            self._forget(one)

    def _enter(self, shard: _Shard, one: bytes, words: Any) -> None:
        self._owner[one] = shard
        self._words[one] = words.tobytes()
        self._frequency.update(words.tolist())

    def _forget(self, one: bytes) -> None:
        if self._owner.pop(one, None) is None:
            return
        for word in np.frombuffer(self._words.pop(one), np.uint32).tolist():
            self._frequency[word] -= 1
            if not self._frequency[word]:
                del self._frequency[word]

    # -- searching -------------------------------------------------------------------------------------------------

    def search(self, k: int, vector: Vector | None, terms: Terms | None, where: Filter | None) -> tuple[Ranked, Ranked]:
        passing = None if where is None else edge_shard.translated(where, self._columns)
        dense: Ranked = []
        if vector is not None:
            question = vector.tolist()
            dense = self._merged(k, lambda shard, limit: self._live(shard, question, DENSE, limit, passing))
        words = self._weighed(terms)
        if words is None:
            return dense, []
        found = self._merged(k, lambda shard, limit: self._live(shard, words, WORDS, limit, passing))
        return dense, [(one, score) for one, score in found if score > 0]

    def _weighed(self, terms: Terms | None) -> edge.SparseVector | None:
        if terms is None:
            return None
        points = len(self._owner)
        known = [
            (word, weight * idf(points, self._frequency[word]))
            for word, weight in zip(terms.ids.tolist(), terms.weights.tolist(), strict=True)
            if word in self._frequency
        ]
        return edge.SparseVector([word for word, _ in known], [weight for _, weight in known]) if known else None

    def _merged(self, k: int, found: Callable[[_Shard, int], Ranked]) -> Ranked:
        every = [one for shard in self._shards if shard.live for one in found(shard, k)]
        return sorted(every, key=lambda one: -one[1])[:k]

    def _live(self, shard: _Shard, query: Any, using: str, k: int, where: Any) -> Ranked:
        """A shard's k best that are not gone: more are asked for where many are."""
        limit = k if not shard.gone else k + 8
        while True:
            found = edge_shard.nearest(shard.points, query, using, limit, where)
            live = [(one, score) for one, score in found if one not in shard.gone]
            if len(live) >= k or len(found) < limit:
                return live[:k]
            limit *= 4

    def ids(self) -> Iterator[bytes]:
        return iter(self._owner)

    # -- building --------------------------------------------------------------------------------------------------

    def background(self) -> float | None:
        if self._build is not None:
            if self._build.process.poll() is None:
                return _LOOK
            self._finish(self._build)
        if self._shards[-1].count >= FRESH:
            self._begin()
        if time.monotonic() < self._not_before:
            return _RETRY
        sources = self._due()
        if sources:
            self._start(sources)
            return _LOOK
        return None

    def _due(self) -> list[_Shard]:
        """Which sealed shards should be built anew, if any: what is not indexed goes first."""
        sealed = self._shards[:-1]
        raw = [shard for shard in sealed if not shard.indexed]
        if raw:
            return raw[:_FAN]
        for shard in sealed:
            if len(shard.gone) > _MOST_GONE * shard.count:
                return [shard]
        size = FRESH
        while any(shard.live >= size // 2 for shard in sealed):
            alike = [shard for shard in sealed if size // 2 <= shard.live < size // 2 * _FAN]
            if len(alike) >= _FAN:
                return alike
            size *= _FAN
        small = [shard for shard in sealed if shard.live < FRESH // 2]
        return small if len(small) >= _FAN else []

    def _start(self, sources: list[_Shard]) -> None:
        number, build = self._files.number(), self._files.build
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir()
        gone = [set(shard.gone) for shard in sources]
        copies = [self._files.copy(shard.number, f"source-{n}") for n, shard in enumerate(sources)]
        order = build / "job"
        order.write_bytes(job(copies, build / "target", self._dimension, self._columns, [list(one) for one in gone]))
        command = [sys.executable, "-m", "headrace.stores.vectors.edge_build", str(order)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._build = _Build(process, number, sources, gone)

    def _finish(self, build: _Build) -> None:
        """The built shard takes the place of its sources, but for what has gone from them meanwhile."""
        self._build = None
        if build.process.returncode != 0:
            # It has said why on standard error; what it was to build is searched as it is.
            self._not_before = time.monotonic() + _RETRY
            return
        target = self._files.build / "target"
        (target / "indexed").touch()
        target.rename(self._files.shard(build.number))
        shard = _Shard(build.number, edge_shard.loaded(self._files.shard(build.number)), indexed=True)
        for source, before in zip(build.sources, build.gone, strict=True):
            shard.count += source.count - len(before)
            shard.gone |= source.gone - before
        place = self._shards.index(build.sources[0])
        self._shards = [one for one in self._shards if one not in build.sources]
        self._shards.insert(place, shard)
        moved = set(map(id, build.sources))
        for one, owner in self._owner.items():
            if id(owner) in moved:
                self._owner[one] = shard
        self._commit()
        for source in build.sources:
            source.points.close()
        shutil.rmtree(self._files.build, ignore_errors=True)

    def close(self) -> None:
        if self._build is not None:
            self._build.process.kill()
            self._build.process.wait()
            shutil.rmtree(self._files.build, ignore_errors=True)
        for shard in self._shards:
            shard.points.close()
        self._files.close()
