"""Enriches what waits in a directory, and dies by SIGKILL before or after one step of its n'th time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import enrich_child

from headrace.runners.local import LocalRunner
from headrace.stores.enrichments import EnrichmentStore

STEPS: dict[str, tuple[type, str]] = {
    "take in": (EnrichmentStore, "take_in"),
    "read": (EnrichmentStore, "entries"),
    "keep": (EnrichmentStore, "keep"),
    "decide": (EnrichmentStore, "decide"),
    "push": (LocalRunner, "submit"),
    "mark": (EnrichmentStore, "pushed"),
}


def _dies(step: Callable[..., Any], when: str, left: int) -> Callable[..., Any]:
    def stepping(*given: Any) -> Any:
        nonlocal left
        # Of pushes, those of what was asked; of the rest all.
        ours = not isinstance(given[0], LocalRunner) or given[1].name == "graded"
        left -= ours
        if ours and left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = step(*given)
        if ours and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return stepping


def main(path: str, url: str, step: str, when: str, nth: int) -> None:
    owner, name = STEPS[step]
    setattr(owner, name, _dies(getattr(owner, name), when, nth))
    app, sales, _, _ = enrich_child.declared(url)
    with app.open(path) as live:
        for first in range(0, 20, 5):
            live.push(sales, [enrich_child.sale(number) for number in range(first, first + 5)])
            live.drain()


if __name__ == "__main__":
    _, folder, server, named, moment, count = sys.argv
    main(folder, server, named, moment, int(count))
