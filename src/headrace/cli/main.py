"""The command line: run an app, see its plan, the demo, the benchmarks, and what could not be used."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from headrace.app import App
from headrace.errors import ConfigError, HeadraceError, InputError, nearest
from headrace.stores.datadir import Layout
from headrace.stores.dead_letters import DeadLetters
from headrace.units import from_micros

_ABOUT = """\
Headrace keeps what a language model is told true to the moment it is told:
event streams in, per-key features out, right at the millisecond they are read.
"""
_FIRST = """\
begin with:
  headrace demo                          a week of New York's flights, replayed and asked about
  headrace check myapp:app               what an app declares, checked and drawn
  headrace run myapp:app --data ./data   engine, API and live page on http://127.0.0.1:8900

myapp:app is the App object named `app` in myapp.py, found from the current directory.
"""
_RUN = """\
what is served (http://127.0.0.1:8900 unless told otherwise):
  POST /v1/streams/STREAM        events in: NDJSON, a JSON array, CSV or Parquet
  GET  /v1/features/VIEW/KEY     a key's features, right now
  GET  /v1/tools, POST /v1/tools/NAME   for models: OpenAI definitions, and calls
  GET  /metrics /healthz /readyz /docs /

Only this machine can connect by default. Any other --host needs a key, from the
environment variable HEADRACE_API_KEY or from --api-key-file.
SIGTERM and Ctrl-C end it cleanly; after kill -9 it goes on where it was.
"""
_LETTERS = """\
examples:
  headrace dead-letters list --data ./data
  headrace dead-letters show 17 --data ./data
  headrace dead-letters replay myapp:app --data ./data 17 18

Replay opens the app, so stop a running server first, or use its API:
  curl -X POST http://127.0.0.1:8900/v1/dead-letters/replay
"""
_DEFAULT_DATA = "headrace-data"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status is 0, or 1 with a message, or 2 for a wrong command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["bench"]:
        from headrace.bench import main as bench

        return _guarded(lambda: bench(arguments[1:]))
    if arguments[:1] == ["demo"]:
        from headrace.demo.show import main as demo

        return _guarded(lambda: demo(arguments[1:]))
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.command is None:
        parser.print_help()
        return 0
    return _guarded(lambda: int(parsed.call(parsed)))


def _guarded(call: object) -> int:
    assert callable(call)
    try:
        return int(call())
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone (as `| head` does): nothing more to say, and nothing to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = _command(argparse.ArgumentParser(prog="headrace"), _ABOUT, _FIRST)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    run = _command(commands.add_parser("run", help="engine, API and live page in one process"), "Run an app.", _RUN)
    _app_argument(run)
    run.add_argument("--data", default=_DEFAULT_DATA, metavar="DIR", help="where state is kept (default: %(default)s)")
    run.add_argument("--in-memory", action="store_true", help="keep nothing on disk; all is gone when it ends")
    run.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    run.add_argument("--port", type=int, default=8900, help="default: %(default)s; 0 takes a free one")
    run.add_argument("--api-key-file", metavar="FILE", help="file with the key that clients must send")
    run.add_argument("--online", metavar="URL", help='online store, such as "memory:"')
    run.add_argument("--runner", help='what moves the batches: "local"')
    run.set_defaults(call=_run)

    check = _command(
        commands.add_parser("check", help="the plan, checked and drawn, nothing started"),
        "Check an app's declaration and draw it. Nothing is started, read or written.",
        "exit status: 0 if it would run, 1 with the reason if not",
    )
    _app_argument(check)
    check.set_defaults(call=_check)

    for name, text in (
        ("demo", "a week of New York's flights, replayed and asked about"),
        ("bench", "a benchmark, with its peers in the same run: features, reads, freshness"),
    ):
        commands.add_parser(name, help=text, add_help=False)

    letters = _command(
        commands.add_parser("dead-letters", help="what could not be used: list, show, replay"),
        "Inputs that could not be used, kept whole with the reason.",
        _LETTERS,
    )
    actions = letters.add_subparsers(dest="action", metavar="list|show|replay", required=True)
    listed = actions.add_parser("list", help="one line a letter, newest last")
    listed.add_argument("--stream", help="of this stream only")
    listed.add_argument("--limit", type=int, default=100, help="default: %(default)s")
    listed.add_argument("--after", type=int, default=0, metavar="ID", help="begin after this letter")
    listed.set_defaults(call=_letters_list)
    shown = actions.add_parser("show", help="one letter, with its original bytes")
    shown.add_argument("id", type=int)
    shown.set_defaults(call=_letters_show)
    replayed = actions.add_parser("replay", help="push letters again, after what was wrong has been mended")
    _app_argument(replayed)
    replayed.add_argument("ids", type=int, nargs="*", metavar="ID", help="which (default: all)")
    replayed.set_defaults(call=_letters_replay)
    for action in (listed, shown, replayed):
        action.add_argument("--data", default=_DEFAULT_DATA, metavar="DIR", help="default: %(default)s")
    return parser


def _command(parser: argparse.ArgumentParser, about: str, more: str) -> argparse.ArgumentParser:
    parser.description, parser.epilog = about, more
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _app_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app", metavar="MODULE:APP", help="the App object, as in myapp:app")


def load_app(target: str) -> App:
    """The App that "module:name" stands for, found from the current directory too.

    Raises:
        ConfigError: There is no such module or object; the message says which.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not name:
        raise ConfigError(f"expected MODULE:APP, as in myapp:app, found {target!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(
                f"there is no module {error.name!r} in {os.getcwd()} or on the Python path; "
                "run the command where it lies, or install it"
            ) from None
        raise ConfigError(f"{module_name} needs the module {error.name!r}, which is not installed") from error
    app = getattr(module, name, None)
    if not isinstance(app, App):
        known = [label for label, value in vars(module).items() if isinstance(value, App)]
        found = "nothing" if app is None else f"a {type(app).__name__}"
        raise ConfigError(f"{target}: expected an hr.App, found {found}; {nearest(name, known)}")
    return app


def _run(parsed: argparse.Namespace) -> int:
    from headrace.ops.security import check_binding, read_api_key
    from headrace.serving.server import bind, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = load_app(parsed.app)
    app.online = parsed.online or app.online
    app.runner = parsed.runner or app.runner
    from headrace.plan import check

    check(app)
    key = read_api_key(parsed.api_key_file)
    # Before the data directory is made and its state recovered, which can take a while.
    check_binding(parsed.host, key)
    bind(parsed.host, parsed.port).close()
    live = app.open(None if parsed.in_memory else Path(parsed.data))
    return int(serve(live, parsed.host, parsed.port, api_key=key))


def _check(parsed: argparse.Namespace) -> int:
    from headrace.plan import check

    print(check(load_app(parsed.app)).draw())
    return 0


def _existing(data: str) -> Path:
    """The data directory, which must be there: these commands make none."""
    path = Path(data)
    if not path.is_dir():
        raise InputError(f"expected a data directory, found none at {path.absolute()}; name it with --data")
    return path


def _letters(data: str) -> closing[DeadLetters]:
    """The dead letters of a data directory, also while a server has it open."""
    return closing(DeadLetters(Layout(_existing(data)).dead_letters))


def _letters_list(parsed: argparse.Namespace) -> int:
    with _letters(parsed.data) as letters:
        found = letters.list(parsed.stream, limit=parsed.limit, after=parsed.after)
        for letter in found:
            when = from_micros(letter.at).isoformat(timespec="seconds")
            print(f"{letter.id:>6}  {when}  {letter.stream}  {letter.source}  {letter.reason}")
        counts = letters.count()
    shown = f"{len(found)} shown" if found else "none"
    print(f"{shown}; kept: {', '.join(f'{count} of {stream}' for stream, count in counts.items()) or 'none'}")
    return 0


def _letters_show(parsed: argparse.Namespace) -> int:
    with _letters(parsed.data) as letters:
        letter = letters.get(parsed.id)
    print(f"stream: {letter.stream}\nsource: {letter.source}\nwhen:   {from_micros(letter.at).isoformat()}")
    print(f"reason: {letter.reason}\n", flush=True)
    sys.stdout.buffer.write(letter.raw + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _letters_replay(parsed: argparse.Namespace) -> int:
    with load_app(parsed.app).open(_existing(parsed.data)) as live:
        taken, rejected = live.replay_dead_letters(parsed.ids or None)
        live.drain()
    print(f"{taken} taken, {rejected} still rejected")
    return 0 if rejected == 0 else 1
