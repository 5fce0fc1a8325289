"""`headrace bench NAME`: choose a benchmark, run it, print what it found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from headrace.bench.harness import BenchError, Report, say

ABOUT = {
    "features": "JSON events to every key's trailing sum: events/s and memory, beside Bytewax and Pathway",
    "reads": "reads while 50,000 events/s arrive: in process and over HTTP, beside a dict, LMDB and Valkey",
    "query": "the same question by SQL over raw events in Postgres and by a feature read: latency and load",
    "online": "reads from Redis while 200,000 events/s are written to it, beside redis-py's own GET",
    "kafka": "a topic's messages to every key's trailing sum, beside the bare consumer, Bytewax and Quix Streams",
    "embed": "MiniLM's texts/s and its vectors, beside sentence-transformers and FastEmbed",
    "vectors": "searches of an index while chunks are written and deleted: latency, recall, memory, with peers",
    "documents": "a corpus's history replayed: what is embedded again; edit → searchable; with peers",
    "retrieval": "titles and headings as questions: words, meaning and both, by embedder, with intervals",
    "chat": "what the chat endpoint adds to a model's first token and to its end, at 1, 50 and 200 streams",
    "context": "packs while 20,000 events/s and document edits arrive: latency, consistency, the packer alone",
    "freshness": "an event's scheduled time to its being visible to a read, at several rates",
}


def parser() -> argparse.ArgumentParser:
    """The command line of `headrace bench`."""
    made = argparse.ArgumentParser(
        prog="headrace bench",
        description="Run a benchmark, with its peers in the same run where they are installed "
        '(pip install "headrace[bench]").',
        epilog="\n".join(f"{name:10} {about}" for name, about in ABOUT.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("name", choices=list(ABOUT), help="which one")
    made.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    made.add_argument(
        "--events",
        type=positive,
        help="features, kafka: how many events (1,000,000 and 2,000,000); query: at most (10,000,000)",
    )
    made.add_argument("--keys", type=positive, help="how many keys (reads: 1,000,000; else 10,000)")
    made.add_argument("--runs", type=positive, default=5, help="rounds; the figure is their median (5)")
    made.add_argument("--seconds", type=float, help="the length of a round (3; query: 4)")
    made.add_argument("--no-peers", action="store_true", help="features and reads: Headrace alone")
    made.add_argument("--plot", type=Path, metavar="FILE", help="query: draw the figures, as in query.svg")
    made.add_argument("--chunks", type=positive, help="how many are live (vectors: 1,000,000; context: 100,000)")
    made.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="documents, retrieval: a Parquet file of revisions (seq, op, id, text; default: HEADRACE_PEPS)",
    )
    made.add_argument("--brokers", metavar="HOST:PORT", help="kafka: a broker that runs (default: starts a light one)")
    made.add_argument("--seed", type=int, default=1, help="of the generated events (1)")
    return made


def positive(text: str) -> int:
    value = int(text.replace("_", "").replace(",", ""))
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number greater than 0, found {text}")
    return value


def measure(options: argparse.Namespace) -> Report:
    """Run the benchmark that was asked for; each is imported only then, with what it needs."""
    given = {name: value for name in ("keys", "seconds") if (value := getattr(options, name)) is not None}
    if options.name == "features":
        from headrace.bench import features

        count = options.events or 1_000_000
        return features.run(events_count=count, runs=options.runs, seed=options.seed, peers=not options.no_peers)
    if options.name == "reads":
        from headrace.bench import reads

        return reads.run(runs=options.runs, seed=options.seed, peers=not options.no_peers, **given)
    if options.name == "query":
        from headrace.bench import query

        return query.run(events=options.events, runs=options.runs, seed=options.seed, plot=options.plot, **given)
    if options.name == "online":
        from headrace.bench import online

        return online.run(runs=options.runs, seed=options.seed, peers=not options.no_peers, **given)
    if options.name == "kafka":
        from headrace.bench import kafka

        return kafka.run(
            events_count=options.events or 2_000_000,
            runs=options.runs,
            seed=options.seed,
            brokers=options.brokers,
            peers=not options.no_peers,
        )
    if options.name == "vectors":
        from headrace.bench import vectors

        size = {} if options.chunks is None else {"count": options.chunks}
        return vectors.run(runs=options.runs, seed=options.seed, peers=not options.no_peers, **size, **given)
    if options.name == "embed":
        from headrace.bench import embed

        return embed.run(runs=options.runs, seed=options.seed, peers=not options.no_peers)
    if options.name == "documents":
        from headrace.bench import documents

        seconds = {} if options.seconds is None else {"seconds": options.seconds}
        return documents.measure(
            data=options.data, runs=options.runs, seed=options.seed, peers=not options.no_peers, **seconds
        )
    if options.name == "retrieval":
        from headrace.bench import retrieval

        return retrieval.measure(data=options.data, seed=options.seed)
    if options.name == "chat":
        from headrace.bench import chat

        seconds = {} if options.seconds is None else {"seconds": options.seconds}
        return chat.run(runs=options.runs, seed=options.seed, **seconds)
    if options.name == "context":
        from headrace.bench import context

        size = {} if options.chunks is None else {"chunks": options.chunks}
        return context.run(runs=options.runs, seed=options.seed, **size, **given)
    from headrace.bench import freshness

    return freshness.run(runs=options.runs, seed=options.seed, **given)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `headrace bench` with these arguments; the exit status."""
    options = parser().parse_args(argv)
    try:
        report = measure(options)
    except BenchError as error:
        say(f"headrace bench {options.name}: {error}")
        return 1
    print(json.dumps(report.to_dict()) if options.json else report.text())
    return 0
