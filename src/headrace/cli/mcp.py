"""MCP on standard input and output: `headrace mcp myapp:app`, as a program that a client starts."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.cli.apps import load_app

_MORE = """\
For a client that starts its servers itself, such as
  {"mcpServers": {"desk": {"command": "headrace", "args": ["mcp", "myapp:app", "--data", "/var/lib/desk"]}}}

Standard output belongs to the protocol; the log goes to standard error. A data directory has one process:
where `headrace run` serves the app already, point the client at http://127.0.0.1:8900/mcp instead.
Needs the package mcp: pip install "headrace[mcp]"
"""


def add(commands: Any, described: Callable[..., argparse.ArgumentParser], data: str) -> None:
    """Adds the command."""
    made = commands.add_parser("mcp", help="an app for one MCP client, on standard input and output")
    command = described(made, "Run an app for the MCP client that started this.", _MORE)
    command.add_argument("app", metavar="MODULE:APP", help="the App object, as in myapp:app")
    command.add_argument("--data", default=data, metavar="DIR", help="where state is kept (default: %(default)s)")
    command.add_argument("--in-memory", action="store_true", help="keep nothing on disk; all is gone when it ends")
    command.set_defaults(call=run)


def run(parsed: argparse.Namespace) -> int:
    """Serves until the client closes the input."""
    from headrace.plan import check
    from headrace.serving.mcp_http import load

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stdio = load("mcp_stdio")
    app = load_app(parsed.app)
    check(app)
    with app.open(None if parsed.in_memory else Path(parsed.data)) as live:
        stdio.run(live)
    return 0
