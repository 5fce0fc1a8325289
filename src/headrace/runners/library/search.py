"""Searching a collection: by meaning and by words, at one moment, and only among what is alive then.

An index answers with ids, from a state that may be a little ahead or behind; the records say which of them are alive at
the moment that the search began, and what they say. What comes from several indexes, by meaning and by words, is
blended (see `rank`). If too few are alive, more are asked for.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import polars as pl

from headrace.documents.rank import BLEND_DEPTH, WORDS_WEIGHT, blend, fuse, mmr
from headrace.documents.terms import query_terms
from headrace.errors import InputError, StaleError
from headrace.filters import Filter, parse, passes
from headrace.runners.library.hits import Hit
from headrace.runners.library.spaces import LiveSpace
from headrace.stores.records import ChunkRecord, DocumentRecord, Moment
from headrace.stores.vectors.base import Query, Terms, Vector
from headrace.units import from_micros

if TYPE_CHECKING:
    from headrace.runners.library.collection import LiveCollection

Mode = Literal["hybrid", "ranks", "meaning", "words"]
Scored = Sequence[tuple[str, float]]
# The most hits that one search gives, and the longest question that is read.
MOST_HITS = 1_000
MOST_QUESTION = 32_768
# For k hits, as many are asked of each list: some may be dead, and blending needs more than it gives.
_FACTOR = 3
_LEAST = 20
_WEIGHTS: dict[Mode, float] = {"hybrid": WORDS_WEIGHT, "words": 1.0, "meaning": 0.0}
_TRIES = 4


@dataclass(frozen=True)
class Found:
    """Hits, and the number of the table's change that they are true to."""

    hits: list[Hit]
    position: int


@dataclass(frozen=True)
class Asked:
    """A search's arguments, checked.

    Attributes:
        mode: By meaning, by words, or both.
        diversity: From 0 (the best, however alike) to 1 (as different as can be).
    """

    question: str
    k: int
    mode: Mode
    where: Filter | None
    diversity: float

    @classmethod
    def of(
        cls,
        live: LiveCollection,
        question: str,
        k: int,
        where: pl.Expr | Mapping[str, Any] | Filter | None,
        mode: str,
        diversity: float,
    ) -> Asked:
        """Checks a search's arguments.

        Raises:
            InputError: One is none.
        """
        name = live.collection.name
        if not isinstance(question, str):
            raise InputError(f"{name}: expected the query as text, found {type(question).__name__}")
        if len(question) > MOST_QUESTION:
            raise InputError(f"{name}: expected a query of at most {MOST_QUESTION} characters, found {len(question)}")
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST_HITS:
            raise InputError(f"{name}: expected k from 1 to {MOST_HITS}, found {k!r}")
        if mode not in get_args(Mode):
            raise InputError(f"{name}: expected mode to be one of {', '.join(get_args(Mode))}, found {mode!r}")
        if not 0 <= diversity <= 1:
            raise InputError(f"{name}: expected diversity from 0 to 1, found {diversity!r}")
        condition = None if where is None else parse(where, live.collection.columns)
        return cls(question, k, mode, condition, diversity)  # type: ignore[arg-type]  # checked above


def search(live: LiveCollection, asked: Asked, now: int, timeout: float) -> Found:
    """The best chunks.

    Args:
        now: What ages are counted from, in microseconds since the Unix epoch.
        timeout: Seconds to wait for a collection that is being opened.

    Raises:
        StaleError: The collection was not opened in time.
        StorageError: An embedder or an index is out of reach.
    """
    opened(live, timeout)
    for _ in range(_TRIES):
        changes = live.readers.steady(timeout) if asked.where is not None else 0
        spaces = _spaces(live)
        # Outside the moment: asking for a question's vector may take long.
        vectors = _vectors(spaces, asked)
        with live.readers.reading(), live.records.moment() as moment:
            found = Found(_once(live, asked, spaces, vectors, moment, now), moment.position)
        if asked.where is None or live.readers.unchanged(changes):
            return found
    return found


def opened(live: LiveCollection, timeout: float) -> None:
    """Waits for a collection that is being opened.

    Raises:
        StaleError: It was not opened in time.
    """
    if not live.wait(lambda: live.ready, timeout):
        raise StaleError(
            f"{live.collection.name}: expected the collection to be open within {timeout} s; it is not: "
            f"{live.trouble() or 'its embedder is being loaded'}"
        )


