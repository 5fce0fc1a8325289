"""Starting an app: engine and API in one process, the API alone, or one process of a cluster's engine."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from headrace.app import App
from headrace.cli.apps import load_app, log_to_stderr
from headrace.errors import ConfigError


def run(parsed: argparse.Namespace) -> int:
    """The engine, with its API and live page unless it is one of several."""
    app = _app(parsed)
    app.runner = parsed.runner or app.runner
    cluster = (parsed.workers, parsed.process, parsed.addresses) != (None, None, None)
    if cluster and app.runner != "bytewax":
        raise ConfigError(f"--workers, --process and --addresses are for --runner bytewax, found {app.runner!r}")
    if cluster:
        return _run_cluster(parsed, app)
    return _serve(parsed, app, None if parsed.in_memory else Path(parsed.data))


def serve_only(parsed: argparse.Namespace) -> int:
    """The API alone, reading what an engine elsewhere writes."""
    app = _app(parsed)
    app.runner = "replica"
    return _serve(parsed, app, None)


def _app(parsed: argparse.Namespace) -> App:
    log_to_stderr(logging.INFO)
    app = load_app(parsed.app)
    app.online = parsed.online or app.online
    return app


def _serve(parsed: argparse.Namespace, app: App, path: Path | None) -> int:
    from headrace.ops.security import check_binding, read_api_key
    from headrace.plan import check
    from headrace.serving.server import bind, serve

    check(app)
    key = read_api_key(parsed.api_key_file)
    # Before the data directory is made and its state recovered, which can take a while.
    check_binding(parsed.host, key)
    bind(parsed.host, parsed.port).close()
    live = app.open(path)
    return int(serve(live, parsed.host, parsed.port, api_key=key))


def _run_cluster(parsed: argparse.Namespace, app: App) -> int:
    from headrace.plan import check
    from headrace.runners.bytewax import run_cluster

    check(app)
    if app.tables or app.memories:
        raise ConfigError(
            f"the app {app.name!r} has tables, which one process keeps: a cluster's engine cannot; "
            "declare them in an app of their own, or run this one with --runner local"
        )
    if parsed.in_memory:
        raise ConfigError("expected a data directory for a cluster's recovery data, found --in-memory; name --data")
    addresses = parsed.addresses.split(";") if parsed.addresses else []
    return int(run_cluster(app, Path(parsed.data), parsed.workers or 1, parsed.process or 0, addresses))
