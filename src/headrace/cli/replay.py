"""`headrace replay`: what a model was given, made again as of then, and what of it no longer holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from headrace.cli.apps import load_app
from headrace.errors import ConfigError
from headrace.stores.datadir import Layout

EPILOG = """\
examples:
  headrace replay pack_0f3a… myapp:app --data ./data
  headrace replay pack_0f3a… myapp:app --data ./data --json

It opens the app, so stop a running server first.
exit status: 0 if what could be made again is what the model saw, 1 if something came out otherwise
"""


def replay(parsed: argparse.Namespace) -> int:
    """Shows a pack, makes it again and compares it with now."""
    from headrace.serving.pack_changes import differences
    from headrace.serving.replay import rebuild, report

    app = load_app(parsed.app)
    path = Path(parsed.data)
    if not Layout(path).packs.exists():
        raise ConfigError(f"expected the data of an app that has made packs, found none in {path}; name it with --data")
    with app.open(path) as live:
        pack = live.pack(parsed.pack)
        rebuilt = rebuild(live, pack)
        now, troubles = differences(live, pack)
    if parsed.json:
        print(json.dumps(report(pack, rebuilt, now, troubles), indent=2, default=str))
        return 1 if rebuilt.other else 0
    print(pack.render("markdown"))
    print(f"\n--- {pack.id}: {pack.context}, {pack.tokens} of {pack.budget} tokens, at {pack.point.now.isoformat()}")
    print(f"as of then: {len(rebuilt.same)} items made again, the same")
    for one in rebuilt.other:
        print(f"  otherwise: {one.section} {one.id}: {one.detail}")
    for id, why in rebuilt.unknown.items():
        print(f"  not made again: {id}: {why}")
    print("now: " + ("nothing in it differs" if not now else f"{len(now)} differ"))
    for one in now:
        print(f"  {one.what}: {one.section} {one.id}: {one.detail}")
    for trouble in troubles:
        print(f"  not compared: {trouble}")
    return 1 if rebuilt.other else 0