class Held:
    """A collection held at one moment; for any number of threads, of which one at a time is answered.

    Attributes:
        position: The number of the table's change that the moment has followed.
    """

    def __init__(self, live: LiveCollection, moment: Moment, changes: int) -> None:
        self.live = live
        self.position = moment.position
        self._moment = moment
        self._changes = changes
        self._spaces = _spaces(live)
        self._lock = threading.Lock()

    def search(self, asked: Asked, now: int) -> list[Hit]:
        """The best chunks at the moment; see `search`."""
        vectors = _vectors(self._spaces, asked)
        with self._lock:
            hits = _once(self.live, asked, self._spaces, vectors, self._moment, now)
            if asked.where is None or self.live.readers.unchanged(self._changes):
                return hits
            # The index filters by what documents are now: what passed at the moment is told by the records alone.
            return _once(self.live, asked, self._spaces, vectors, self._moment, now, filtered=False)


@contextlib.contextmanager
def held(live: LiveCollection, timeout: float) -> Iterator[Held]:
    """A collection at one moment, for as long as the block takes; nothing that is alive then is dropped.

    Raises:
        StaleError: The collection was not opened in time.
    """
    opened(live, timeout)
    changes = live.readers.steady(timeout)
    with live.readers.reading(), live.records.moment() as moment:
        yield Held(live, moment, changes)


def _spaces(live: LiveCollection) -> list[LiveSpace]:
    return [space for space in list(live.spaces.open.values()) if space.searched]


def _vectors(spaces: Sequence[LiveSpace], asked: Asked) -> dict[int, Vector]:
    """The question in every space."""
    return {} if asked.mode == "words" else {one.number: one.queue.query(asked.question) for one in spaces}


def _once(
    live: LiveCollection,
    asked: Asked,
    spaces: Sequence[LiveSpace],
    vectors: Mapping[int, Vector],
    moment: Moment,
    now: int,
    *,
    filtered: bool = True,
) -> list[Hit]:
    words = None if asked.mode == "meaning" else Terms(*query_terms(asked.question))
    ranked = _Ranking(live, asked, spaces, vectors, words, moment, asked.where if filtered else None)
    wanted = max(asked.k * _FACTOR, BLEND_DEPTH if asked.mode in ("hybrid", "ranks") else _LEAST)
    for _ in range(_TRIES):
        if ranked.ask(wanted) or wanted >= MOST_HITS * _FACTOR:
            break
        wanted *= 4
    found = ranked.chosen()
    return [_hit(ranked.chunks[one], ranked.documents[ranked.chunks[one].document], score, now) for one, score in found]


