"""`headrace bench documents`: a corpus's whole history, replayed; and how soon an edit can be searched.

Three questions. How much of what was embedded before is embedded again (`documents_replay`), beside a diff of lines,
which is the least that could be sent? Does the index hold exactly the chunks of the live documents at the end? And how
long is it from an edit's scheduled time until a search finds it (`documents_live`)? The peers replay the beginning of
the same history, each with its own chunker (`documents_peers`); the shares are compared, over the same revisions.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

import headrace as hr
from headrace.bench import documents_peers
from headrace.bench.documents_data import frame, located
from headrace.bench.documents_live import Library, Script, Trial
from headrace.bench.documents_replay import Replay, replay
from headrace.bench.harness import Report, percentiles, say
from headrace.runners.embedding.load import embedder

# Tokens of a chunk: the default of `hr.chunk`, and what MiniLM was trained with.
SIZES = (256, 128)
PEER_REVISIONS = 1_000
SECONDS = 12.0
# Embedder, edits a second, and whether the cache has their embeddings already.
LOADS = (("minilm", 5.0, False), ("static", 50.0, False), ("minilm", 50.0, True))
INDEXES = ("edge:", "local:")
GOAL_KEPT, GOAL_TOKENS, GOAL_MS = 0.9, 0.5, 1_000.0


def run(
    *,
    data: Path | None = None,
    runs: int = 3,
    seed: int = 1,
    seconds: float = SECONDS,
    limit: int = 0,
    peers: bool = True,
    tokenizer: str = "minilm",
    loads: tuple[tuple[str, float, bool], ...] = LOADS,
    indexes: tuple[str, ...] = INDEXES,
) -> Report:
    """Measure.

    Args:
        data: A Parquet file of revisions; None for what HEADRACE_PEPS names.
        runs: Rounds of edits; the replay has no luck in it and is done once.
        seconds: The length of a round.
        limit: How many revisions are replayed; all for 0.
        tokenizer: The embedder whose tokens count in the replay.

    Raises:
        BenchError: There is no such file, or what the index held, or found, was wrong.
    """
    path = located(data)
    report = Report("documents", seed, "a corpus's history, replayed; and an edit's scheduled time → a search finds it")
    revisions = frame(path, limit)
    prefix = min(PEER_REVISIONS, revisions.height)
    replayed = {}
    for size in SIZES:
        say(f"replaying {revisions.height:,} revisions in chunks of {size} tokens")
        replayed[size] = replay(revisions, embedder(tokenizer), hr.chunk(tokens=size), mark=prefix)
        add_replay(report, f"headrace, {size} tokens", replayed[size])
    if peers:
        documents_peers.add(report, path, prefix, {size: one.marks[prefix] for size, one in replayed.items()})
    for embed, rate, warm in loads:
        for index in indexes:
            edited(report, revisions, embed, index, rate, seconds, runs, seed, warm=warm)
    describe(report, seconds)
    return report


measure = run


def add_replay(report: Report, system: str, found: Replay) -> None:
    """A replay's figures, and how they stand to their goals."""
    ceiling = found.lines.kept
    report.add(system, "not embedded again", "% of characters", [100 * found.chunks.kept])
    report.add(
        system, "not embedded again, first revisions counted", "% of characters", [100 * found.chunks.kept_of_all]
    )
    report.add(system, "ceiling: a diff of lines", "% of characters", [100 * ceiling])
    report.add(system, "chunks embedded", "chunks", [found.embedded])
    report.add(system, "chunks in the index at the end, as they should be", "chunks", [found.live])
    report.add(system, "median of a chunk", "tokens", [found.tokens])
    report.add(system, "replayed", "revisions/s", [len(found.milliseconds) / found.seconds])
    report.add(system, "a revision p50", "ms", [float(np.percentile(found.milliseconds, 50))])
    report.add(system, "a revision p99", "ms", [float(np.percentile(found.milliseconds, 99))])
    report.ratios[f"{system}: not embedded again, of its goal of 90 %"] = found.chunks.kept / GOAL_KEPT
    report.ratios[f"{system}: not embedded again, of a diff of lines"] = found.chunks.kept / max(ceiling, 1e-9)
    if found.lines.sent:
        # What a diff would send is in lines and what we send is in chunks: both as shares of what there was.
        report.ratios[f"{system}: embedded, of the least possible"] = (1 - found.chunks.kept) / (1 - ceiling)
    report.ratios[f"{system}: median of a chunk, of half its limit"] = found.tokens / (found.limit * GOAL_TOKENS)


def edited(
    report: Report,
    revisions: pl.DataFrame,
    embed: str,
    index: str,
    rate: float,
    seconds: float,
    runs: int,
    seed: int,
    *,
    warm: bool,
) -> None:
    """One embedder and index at a rate, in a process's own app on disk."""
    name = f"headrace {embed}{', cached' if warm else ''}, {index}"
    script = Script.of(revisions, runs + 1, max(int(rate * seconds), 1), seed)
    say(f"{name}: loading {len(script.base):,} documents")
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        library = Library(embed, index, Path(folder), script, seed)
        try:
            # The first round is thrown away: models, files and caches are touched for the first time in it.
            library.trial(rate, min(seconds, 2.0), warm=warm)
            rounds: list[Trial] = []
            for turn in range(runs):
                say(f"run {turn + 1} of {runs}: {name} {rate:g}/s")
                rounds.append(library.trial(rate, seconds, warm=warm))
        finally:
            library.close()
    what = f"{rate:g} edits/s"
    percentiles(report, name, f"{what}: searchable", "ms", [one.found for one in rounds])
    for stage in ("stored", "followed", "search"):
        taken = [getattr(one, stage) for one in rounds]
        report.add(name, f"{what}: {stage} p50", "ms", [float(np.percentile(each, 50)) for each in taken])
        report.add(name, f"{what}: {stage} p99", "ms", [float(np.percentile(each, 99)) for each in taken])
    report.add(name, f"{what}: embedded for an edit", "chunks", [one.chunks for one in rounds])
    p99 = report.value(name, f"{what}: searchable p99")
    if p99 is not None:
        report.ratios[f"{name}, {what}: searchable p99, of its goal of 1 s"] = p99 / GOAL_MS


def describe(report: Report, seconds: float) -> None:
    """What a reader of the figures must know."""
    report.notes += [
        "the replay: every revision is pushed and followed before the next; vectors by hash, "
        "MiniLM's tokens, index memory:",
        "a first revision is embedded whole, and does not count as embedded again; characters are those "
        "of chunks as they are embedded, with their headings",
        "the ceiling: lines of a revision that none before of its document had",
        "after the replay index and records held exactly the chunks of the live documents, cut from scratch",
        f"edits: real revisions, each with a word of its own in the middle, open loop, {seconds:g} s a round; "
        "'searchable' is from the scheduled time until a hybrid search after= the push's token has come back "
        "with the word",
        "'stored' and 'followed' are from the scheduled time too; 'search' is the search alone",
        "what is loaded before the edits has made-up vectors (a model would take minutes for them); edits are "
        "embedded by the model, or come from the cache where it says so",
    ]
