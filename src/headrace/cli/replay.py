"""`headrace replay`: what a model was given, made again as of then, and what of it no longer holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from headrace.cli.apps import load_app
from headrace.errors import ConfigError
from headrace.stores.datadir import Layout

EPILOG = """\
examples:
  headrace replay pack_0f3a… --url http://127.0.0.1:8900
  headrace replay pack_0f3a… myapp:app --data ./data
  headrace replay pack_0f3a… myapp:app --data ./data --json

With --url it asks a running server, whose key, if it wants one, comes from HEADRACE_API_KEY or --api-key-file.
Else it opens the app, so stop a running server first.
exit status: 0 if what could be made again is what the model saw, 1 if something came out otherwise
"""


def replay(parsed: argparse.Namespace) -> int:
    """Shows a pack, makes it again and compares it with now."""
    report = _asked(parsed) if parsed.url else _opened(parsed)
    if parsed.json:
        print(json.dumps(report, indent=2, default=str))
    else:
        print("\n".join(_drawn(report)))
    return 1 if report["rebuilt"]["other"] else 0


def _asked(parsed: argparse.Namespace) -> dict[str, Any]:
    from headrace.ops.security import read_api_key
    from headrace.serving.client import connect

    if parsed.app is not None:
        raise ConfigError(f"expected --url or MODULE:APP, found both: the server at {parsed.url} has its app")
    with connect(parsed.url, api_key=read_api_key(parsed.api_key_file), timeout=60.0) as remote:
        return remote.replay(parsed.pack)


def _opened(parsed: argparse.Namespace) -> dict[str, Any]:
    if parsed.app is None:
        raise ConfigError("expected the app that made the pack, as in myapp:app, or --url of its running server")
    app = load_app(parsed.app)
    path = Path(parsed.data)
    if not Layout(path).packs.exists():
        raise ConfigError(f"expected the data of an app that has made packs, found none in {path}; name it with --data")
    with app.open(path) as live:
        return live.replay(parsed.pack)


def _drawn(report: dict[str, Any]) -> list[str]:
    """The report in words; the pack as the model read it."""
    from headrace.assembly.plain import revive

    pack, rebuilt, now = revive(report["pack"]), report["rebuilt"], report["now"]
    made = pack.point.now.isoformat()
    lines = [
        pack.render("markdown"),
        f"\n--- {pack.id}: {pack.context}, {pack.tokens} of {pack.budget} tokens, at {made}",
        f"as of then: {len(rebuilt['same'])} items made again, the same",
    ]
    lines += [f"  otherwise: {one['section']} {one['id']}: {one['detail']}" for one in rebuilt["other"]]
    lines += [f"  not made again: {id}: {why}" for id, why in rebuilt["unknown"].items()]
    lines.append("now: " + (f"{len(now['changed'])} differ" if now["changed"] else "nothing in it differs"))
    lines += [f"  {one['what']}: {one['section']} {one['id']}: {one['detail']}" for one in now["changed"]]
    return lines + [f"  not compared: {trouble}" for trouble in now["not_compared"]]
