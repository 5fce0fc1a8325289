"""The replay half of the `documents` benchmark: every revision, one after another, through an app.

Each revision is pushed and followed before the next, so none is left out in favour of a later one. Counted is what the
embedder is given, with its vectors made up by hash: which chunks are embedded does not depend on what the model says of
them, and its tokenizer, which decides where chunks end, is the model's own.

A first revision has to be embedded whole, so the share that is not re-embedded is that of the revisions after it. The
ceiling is what a diff of lines would not send again: the lines of a revision that none before of its document had.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import xxhash

import headrace as hr
from headrace.bench.documents_data import COLLECTION, TABLE, Edit, Pep, app, edits, row
from headrace.bench.harness import BenchError, say
from headrace.documents.embed.hashed import HashEmbedder
from headrace.documents.identity import identified
from headrace.documents.states import Raw
from headrace.documents.tokens import counter_of
from headrace.runners.library.collection import LiveCollection
from headrace.serving.live import Live

_PATIENCE = 120.0
_SAID_EVERY = 2_000


class Counting(HashEmbedder):
    """Vectors by hash, and another model's tokens; counts what it is given.

    Attributes:
        texts: How many.
        characters: In them.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__("hash:16")
        self.name = f"{self.name}/counting"
        self.limit = tokenizer.limit
        self.texts = self.characters = 0
        self._tokenizer = tokenizer

    def offsets(self, text: str) -> Any:
        return self._tokenizer.offsets(text)

    def embed(self, texts: Sequence[str], kind: Any = "document") -> Any:
        self.texts += len(texts)
        self.characters += sum(map(len, texts))
        return super().embed([text[:64] for text in texts], kind)


@dataclass
class Tally:
    """Characters of revisions, and those that were sent: by chunks, and by lines.

    Attributes:
        first: Of documents' first revisions, which are sent whole.
        later: Of all others.
        sent: Of those, what was sent.
    """

    first: int = 0
    later: int = 0
    sent: int = 0

    def add(self, whole: int, sent: int, *, first: bool) -> None:
        if first:
            self.first += whole
        else:
            self.later += whole
            self.sent += sent

    @property
    def kept(self) -> float:
        """The share of the later revisions that was not sent."""
        return 1.0 - self.sent / self.later if self.later else 1.0

    @property
    def kept_of_all(self) -> float:
        """The share of all revisions that was not sent, the first ones among them."""
        return 1.0 - (self.sent + self.first) / max(self.later + self.first, 1)


@dataclass
class Lines:
    """A diff of lines: what no revision of the document before had."""

    tally: Tally = field(default_factory=Tally)
    _known: dict[str, set[int]] = field(default_factory=dict)

    def add(self, id: str, text: str) -> None:
        lines = {xxhash.xxh3_64_intdigest(line.encode()): len(line) for line in text.splitlines(keepends=True)}
        first = id not in self._known
        known = self._known.setdefault(id, set())
        sent = sum(size for line, size in lines.items() if line not in known)
        known.update(lines)
        self.tally.add(len(text), sent, first=first)


@dataclass
class Replay:
    """What a replay cost.

    Attributes:
        chunks: Characters that were to be embedded, and were.
        lines: The same for a diff of lines.
        embedded: Chunks that were embedded.
        live: Chunks in the index at the end, and what an ideal index would hold.
        tokens: Of the chunks at the end, the median.
        seconds: For all revisions, waiting for each.
        milliseconds: Of each revision.
        marks: The shares after so many revisions.
    """

    chunks: Tally
    lines: Tally
    embedded: int
    live: int
    tokens: float
    limit: int
    seconds: float
    milliseconds: list[float]
    marks: dict[int, float]


def replay(revisions: pl.DataFrame, tokenizer: Any, chunk: Any = None, mark: int = 0) -> Replay:
    """Replays all revisions.

    Args:
        tokenizer: An embedder, whose tokens and limit count.
        chunk: As `hr.chunk()`; None for the default.
        mark: After so many revisions the share of all is noted, to be compared with peers.

    Raises:
        BenchError: The index holds something else than the chunks of the documents that are there at the end.
    """
    counting = Counting(tokenizer)
    made = app(counting, "memory:", chunk=chunk)
    tally, lines, took = Tally(), Lines(), list[float]()
    seen, last, marks = set[str](), dict[str, str](), dict[int, float]()
    with made.open() as live:
        collection = _collection(live)
        for number, edit in enumerate(edits(revisions), 1):
            before, began = counting.characters, time.perf_counter()
            _followed(live, edit)
            took.append(time.perf_counter() - began)
            if edit.text is None:
                last.pop(edit.id, None)
            else:
                last[edit.id] = edit.text
                lines.add(edit.id, edit.text)
                tally.add(_characters(collection, edit.id), counting.characters - before, first=edit.id not in seen)
                seen.add(edit.id)
            if number == mark:
                marks[number] = tally.kept_of_all
            if number % _SAID_EVERY == 0:
                say(f"  {number:,} of {revisions.height:,} revisions, {tally.kept:.1%} not re-embedded")
        sizes = compared(live, made, last, counting)
    limit = made.collections[COLLECTION].handlers.handler("pep").chunking.tokens
    tokens = float(statistics.median(sizes)) if sizes else 0.0
    milliseconds = [each * 1e3 for each in took]
    return Replay(tally, lines.tally, counting.texts, len(sizes), tokens, limit, sum(took), milliseconds, marks)


def _collection(live: Live) -> LiveCollection:
    assert live.library is not None
    return live.library.collections[COLLECTION]


def _followed(live: Live, edit: Edit) -> None:
    token = live.delete(TABLE, [edit.id]) if edit.text is None else live.push(TABLE, [edit.row])
    seq = int(token.positions[f"table/{TABLE}"])
    assert live.library is not None
    if not live.library.followed(COLLECTION, seq, _PATIENCE):
        raise BenchError(f"a revision of {edit.id} was not followed within {_PATIENCE:g} s")


def _characters(collection: LiveCollection, id: str) -> int:
    """Of the document's chunks as they are now, as they are embedded."""
    with collection.records.moment() as moment:
        return sum(len(chunk.embedded or chunk.text) for chunk in moment.of_document(id))


def compared(live: Live, made: hr.App, documents: dict[str, str], embedder: Any) -> list[int]:
    """The tokens of the chunks that the index holds, which must be exactly those of the documents cut from scratch.

    Raises:
        BenchError: They are not.
    """
    collection = _collection(live)
    collection.wait(lambda: not collection.sweeping(), _PATIENCE)
    handlers = made.collections[COLLECTION].handlers
    expected: dict[str, str] = {}
    for id, text in documents.items():
        cleaned = handlers.cleaned(Raw(id, "pep", Pep(**row(id, text)), 0, 0))
        pieces = handlers.pieces(cleaned, embedder)
        expected |= {chunk.id: chunk.embedded for chunk in identified(f"{COLLECTION}/{embedder.name}", id, pieces)}
    (space,) = collection.spaces.open.values()
    with collection.records.moment() as moment:
        holders: dict[str, Callable[[], set[str]]] = {
            "index": lambda: set(space.index.ids()),
            "records": lambda: set(moment.ids(space.number)),
        }
        for what, ids in holders.items():
            found = ids()
            if found != expected.keys():
                raise BenchError(
                    f"after the replay the {what} hold {len(found - expected.keys())} chunks that no live document has "
                    f"and lack {len(expected.keys() - found)} of {len(expected)}"
                )
    count = counter_of(embedder).of
    return [count(text) for text in expected.values()]
