"""MCP on standard input and output, as a program that a client starts: an app, or a server that runs elsewhere."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.cli.apps import load_app, log_to_stderr
from headrace.errors import ConfigError
from headrace.ops.security import read_api_key

_MORE = """\
For a client that starts its servers itself, such as
  {"mcpServers": {"desk": {"command": "headrace", "args": ["mcp", "myapp:app", "--data", "/var/lib/desk"]}}}

Standard output belongs to the protocol; the log goes to standard error. A data directory has one process:
where `headrace run` serves the app already, point the client at http://127.0.0.1:8900/mcp, or if it can only
start programs, pass its messages on:
  {"mcpServers": {"desk": {"command": "headrace", "args": ["mcp", "--url", "https://desk.example"]}}}

With --url the API key, if one is needed, comes from HEADRACE_API_KEY or --api-key-file.
Needs the package mcp: pip install "headrace[mcp]"
"""


def add(commands: Any, described: Callable[..., argparse.ArgumentParser], data: str) -> None:
    """Adds the command."""
    made = commands.add_parser("mcp", help="an app for one MCP client, on standard input and output")
    command = described(made, "Run an app for the MCP client that started this.", _MORE)
    command.add_argument("app", nargs="?", metavar="MODULE:APP", help="the App object, as in myapp:app")
    command.add_argument("--url", metavar="URL", help="instead of an app: a server that runs, as http://127.0.0.1:8900")
    command.add_argument("--api-key-file", metavar="FILE", help="a file that holds the key of the server at --url")
    command.add_argument("--data", default=data, metavar="DIR", help="where state is kept (default: %(default)s)")
    command.add_argument("--in-memory", action="store_true", help="keep nothing on disk; all is gone when it ends")
    command.set_defaults(call=run)


def run(parsed: argparse.Namespace) -> int:
    """Serves until the client closes the input."""
    from headrace.plan import check
    from headrace.serving.mcp_http import load

    if (parsed.app is None) == (parsed.url is None):
        raise ConfigError(
            "expected an app or --url, found none or both: headrace mcp myapp:app, or headrace mcp --url URL"
        )
    # Of a server elsewhere the log is there; here it would be the protocol's.
    log_to_stderr(logging.INFO if parsed.url is None else logging.WARNING)
    if parsed.url is not None:
        load("mcp_bridge").run(parsed.url, read_api_key(parsed.api_key_file))
        return 0
    stdio = load("mcp_stdio")
    app = load_app(parsed.app)
    check(app)
    with app.open(None if parsed.in_memory else Path(parsed.data)) as live:
        stdio.run(live)
    return 0
