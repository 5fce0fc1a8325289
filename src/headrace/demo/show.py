"""`headrace demo`: replay a week of flights, show it live, then ask three questions as a model would.

Then the documents half: the READMEs of what is installed here, searched and watched (`headrace.demo.documents`). At the
end a model answers a question over what is known now (`headrace.demo.ending`).

The replay pushes from a thread of its own, so that neither the display nor a reader can slow the load; all
else is in the calling thread, where Ctrl-C arrives.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.demo import flights
from headrace.errors import ConfigError, HeadraceError, MissingDependencyError
from headrace.units import WEEK, to_micros

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from headrace.demo.board import Board
    from headrace.demo.replay import Replay
    from headrace.serving.live import Live
    from headrace.serving.server import BackgroundServer

# The week that ends while the airports reopen after the blizzard of 8 February: the most cancellations of the
# year.
DEFAULT_WEEK = "2013-02-02T16:00"
# A week in twenty seconds.
SPEED = 30_000.0
# While it serves: ten minutes a second, slow enough to follow a flight on the live page.
SERVE_SPEED = 600.0
INTERRUPTED = 130
_FRAMES = 8
_ABOUT = (
    "A week of New York's flights, replayed, shown live, and asked about as a model would; then what is installed "
    "here, searched and watched; then a question, answered by a model over live context if there is a model "
    "(of HEADRACE_UPSTREAMS, or the small one)."
)
_LINE_EVERY = 2.0


@dataclass(frozen=True)
class Options:
    """What `headrace demo` was asked for; `speed` None is as fast as it goes."""

    week: str = DEFAULT_WEEK
    weeks: float = 1.0
    speed: float | None = SPEED
    data: str | None = None
    serve: bool = False
    port: int = 8900
    part: str = "flights"
    embed: str = "static"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headrace demo`, on any parser."""
    parser.add_argument(
        "--week",
        default=DEFAULT_WEEK,
        metavar="WHEN",
        help="where the week begins, a New York date or time (default: %(default)s)",
    )
    parser.add_argument("--weeks", type=_positive, default=1.0, metavar="N", help="how many weeks (default: 1)")
    parser.add_argument(
        "--speed",
        type=_speed,
        default=SPEED,
        metavar="TIMES",
        help='times real time, or "max" for as fast as it goes (default: 30000, a week in 20 s)',
    )
    parser.add_argument("--data", metavar="DIR", help="keep the data here, and go on from it (default: keep nothing)")
    parser.add_argument("--serve", action="store_true", help="stay, serve HTTP and go on with the year until Ctrl-C")
    parser.add_argument("--port", type=int, default=8900, help="the port to serve on (default: %(default)s)")
    half = parser.add_argument_group("the documents half: what is installed here, searched")
    one = half.add_mutually_exclusive_group()
    one.add_argument("--documents", dest="part", action="store_const", const="documents", help="only this half")
    one.add_argument("--flights", dest="part", action="store_const", const="flights", help="only the other half")
    half.add_argument(
        "--embed", choices=("static", "minilm"), default="static", help="minilm finds better and takes longer (static)"
    )
    parser.set_defaults(part="both")


def main(argv: Sequence[str] | None = None) -> int:
    """`headrace demo` by itself: parse the arguments, run, and return the exit status."""
    parser = argparse.ArgumentParser(prog="headrace demo", description=_ABOUT)
    add_arguments(parser)
    return run_demo(**vars(parser.parse_args(argv)))


def run_demo(**options: Any) -> int:
    """Run the demo to its end.

    Args:
        options: The fields of `Options`.

    Returns:
        The exit status: 0, 1 if it could not run (the reason is on standard error), 130 after Ctrl-C.
    """
    try:
        chosen = Options(**options)
        with _sigterm_exits():
            return _run(chosen)
    except KeyboardInterrupt:
        return INTERRUPTED
    except HeadraceError as error:
        print(f"headrace demo: {error}", file=sys.stderr)
        return 1


def _run(options: Options) -> int:
    if options.part == "documents":
        _documents(_console(), options.embed)
        return 0
    folder = flights.data_path()
    console = _console()
    start, end = _span(options)
    began = time.perf_counter()
    year = flights.load(folder)
    console.print(
        f"{year.height:,} events of the {flights.FLIGHTS:,} flights of 2013, "
        f"read in {time.perf_counter() - began:.1f} s.",
        style="dim",
        highlight=False,
    )
    from headrace.demo.answers import ask, print_answer
    from headrace.demo.app import app
    from headrace.demo.ending import conclude

    with contextlib.ExitStack() as stack:
        directory = options.data or stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-demo-"))
        live = stack.enter_context(app.open(directory))
        if options.serve:
            _say_what_to_open(console, stack.enter_context(_server(live, options.port)).url)
        _replay(console, live, year, start, end, options.speed)
        for number, answer in enumerate(ask(live), 1):
            print_answer(console, number, answer)
        if options.part == "both" and not options.serve:
            try:
                _documents(console, options.embed)
            except MissingDependencyError as error:
                console.print()
                console.print(f"The documents half is left out: {error}", style="yellow", highlight=False, markup=False)
        conclude(console, live, folder)
        if options.serve:
            _stay(console, live, year)
            return 0
    _say_how_to_go_on(console, options)
    return 0


def _documents(console: Console, embed: str) -> None:
    from headrace.demo.documents import check, show

    check(embed)
    show(console, embed=embed)


