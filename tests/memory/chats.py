"""What the tests of memories share: an app with one on a clock of its own, and its files searched for a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import headrace as hr
from headrace.testing.clock import VirtualClock

NOON = "2026-01-01T12:00:00Z"


def make_app(clock: VirtualClock | None = None, **options: Any) -> hr.App:
    app = hr.App("talks", clock=clock or VirtualClock(NOON))
    app.memory("chat", **{"embed": "hash", "index": "memory:", "turns": 3, "subject": "user_id", **options})
    return app


def texts(turns: list[hr.Turn]) -> list[str]:
    return [one.text for one in turns]


def files_with(path: Path, text: str) -> list[str]:
    return [one.name for one in sorted(path.rglob("*")) if one.is_file() and text.encode() in one.read_bytes()]
