"""What the peers of `headrace bench documents` share: the revisions, an embedder that costs nothing, and the account.

A peer is run as `python -m headrace.bench.peers.NAME_documents PARQUET LIMIT` and prints one line of JSON:

    embedded_characters   how many characters were given to the embedder
    total_characters      how many it would have been, had every chunk of every revision been embedded
    chunks_embedded       how many chunks were given to the embedder
    seconds               of the whole replay
    live_chunks           how many chunks are in the index afterwards
    stale, missing        those of a deleted document or an older revision, and those of live documents that lack
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

# About the 256 tokens with 32 of overlap that the others cut by: a token of English is some four letters.
CHUNK, OVERLAP = 1_000, 120


@dataclass(frozen=True)
class Revision:
    """A document as it was at one time; without text it was deleted."""

    document: str
    text: str | None


def revisions(path: str, limit: str) -> Iterator[Revision]:
    """The first revisions of a file, in order; all of them for a limit of 0."""
    frame = pl.scan_parquet(path).sort("seq").head(int(limit) or None)  # type: ignore[arg-type]
    for op, document, text in frame.select("op", "id", "text").collect().iter_rows():
        yield Revision(document, None if op == "delete" else text)


@dataclass
class Account:
    """Counts what a replay costs."""

    split: Callable[[str], Sequence[str]]
    embedded_characters: int = 0
    total_characters: int = 0
    chunks_embedded: int = 0
    _began: float = 0.0
    _aside: float = 0.0
    _live: dict[str, Sequence[str]] = field(default_factory=dict)

    def replay(self, each: Iterable[Revision]) -> Iterator[Revision]:
        """The revisions, counted as they go by; what counting costs is not the peer's time."""
        self._began = time.perf_counter()
        for revision in each:
            aside = time.perf_counter()
            if revision.text is None:
                self._live.pop(revision.document, None)
            else:
                chunks = self._live[revision.document] = self.split(revision.text)
                self.total_characters += sum(map(len, chunks))
            self._aside += time.perf_counter() - aside
            yield revision

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Vectors that depend on the texts and on nothing else."""
        self.chunks_embedded += len(texts)
        self.embedded_characters += sum(map(len, texts))
        return [
            [byte / 255 + 0.001 for byte in hashlib.blake2b(text.encode(), digest_size=32).digest()] for text in texts
        ]

    def say(self, found: Iterable[tuple[str, str]]) -> None:
        """Prints the account, of the documents and texts of the chunks that are in the index."""
        seconds = time.perf_counter() - self._began - self._aside
        held = Counter(found)
        expected = Counter((document, text) for document, chunks in self._live.items() for text in chunks)
        # The same text twice in a document may be one chunk or two.
        said = {
            "embedded_characters": self.embedded_characters,
            "total_characters": self.total_characters,
            "chunks_embedded": self.chunks_embedded,
            "seconds": round(seconds, 3),
            "live_chunks": held.total(),
            "stale": sum(count for chunk, count in held.items() if chunk not in expected),
            "missing": sum(chunk not in held for chunk in expected),
        }
        print(json.dumps(said), flush=True)