def _server(live: Live, port: int) -> BackgroundServer:
    from headrace.serving.server import BackgroundServer

    return BackgroundServer(live, port=port)


def _console() -> Console:
    try:
        from rich.console import Console
    except ImportError:
        raise MissingDependencyError(
            'the demo draws with the package rich, which is not installed; run: pip install "headrace[demo]"'
        ) from None
    # A terminal that cannot show a character shows a "?" instead of ending the demo.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console()


def _span(options: Options) -> tuple[int, int]:
    start = flights.from_new_york(options.week)
    first, last = flights.from_new_york("2013-01-01"), flights.from_new_york("2014-01-01")
    if not first <= start < last:
        raise ConfigError(f"expected a week of the year 2013, which the data is of, found {options.week}")
    return start, min(last, start + round(options.weeks * WEEK))


def _replay(console: Console, live: Live, year: pl.DataFrame, start: int, end: int, speed: float | None) -> None:
    """Push the week, or what a directory that already has some of it lacks, and show it."""
    from headrace.demo.board import Board
    from headrace.demo.replay import Replay, between, newest

    begin = max(start, newest(live) or start)
    events = between(year, begin, end)
    if begin > start:
        rest = "nothing of the week is left to replay" if events.is_empty() else "going on from there"
        console.print(f"The data directory has the flights until {flights.new_york(begin)}: {rest}.")
    if events.is_empty():
        return
    replay = Replay(live, events, begin, speed)
    board = Board(live, replay, start, end, _pace(speed))
    with _pushing(replay) as pushed:
        _show(console, board, pushed, _FRAMES, _LINE_EVERY)
    progress = replay.progress()
    console.print(
        f"{progress.pushed:,} events in {replay.took:.1f} s, "
        f"{progress.pushed / max(replay.took, 1e-9):,.0f} a second, each durable before it counted.",
        highlight=False,
    )


@contextlib.contextmanager
def _pushing(replay: Replay) -> Iterator[Future[None]]:
    """The replay in a thread of its own; leaving early ends it."""
    with ThreadPoolExecutor(1, thread_name_prefix="headrace-demo") as pool:
        pushed = pool.submit(replay.run)
        try:
            yield pushed
        finally:
            replay.stop.set()
    pushed.result()


def _show(console: Console, board: Board, pushed: Future[None], frames: float, line_every: float) -> None:
    """Draw the board until the replay has ended: `frames` a second on a terminal, elsewhere a line now and then."""
    from rich.live import Live as Display

    from headrace.demo.board import PLAIN_HEADER, plain_line

    if console.is_terminal and not console.is_dumb_terminal:
        with Display(board, console=console, auto_refresh=False) as display:
            while not _ended(pushed, 1 / frames):
                display.refresh()
            display.refresh()
        return
    console.print(PLAIN_HEADER, highlight=False, soft_wrap=True)
    ended = False
    while not ended:
        ended = _ended(pushed, line_every)
        console.print(plain_line(board), highlight=False, soft_wrap=True)


def _ended(future: Future[None], timeout: float) -> bool:
    return bool(wait([future], timeout).done)


def _stay(console: Console, live: Live, year: pl.DataFrame) -> None:
    """Go on with the year, so that what is served moves, until Ctrl-C."""
    from headrace.demo.board import Board
    from headrace.demo.replay import Replay, between, newest

    now, end = newest(live) or 0, to_micros(year["at"][-1])
    console.print()
    console.print("Going on with the year, and serving, until Ctrl-C.", style="bold")
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        rest = between(year, now, end)
        if not rest.is_empty():
            replay = Replay(live, rest, now, SERVE_SPEED)
            with _pushing(replay) as pushed:
                _show(console, Board(live, replay, now, end, _pace(SERVE_SPEED)), pushed, 2, 60)
        console.print("The year is over: what is served stands still from here on.")
        threading.Event().wait()


def _pace(speed: float | None) -> str:
    return "as fast as it goes" if speed is None else f"at {speed:,.0f} times real time"


def _say_how_to_go_on(console: Console, options: Options) -> None:
    directory = options.data or "./flights"
    run = f"headrace run headrace.demo.app:app --data {directory} --port {options.port}"
    console.print()
    console.print("Keep it running, and the year going on:", style="bold")
    console.print("  headrace demo --serve", style="cyan", highlight=False, soft_wrap=True)
    if options.data:
        console.print("Or serve what is now in the data directory:", style="bold")
    else:
        console.print("Or keep the data, and serve it with the app alone:", style="bold")
        console.print(f"  headrace demo --data {directory}", style="cyan", highlight=False, soft_wrap=True)
    console.print(f"  {run}", style="cyan", highlight=False, soft_wrap=True)
    _say_what_to_open(console, f"http://127.0.0.1:{options.port}", "Then open:")


def _say_what_to_open(console: Console, address: str, first: str = "Open:") -> None:
    console.print(first, style="bold")
    for path, what in (("/", "the live page"), ("/docs", "the HTTP interface")):
        console.print(f"  [cyan]{address}{path}[/]  [dim]{what}[/]", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C does, so that the cursor comes back and the temporary directory goes."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set a handler; whoever has it decides
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number greater than 0, found {text!r}")
    return value


def _speed(text: str) -> float | None:
    return None if text == "max" else _positive(text.removesuffix("x"))
