"""`headrace bench retrieval`: known items, found by words, by meaning and by both.

A question is a title, and right is its document; or a heading, and right is its section (see `retrieval_data`; neither
stands where it would give the answer away). Asked is what a user asks, an app's search, ten hits. Of a title's hits the
documents are counted, each at its first chunk. With one right answer nDCG@10 is 1 / log2(1 + its rank), and MRR@10 is
1 / its rank; 0 where it is not among the ten. Intervals are of 95 %, by bootstrap over the questions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace.bench.documents_data import COLLECTION, TABLE, Pep, app, frame, live, located
from headrace.bench.harness import BenchError, Report, say
from headrace.bench.retrieval_data import KnownItems, Question, known_items
from headrace.documents.states import Raw
from headrace.runners.library.hits import Hit
from headrace.serving.live import Live

Gains = npt.NDArray[np.float64]
EMBEDDERS = ("minilm", "static", "hash:384")
MODES = ("words", "meaning", "hybrid")
AT = 10
_CHUNKS = 50  # for a title: so that ten documents are among them
_SAMPLES = 2_000
_LOADED_AT_ONCE = 20
_PATIENCE = 900.0
# A chunk is in a section if so many of its characters are.
_INSIDE = 0.5


def run(
    *,
    data: Path | None = None,
    seed: int = 1,
    documents: int = 0,
    headings: int = 600,
    embedders: Sequence[str] = EMBEDDERS,
    index: str = "local:",
) -> Report:
    """Measure.

    Args:
        data: A Parquet file of revisions; None for what HEADRACE_PEPS names.
        documents: How many of them, drawn by chance; all for 0.
        headings: How many headings are asked for.

    Raises:
        BenchError: There is no such file, or nothing in it to ask for.
    """
    path = located(data)
    report = Report("retrieval", seed, "title → document and heading → section, nDCG and MRR of ten hits")
    texts = live(frame(path))
    if documents and documents < len(texts):
        names = sorted(texts)
        drawn = np.random.default_rng(seed).permutation(len(names))[:documents]
        texts = {names[place]: texts[names[place]] for place in sorted(drawn)}
    items = known_items(cleaned(texts), seed, headings)
    if not items.questions:
        raise BenchError(f"{path}: expected titles or headings to ask for, found none")
    for embed in embedders:
        say(f"{embed}: {len(items.texts):,} documents, {len(items.questions):,} questions")
        add(report, embed, ranks(embed, index, items), items.questions, seed)
    describe(report, items)
    return report


measure = run


def cleaned(texts: dict[str, str]) -> dict[str, str]:
    """The texts as the app cleans them, so that places in them are those that a hit tells."""
    handlers = app("hash", "memory:", text="text").collections[COLLECTION].handlers
    return {
        id: handlers.cleaned(Raw(id, "pep", Pep(id=id, title="", text=text), 0, 0)).text for id, text in texts.items()
    }


def ranks(embed: str, index: str, items: KnownItems) -> dict[str, list[int]]:
    """By mode, the rank of each question's answer; 0 where it is not among the first ten."""
    made = app(embed, index, text="text", filters=["id"])
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, made.open(folder) as running:
        rows = [{"id": id, "title": "", "text": text} for id, text in items.texts.items()]
        for start in range(0, len(rows), _LOADED_AT_ONCE):
            token = running.push(TABLE, rows[start : start + _LOADED_AT_ONCE])
            running.search(COLLECTION, "loaded", k=1, mode="words", after=token, timeout=_PATIENCE)
        return {mode: [rank(asked(running, one, mode), one) for one in items.questions] for mode in MODES}


def asked(running: Live, question: Question, mode: str) -> list[Hit]:
    k = _CHUNKS if question.kind == "title" else AT
    return running.search(COLLECTION, question.text, k=k, mode=mode)


def rank(hits: Sequence[Hit], question: Question) -> int:
    """Where the answer stands among the hits, from 1; 0 if it is not among the first ten."""
    if question.kind == "title":
        found = list(dict.fromkeys(hit.document for hit in hits))
        return found.index(question.document) + 1 if question.document in found[:AT] else 0
    for place, hit in enumerate(hits[:AT], 1):
        if hit.document == question.document and _inside(hit, question):
            return place
    return 0


def _inside(hit: Hit, question: Question) -> bool:
    """Whether half of the shorter of the two, the chunk and the section, is in the other."""
    common = min(hit.end, question.end) - max(hit.start, question.start)
    return common >= _INSIDE * min(hit.end - hit.start, question.end - question.start)


def add(report: Report, embed: str, found: dict[str, list[int]], questions: Sequence[Question], seed: int) -> None:
    """An embedder's figures, of titles and headings and of both; and what hybrid search gains."""
    kinds = np.array([one.kind for one in questions])
    for kind in ("title", "heading", "all"):
        chosen = np.ones(len(kinds), dtype=bool) if kind == "all" else kinds == kind
        if not chosen.any():
            continue
        gains: dict[str, Gains] = {}
        for mode in MODES:
            places = np.array(found[mode])[chosen]
            gains[mode] = np.where(places > 0, 1 / np.log2(1 + np.maximum(places, 1)), 0.0)
            reciprocal = np.where(places > 0, 1 / np.maximum(places, 1), 0.0)
            _add_mean(report, f"{embed}, {mode}", f"{kind}: nDCG@{AT}", gains[mode], seed)
            _add_mean(report, f"{embed}, {mode}", f"{kind}: MRR@{AT}", reciprocal, seed)
        better = max(("words", "meaning"), key=lambda mode: float(gains[mode].mean()))
        gain = gains["hybrid"] - gains[better]
        low, high = interval(gain, seed)
        report.notes.append(
            f"{embed}, {kind}: hybrid over {better}, nDCG@{AT}: {gain.mean():+.4f} ({low:+.4f} … {high:+.4f})"
        )
        best = float(gains[better].mean())
        if best:
            report.ratios[f"{embed}, {kind}: hybrid over the better of words and meaning"] = float(
                gains["hybrid"].mean() / best
            )


def _add_mean(report: Report, system: str, metric: str, values: Gains, seed: int) -> None:
    """A mean, with the ends of its interval as least and greatest."""
    low, high = interval(values, seed)
    report.add(system, metric, "", [low, float(values.mean()), high])


def interval(values: Gains, seed: int) -> tuple[float, float]:
    """The 95 % confidence interval of a mean, by bootstrap."""
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(len(values), size=len(values))].mean() for _ in range(_SAMPLES)])
    low, high = np.percentile(means, [2.5, 97.5])
    # A skewed sample may leave its own mean outside of the interval; the figure is still the mean.
    return min(float(low), float(values.mean())), max(float(high), float(values.mean()))


def describe(report: Report, items: KnownItems) -> None:
    """What a reader of the figures must know."""
    counts = {kind: sum(one.kind == kind for one in items.questions) for kind in ("title", "heading")}
    report.notes += [
        f"{len(items.texts):,} documents; {counts['title']:,} titles, {counts['heading']:,} headings of at least "
        "three words",
        "min and max are the ends of a 95 % interval, by bootstrap over the questions, and the median is the mean",
        "the title's line is taken out of the text and the heading's out of its section before they are indexed",
        "hash knows words and no meaning: it is the floor that a weak embedder may not drag hybrid search below",
        "of Python's enhancement proposals, hybrid's weight was chosen on the questions of 200 documents, "
        "drawn by chance",
    ]
