"""The live half of the `documents` benchmark: an edit at its scheduled time → a search finds it.

The edits are real ones, revisions of documents that are there, each with a paragraph in the middle that says a word
which is nowhere else. They are pushed at a rate, whether or not those before
are through (open loop). A thread of its own then searches for the word with `after=` the push's token; the edit is
searchable when that search has come back with the word. So a latency is the wait for the schedule to be caught up with,
the push, the wait for the collection, and the search itself.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

import headrace as hr
from headrace.bench.documents_data import COLLECTION, TABLE, Edit, app, row
from headrace.bench.harness import BenchError
from headrace.bench.openloop import call_on_schedule
from headrace.documents.embed.base import Embedder
from headrace.runners.embedding.load import embedder
from headrace.serving.live import Live

Times = npt.NDArray[np.float64]
_SEARCHERS = 64
_PATIENCE = 120.0
_LOADED_AT_ONCE = 50
_FOUND = 5


@dataclass(frozen=True)
class Trial:
    """Milliseconds from each edit's scheduled time until it was stored, followed by the collection, and found.

    Attributes:
        chunks: How many chunks an edit had embedded, on average.
        search: Of the searches alone.
    """

    stored: Times
    followed: Times
    found: Times
    search: Times
    chunks: float


@dataclass(frozen=True)
class Script:
    """What is there at first, and the edits that come.

    Attributes:
        base: Texts by document.
        rounds: The edits of each round, in order.
    """

    base: dict[str, str]
    rounds: list[list[Edit]]

    @classmethod
    def of(cls, revisions: pl.DataFrame, rounds: int, count: int, seed: int) -> Script:
        """Edits as they come in fact: a document as often as it has revisions, each the one after the one before.

        Where in its history a document begins is drawn by chance; so is the order of the documents.

        Args:
            count: Edits of a round.
        """
        rng = np.random.default_rng(seed)
        upserts = revisions.filter(pl.col("op") == "upsert").group_by("id", maintain_order=True).agg("text")
        texts = {str(id): found for id, found in upserts.iter_rows()}
        many = np.array([len(found) - 1 for found in texts.values()], dtype=np.float64)
        if not many.any():
            raise BenchError("expected documents with several revisions in the data, found none")
        drawn = [list(texts)[place] for place in rng.choice(len(many), rounds * count, p=many / many.sum())]
        wanted = Counter(drawn)
        places = {id: int(rng.integers(max(len(found) - wanted[id], 1))) for id, found in texts.items()}
        base = {id: found[places[id]] for id, found in texts.items()}
        planned: list[list[Edit]] = [[] for _ in range(rounds)]
        for number, id in enumerate(drawn):
            places[id] += 1
            if places[id] < len(texts[id]):
                planned[number // count].append(Edit(id, texts[id][places[id]]))
        return cls(base, planned)


class Standing:
    """A model whose vectors of what is loaded first are made up, since embedding it would take minutes.

    Its name is the model's, so what it embeds is known to the cache as the model's.
    """

    def __init__(self, model: Embedder, seed: int) -> None:
        self._model = model
        self._rng = np.random.default_rng(seed)
        self.loading = True
        self.texts = 0
        self.name, self.dimension, self.limit = f"{model.name}/standing", model.dimension, model.limit

    def offsets(self, text: str) -> Any:
        return self._model.offsets(text)

    def embed(self, texts: Sequence[str], kind: Any = "document") -> Any:
        if not self.loading:
            self.texts += len(texts) if kind == "document" else 0
            return self._model.embed(texts, kind)
        made = self._rng.standard_normal((len(texts), self.dimension)).astype(np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)


class Library:
    """An app on disk that has the base, to be edited."""

    def __init__(self, embed: str, index: str, folder: Path, script: Script, seed: int) -> None:
        self._model = Standing(embedder(embed), seed)
        self._script = script
        self._next = 0
        self.live: Live = app(self._model, index).open(folder)
        self._rows = {id: row(id, text) for id, text in script.base.items()}
        self._load(list(self._rows.values()))
        self._model.loading = False
        self._model.embed(["warm"], "query")

    def _load(self, rows: list[dict[str, Any]], at_once: int = _LOADED_AT_ONCE) -> None:
        for start in range(0, len(rows), at_once):
            token = self.live.push(TABLE, rows[start : start + at_once])
            self.live.search(COLLECTION, "loaded", k=1, mode="words", after=token, timeout=_PATIENCE)

    def trial(self, rate: float, seconds: float, *, warm: bool = False) -> Trial:
        """The next round's edits, at `rate` a second.

        Args:
            warm: Whether the cache of embeddings has them already.

        Raises:
            BenchError: An edit was not found.
        """
        planned = self._script.rounds[self._next % len(self._script.rounds)][: int(rate * seconds)]
        self._next += 1
        marks = [f"zq{self._next}x{turn:06d}" for turn in range(len(planned))]
        rows, said = [], dict[str, list[str]]()
        for edit, mark in zip(planned, marks, strict=True):
            # A document's next edit may overtake this one; it says its word, too.
            said.setdefault(edit.id, []).append(mark)
            rows.append(marked(edit, said[edit.id]))
        if warm:
            self._load(rows, 1)
            self._load([self._rows[id] for id in said])
        self._rows |= {edit["id"]: edit for edit in rows}
        return self._timed(rows, marks, rate)

    def _timed(self, rows: list[dict[str, Any]], marks: list[str], rate: float) -> Trial:
        begin, embedded = 0, self._model.texts
        stored = np.empty(len(rows))
        waiting: list[Future[tuple[int, int]]] = []

        def push(turn: int) -> None:
            nonlocal begin
            begin = begin or time.perf_counter_ns()
            token = self.live.push(TABLE, [rows[turn]])
            waiting.append(pool.submit(self._found, token, marks[turn]))
            stored[turn] = time.perf_counter_ns()

        with ThreadPoolExecutor(_SEARCHERS, thread_name_prefix="bench-search") as pool:
            call_on_schedule(push, rate, len(rows))
            moments = np.array([one.result(_PATIENCE) for one in waiting], dtype=np.float64)
        due = begin + np.arange(len(rows)) * 1e9 / rate
        chunks = (self._model.texts - embedded) / len(rows)
        ends = moments[:, 1]
        return Trial(
            (stored - due) / 1e6,
            (moments[:, 0] - due) / 1e6,
            (ends - due) / 1e6,
            (ends - moments[:, 0]) / 1e6,
            chunks,
        )

    def _found(self, token: hr.Token, mark: str) -> tuple[int, int]:
        """When the collection had followed the push, and when the search came back that found it."""
        assert self.live.library is not None
        seq = next(iter(token.positions.values()))
        self.live.library.followed(COLLECTION, int(seq), _PATIENCE)
        followed = time.perf_counter_ns()
        hits = self.live.search(COLLECTION, mark, k=_FOUND, after=token, timeout=_PATIENCE)
        now = time.perf_counter_ns()
        if not any(mark in hit.text for hit in hits):
            raise BenchError(f"an edit that was followed was not found by its word {mark}")
        return followed, now

    def close(self) -> None:
        self.live.close()


def marked(edit: Edit, marks: Sequence[str]) -> dict[str, Any]:
    """An edit with a paragraph of its own in the middle of its document."""
    text = edit.text or ""
    place = text.find("\n\n", len(text) // 2)
    place = len(text) if place < 0 else place
    said = f"\n\nThese words are said here and nowhere else: {', '.join(marks)}."
    return row(edit.id, text[:place] + said + text[place:])
