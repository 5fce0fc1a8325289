"""The documents half of `headrace demo`: the packages that are installed here, searchable, and watched.

It indexes them with a bound on how long it waits, measures how long an install takes until it can be searched (by
installing a made-up package into a directory of its own, so that nothing is downloaded and this environment is left
alone), and answers questions: three of its own, or on a terminal those that are typed.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from headrace.demo.board import short_time
from headrace.demo.packages import library, metadata
from headrace.documents.embed import weights
from headrace.errors import HeadraceError, StaleError
from headrace.registry import DEFAULT as CONNECTORS

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.runners.library.hits import Hit
    from headrace.serving.live import Live

QUESTIONS = (
    "Which package validates data by type hints?",
    "run blocking code in a thread without blocking the event loop",
    "draw tables and progress bars in a terminal",
)
# What is shown of each, at most.
COLLECTIONS = {"packages": 2, "standard_library": 1}
# Seconds; indexing goes on while questions are answered, if it takes longer.
PATIENCE = {"static": 20.0, "minilm": 60.0}
ROUNDS = 10
_WITHIN = 10.0
_LOOK = 0.002
_FRAME = 0.1
_SHOWN = 240


@dataclass(frozen=True)
class Times:
    """Seconds of each install until a search found it, and of each uninstall until it no longer did."""

    found: list[float]
    gone: list[float]


def check(embed: str) -> None:
    """Finds what the documents half needs, without fetching anything.

    Raises:
        MissingDependencyError: Something is not installed; the message has the line that installs it.
    """
    CONNECTORS.find("table", "dir:").load()
    CONNECTORS.find("embed", embed).load()
    weights.find(fetch=False)


def show(
    console: Console,
    *,
    embed: str = "static",
    site: Path | None = None,
    standard: Path | None = None,
    patience: float | None = None,
    rounds: int = ROUNDS,
    index: str = "local:",
) -> None:
    """Runs it to its end: on a terminal, until the prompt is left.

    Args:
        console: Where it is shown.
        embed: "static", or "minilm", which finds better and takes longer.
        site: The directory of packages; this environment's, if not given.
        standard: The standard library's.
        patience: How many seconds to wait until all is indexed before going on; by the embedder, if not given.
        rounds: How many installs are measured.
        index: Where they are searched.
    """
    console.print()
    console.print(Rule(Text("Documents: what is installed here", style="bold"), align="left", style="cyan"))
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder:
        began = time.perf_counter()
        with library(site, standard, folder, embed=embed, index=index).open() as live:
            if patience is None:
                patience = PATIENCE.get(embed, PATIENCE["static"])
            # Behind a long queue an install would wait for what was there before: that is not what is measured.
            if _index(console, live, f"{embed}, {index.rstrip(':')}", began, patience):
                _tell(console, measure(live, Path(folder), rounds))
            for question in QUESTIONS:
                answer(console, live, question)
            if console.is_terminal and not console.is_dumb_terminal:
                _prompt(console, live)


def _index(console: Console, live: Live, how: str, began: float, patience: float) -> bool:
    """Waits until all of it can be searched, says what there is, and whether that is all."""
    first: float | None = None
    shown = console.status("reading …") if console.is_terminal else nullcontext()
    with ThreadPoolExecutor(1, thread_name_prefix="headrace-demo") as pool, shown as status:
        followed = pool.submit(live.library.drain, patience)
        while not wait([followed], _FRAME).done:
            documents, chunks = _sums(live, "documents", "chunks")
            if first is None and chunks:
                first = time.perf_counter() - began
            if status is not None:
                status.update(f"{documents:,} documents, {chunks:,} chunks")
        whole = followed.result()
    took = time.perf_counter() - began
    documents, chunks, embedded, waiting = _sums(live, "documents", "chunks", "embedded", "waiting")
    packages, modules = (live.stats().collections[name].documents for name in COLLECTIONS)
    console.print(
        f"{packages:,} READMEs of installed packages and {modules:,} modules of the standard library:\n"
        f"{documents:,} documents in {chunks:,} chunks, {embedded:,} embedded "
        f"({how}); the first could be searched after {short_time(first or took)}, "
        f"{'all' if whole else 'these'} after {short_time(took)}.",
        highlight=False,
    )
    if not whole:
        console.print(f"{waiting:,} more are being read meanwhile.", style="dim", highlight=False)
    return whole


def _sums(live: Live, *figures: str) -> list[int]:
    found = live.stats().collections
    return [sum(getattr(found[name], figure) for name in COLLECTIONS) for figure in figures]


def measure(live: Live, folder: Path, rounds: int) -> Times:
    """Installs and uninstalls a made-up package, again and again, and searches for it meanwhile.

    Raises:
        StaleError: A search did not follow within ten seconds.
    """
    times = Times([], [])
    for number in range(rounds):
        name = f"moonlark{number}"
        place = folder / f"{name}-1.0.dist-info"
        began = time.perf_counter()
        place.mkdir()
        (place / "METADATA").write_text(
            metadata(name, "1.0", f"Tells the phases of moon {number}.", "# Phases\n\nOf moons.")
        )
        times.found.append(_until(partial(_is_found, live, name), True) - began)
        began = time.perf_counter()
        shutil.rmtree(place)
        times.gone.append(_until(partial(_is_found, live, name), False) - began)
    return times


def _is_found(live: Live, name: str) -> bool:
    return any(hit.columns["name"] == name for hit in live.search("tryout", f"phases {name}", k=1))


def _until(found: Callable[[], bool], wanted: bool) -> float:
    """When a search first said so."""
    deadline = time.perf_counter() + _WITHIN
    while found() is not wanted:
        if time.perf_counter() > deadline:
            raise StaleError(f"expected a search to follow an install within {_WITHIN:g} s; it did not")
        time.sleep(_LOOK)
    return time.perf_counter()


def _tell(console: Console, times: Times) -> None:
    if not times.found:
        return
    found, gone = (
        f"{short_time(statistics.median(one))} (at most {short_time(max(one))})" for one in (times.found, times.gone)
    )
    console.print(
        f"Installed: found after {found}. Uninstalled: gone after {gone}.\n"
        f"The median of {len(times.found)} made-up packages, in a directory that is watched in the same way.",
        highlight=False,
    )


def answer(console: Console, live: Live, question: str) -> None:
    """Puts a question to both collections and prints the best hits, each with its age and source."""
    began = time.perf_counter()
    hits = [hit for name, most in COLLECTIONS.items() for hit in live.search(name, question, k=most)]
    took = time.perf_counter() - began
    console.print()
    console.print(Text.assemble((_plain(question), "bold cyan"), (f"   {short_time(took)}", "dim")), soft_wrap=True)
    for hit in hits:
        _print_hit(console, hit)
    if not hits:
        console.print("  nothing is there yet", style="dim")


def _print_hit(console: Console, hit: Hit) -> None:
    under = [part for part in hit.headings if part != hit.title]
    place = " › ".join([hit.title, *under[-2:]])
    text = " ".join(hit.text.split())
    shown = text if len(text) <= _SHOWN else text[:_SHOWN].rsplit(" ", 1)[0] + " …"
    # What a README says is text from outside: it is printed as text, never as markup or as control characters.
    console.print(Padding(Text(_plain(place), style="bold"), (0, 0, 0, 2), expand=False))
    console.print(Padding(Text(_plain(shown)), (0, 0, 0, 4), expand=False))
    console.print(Text(f"    {_ago(hit.age)}, {_plain(hit.source)}", style="dim"), soft_wrap=True)


def _plain(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text)


def _ago(seconds: float) -> str:
    if seconds < 60:
        return f"{short_time(seconds)} ago"
    for unit, size in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds / 60:.0f} min ago"


def _prompt(console: Console, live: Live) -> None:
    console.print()
    console.print("Ask what you like. Install a package in another terminal, and ask again.", style="bold")
    console.print("An empty line ends it.", style="dim")
    while True:
        console.print()
        try:
            question = console.input("[cyan]?[/] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not question:
            return
        try:
            answer(console, live, question[:1_000])
        except HeadraceError as error:
            console.print(Text(str(error), style="red"))