class _Ranking:
    """One search at one moment."""

    def __init__(
        self,
        live: LiveCollection,
        asked: Asked,
        spaces: Sequence[LiveSpace],
        vectors: Mapping[int, Vector],
        words: Terms | None,
        moment: Moment,
        filter: Filter | None,
    ) -> None:
        self._live = live
        self._asked = asked
        self._spaces = spaces
        self._vectors = vectors
        self._words = words
        self._moment = moment
        self._filter = filter
        self._searched = moment.searched()
        self._meaning: list[Scored] = []
        self._by_words: list[Scored] = []
        # Where diversity or a reranker chooses, there must be something to choose from.
        chooses = bool(asked.diversity) or live.collection.rerank is not None
        self._pool = asked.k * _FACTOR if chooses else asked.k
        self._from: dict[str, int] = {}  # which space an id came from
        self._dead: set[str] = set()
        self._scores: dict[str, float] = {}
        self.chunks: dict[str, ChunkRecord] = {}
        self.documents: dict[str, DocumentRecord] = {}

    def ask(self, wanted: int) -> bool:
        """Asks the indexes for that many; False if more should be asked for."""
        self._meaning, self._by_words = [], []
        for space in self._spaces:
            query = Query(wanted, self._vectors.get(space.number), self._words, self._filter)
            found = space.index.search(query)
            self._meaning.append(found.dense)
            self._by_words.append(found.sparse)
            for scored in (found.dense, found.sparse):
                self._from.update((one, space.number) for one, _ in scored)
        k = self._asked.k
        lists = [[one for one, _ in scored] for scored in (*self._meaning, *self._by_words)]
        # What is most likely needed, in one look-up: nearly all of it is alive.
        self._scores = self._blended()
        likely = [*(ids[:k] for ids in lists), list(self._scores)[: self._pool]]
        dead = len(self._dead)
        self._alive(list(dict.fromkeys(one for ids in likely for one in ids)))
        enough = all(len(self._first(ids, k)) >= k or len(ids) < wanted for ids in lists)
        if len(self._dead) > dead:
            self._scores = self._blended()
        return enough

    def _first(self, ids: Sequence[str], count: int) -> list[str]:
        """The first of them that are alive; no more is looked up than that takes."""
        found: list[str] = []
        for start in range(0, len(ids), count):
            found += self._alive(ids[start : start + count])
            if len(found) >= count:
                break
        return found[:count]

    def _alive(self, ids: Sequence[str]) -> list[str]:
        """Those that the moment knows, in a space that it searches, of documents that pass the condition."""
        unknown = [one for one in ids if one not in self.chunks and one not in self._dead]
        if unknown:
            for one, (chunk, document) in self._moment.alive(unknown).items():
                if self._counts(chunk, document, self._from[one]):
                    self.chunks[one] = chunk
                    self.documents[document.key] = document
            self._dead.update(one for one in unknown if one not in self.chunks)
        return [one for one in ids if one in self.chunks]

    def _counts(self, chunk: ChunkRecord, document: DocumentRecord, space: int) -> bool:
        if chunk.space != space or document.kind not in self._searched.get(space, ()):
            return False
        return self._asked.where is None or passes(self._asked.where, document.columns)

    def chosen(self) -> list[tuple[str, float]]:
        """The best by meaning and by words, ordered anew where the collection says so."""
        asked = self._asked
        scores = self._scores
        best = [(one, scores[one]) for one in self._first(list(scores), self._pool)]
        if self._live.collection.rerank is not None:
            best = self._reranked(best)
        if asked.diversity and len(best) > 1:
            best = self._diverse(best)
        return best[: asked.k]

    def _blended(self) -> dict[str, float]:
        """By meaning and by words together, the best first; of none that is known to be dead."""
        # One of them may be what the others would be measured by.
        meaning, words = (
            [[one for one in scored if one[0] not in self._dead] for scored in found]
            for found in (self._meaning, self._by_words)
        )
        if self._asked.mode == "ranks":
            ids = [[one for one, _ in scored] for scored in (*meaning, *words)]
            return dict(fuse(ids, sum(map(len, ids))))
        return dict(blend(meaning, words, _WEIGHTS[self._asked.mode]))

    def _reranked(self, best: list[tuple[str, float]]) -> list[tuple[str, float]]:
        rerank: Any = self._live.collection.rerank
        texts = [self.chunks[one].text for one, _ in best]
        scores = np.asarray(getattr(rerank, "scores", rerank)(self._asked.question, texts), dtype=np.float64)
        if scores.shape != (len(best),):
            raise InputError(f"the reranker: expected {len(best)} scores, found an array of shape {scores.shape}")
        order = np.argsort(-scores, kind="stable")
        return [(best[place][0], float(scores[place])) for place in order]

    def _diverse(self, best: list[tuple[str, float]]) -> list[tuple[str, float]]:
        """Chosen one by one, each as good and as unlike those before it as `diversity` says (MMR)."""
        queue = next(one for one in self._spaces if one.number == self.chunks[best[0][0]].space).queue
        records = [self.chunks[one] for one, _ in best]
        found = queue.embed([(one.hash, one.embedded or one.text) for one in records])
        embedded = {place: vector for place, vector in enumerate(found) if not isinstance(vector, InputError)}
        usable = list(embedded)
        vectors = np.stack(list(embedded.values()))
        scores = np.array([best[place][1] for place in usable])
        order = mmr(vectors, scores, self._asked.k, 1.0 - self._asked.diversity)
        return [best[usable[place]] for place in order]


def _hit(chunk: ChunkRecord, document: DocumentRecord, score: float, now: int) -> Hit:
    return Hit(
        chunk.text,
        score,
        chunk.document,
        chunk.id,
        from_micros(document.at),
        max(0.0, (now - document.at) / 1e6),
        document.source,
        document.title,
        chunk.headings,
        document.kind,
        document.columns,
        chunk.start,
        chunk.end,
        document.trusted,
    )
