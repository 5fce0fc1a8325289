"""The commands, their options and their help."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from headrace.cli import export, letters, mcp, replay, server, status, tables
from headrace.cli.apps import load_app
from headrace.errors import HeadraceError

_ABOUT = """\
Headrace keeps what a language model is told true to the moment it is told:
event streams and changing documents in; per-key features, passages and packed contexts
out, right at the millisecond they are read, over HTTP, MCP and OpenAI's chat API.
"""
_FIRST = """\
begin with:
  headrace demo                          a week of New York's flights, replayed and asked about;
                                         then what is installed here, searched; then a model, asked
  headrace check myapp:app               what an app declares, checked and drawn
  headrace run myapp:app --data ./data   engine, API and live page on http://127.0.0.1:8900

myapp:app is the App object named `app` in myapp.py, found from the current directory.
"""
_SERVED = """\
what is served (http://127.0.0.1:8900 unless told otherwise):
  POST /v1/streams/STREAM        events in: NDJSON, a JSON array, CSV or Parquet
  GET  /v1/features/VIEW/KEY     a key's features, right now
  PUT  /v1/tables/TABLE          documents in; DELETE takes them away
  POST /v1/collections/NAME/search   the passages that answer a question
  POST /v1/contexts/NAME         features, passages and memory, packed for a model
  POST /v1/memories/NAME/SESSION   remember turns; GET recalls, DELETE forgets
  POST /v1/chat/completions      OpenAI's chat, with the app's contexts and tools
  GET  /v1/tools, POST /v1/tools/NAME   for models: definitions, and calls
  GET  /v1/changes               server-sent events: what has changed
  /mcp                           MCP over HTTP, with headrace[mcp]
  GET  /metrics /healthz /readyz /docs /     the last is the live page

Only this machine can connect by default. Any other --host needs a key, from the
environment variable HEADRACE_API_KEY or from --api-key-file.
"""
_RUN = (
    _SERVED
    + """SIGTERM and Ctrl-C end it cleanly; after kill -9 it goes on where it was.

a cluster of two processes (their engine only; `headrace serve` answers for it):
  headrace run myapp:app --runner bytewax --online redis://host/0 --process 0 --addresses "a:9101;b:9101"
  headrace run myapp:app --runner bytewax --online redis://host/0 --process 1 --addresses "a:9101;b:9101"
"""
)
_SERVE = (
    _SERVED
    + """
It keeps nothing: run as many as you like, beside one engine with the same app and --online.
Events that are pushed here go to the stream's topic.
"""
)
_STATUS = """\
exit status: 0 if the app is ready, 1 if it is not or cannot be reached
The API key, if one is needed, comes from HEADRACE_API_KEY or --api-key-file.
"""
_LETTERS = """\
examples:
  headrace dead-letters list --data ./data
  headrace dead-letters show 17 --data ./data
  headrace dead-letters replay myapp:app --data ./data 17 18

Replay opens the app, so stop a running server first, or use its API:
  curl -X POST http://127.0.0.1:8900/v1/dead-letters/replay
"""
_TABLES = """\
examples:
  headrace tables list --data ./data
  headrace tables forget myapp:app articles

Forget a table that is no longer followed: its slot keeps the server's log from being freed.
"""
_DEFAULT_DATA = "headrace-data"

Commands = Any  # what argparse calls a subparsers action has no public name


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status is 0, or 1 with a message, or 2 for a wrong command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["bench"]:
        from headrace.bench import main as bench

        return _guarded(lambda: bench(arguments[1:]))
    if arguments[:1] == ["demo"]:
        from headrace.demo.show import main as demo

        return _guarded(lambda: demo(arguments[1:]))
    commands = parser()
    parsed = commands.parse_args(arguments)
    if parsed.command is None:
        commands.print_help()
        return 0
    return _guarded(lambda: int(parsed.call(parsed)))


def _guarded(call: Callable[[], int]) -> int:
    try:
        return call()
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone (as `| head` does): nothing more to say, and nothing to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def parser() -> argparse.ArgumentParser:
    """All commands but `bench` and `demo`, which have parsers of their own."""
    made = _described(argparse.ArgumentParser(prog="headrace"), _ABOUT, _FIRST)
    made.set_defaults(command=None)
    commands = made.add_subparsers(dest="command", metavar="COMMAND")
    _run(commands)
    _serve(commands)
    _check(commands)
    _status(commands)
    for name, text in (
        ("demo", "a week of New York's flights, replayed and asked about"),
        ("bench", "a benchmark, with its peers in the same run"),
    ):
        commands.add_parser(name, help=text, add_help=False)
    _dead_letters(commands)
    _tables(commands)
    _replay(commands)
    export.add(commands, _described)
    mcp.add(commands, _described, _DEFAULT_DATA)
    return made


def _run(commands: Commands) -> None:
    run = _described(commands.add_parser("run", help="engine, API and live page in one process"), "Run an app.", _RUN)
    _app(run)
    run.add_argument("--data", default=_DEFAULT_DATA, metavar="DIR", help="where state is kept (default: %(default)s)")
    run.add_argument("--in-memory", action="store_true", help="keep nothing on disk; all is gone when it ends")
    _listening(run)
    run.add_argument("--runner", help='what moves the batches: "local" or "bytewax"')
    cluster = run.add_argument_group("a cluster's engine (--runner bytewax)")
    cluster.add_argument("--workers", type=int, metavar="N", help="worker threads of this process")
    cluster.add_argument("--process", type=int, metavar="I", help="which process this is, from 0")
    cluster.add_argument("--addresses", metavar='"HOST:PORT;…"', help="of all processes, in order")
    run.set_defaults(call=server.run)


def _serve(commands: Commands) -> None:
    serve = _described(
        commands.add_parser("serve", help="the API alone, reading the online store"),
        "Answer for an app whose engine runs elsewhere, from its online store.",
        _SERVE,
    )
    _app(serve)
    _listening(serve)
    serve.set_defaults(call=server.serve_only)


def _listening(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    command.add_argument("--port", type=int, default=8900, help="default: %(default)s; 0 takes a free one")
    command.add_argument("--api-key-file", metavar="FILE", help="file with the key that clients must send")
    command.add_argument("--online", metavar="URL", help="online store: memory: or redis://host:6379/0")


def _check(commands: Commands) -> None:
    check = _described(
        commands.add_parser("check", help="the plan, checked and drawn, nothing started"),
        "Check an app's declaration and draw it. Nothing is started, read or written.",
        "exit status: 0 if it would run, 1 with the reason if not",
    )
    _app(check)
    check.set_defaults(call=_checked)


def _checked(parsed: argparse.Namespace) -> int:
    from headrace.plan import check

    print(check(load_app(parsed.app)).draw())
    return 0


def _status(commands: Commands) -> None:
    command = _described(
        commands.add_parser("status", help="how a running app does: lag, delay, queue, dead letters"),
        "Ask a running app how it does.",
        _STATUS,
    )
    command.add_argument("url", nargs="?", default="http://127.0.0.1:8900", help="default: %(default)s")
    command.add_argument("--api-key-file", metavar="FILE", help="file with the key that the app wants")
    command.add_argument("--json", action="store_true", help="all of it, as JSON")
    command.set_defaults(call=status.show)


def _dead_letters(commands: Commands) -> None:
    command = _described(
        commands.add_parser("dead-letters", help="what could not be used: list, show, replay"),
        "Inputs that could not be used, kept whole with the reason.",
        _LETTERS,
    )
    actions = command.add_subparsers(dest="action", metavar="list|show|replay", required=True)
    listed = actions.add_parser("list", help="one line a letter, newest last")
    listed.add_argument("--stream", help="of this stream only")
    listed.add_argument("--limit", type=int, default=100, help="default: %(default)s")
    listed.add_argument("--after", type=int, default=0, metavar="ID", help="begin after this letter")
    listed.set_defaults(call=letters.list_letters)
    shown = actions.add_parser("show", help="one letter, with its original bytes")
    shown.add_argument("id", type=int)
    shown.set_defaults(call=letters.show_letter)
    replayed = actions.add_parser("replay", help="push letters again, after what was wrong has been mended")
    _app(replayed)
    replayed.add_argument("ids", type=int, nargs="*", metavar="ID", help="which (default: all)")
    replayed.set_defaults(call=letters.replay_letters)
    for action in (listed, shown, replayed):
        action.add_argument("--data", default=_DEFAULT_DATA, metavar="DIR", help="default: %(default)s")


def _tables(commands: Commands) -> None:
    command = _described(
        commands.add_parser("tables", help="what is stored of tables: list, forget a source"),
        "What is stored of an app's tables, and what their sources keep on their servers.",
        _TABLES,
    )
    actions = command.add_subparsers(dest="action", metavar="list|forget", required=True)
    listed = actions.add_parser("list", help="one line a table")
    listed.add_argument("--data", default=_DEFAULT_DATA, metavar="DIR", help="default: %(default)s")
    listed.set_defaults(call=tables.list_tables)
    forgotten = actions.add_parser("forget", help="drop a source's replication slot and publication")
    _app(forgotten)
    forgotten.add_argument("table", metavar="TABLE", help="the table's name")
    forgotten.set_defaults(call=tables.forget_source)


def _replay(commands: Commands) -> None:
    command = _described(
        commands.add_parser("replay", help="what a model was given: shown, made again as of then, compared with now"),
        "Show a context that was given out, make it again as of then, and say what differs now.",
        replay.EPILOG,
    )
    command.add_argument("pack", metavar="PACK", help="the pack's id")
    command.add_argument("app", metavar="MODULE:APP", nargs="?", help="the App object, as in myapp:app; not with --url")
    command.add_argument("--url", metavar="URL", help="a running server, as in http://127.0.0.1:8900")
    command.add_argument("--api-key-file", metavar="FILE", help="file with the key that the server wants")
    command.add_argument("--data", default=_DEFAULT_DATA, metavar="DIR", help="default: %(default)s")
    command.add_argument("--json", action="store_true", help="all of it, as JSON")
    command.set_defaults(call=replay.replay)


def _described(command: argparse.ArgumentParser, about: str, more: str) -> argparse.ArgumentParser:
    command.description, command.epilog = about, more
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    return command


def _app(command: argparse.ArgumentParser) -> None:
    command.add_argument("app", metavar="MODULE:APP", help="the App object, as in myapp:app")
