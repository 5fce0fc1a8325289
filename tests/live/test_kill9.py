"""kill -9 at random moments while pushing: every acknowledged event is counted exactly once."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import kill_child
import pytest

CHILD = Path(kill_child.__file__)
# The second runner starts from what Bytewax saves; most of what the kills are to find is common to both.
KILLS = {"local": 20, "bytewax": 5}


def _counted(path: Path) -> tuple[int, int, int]:
    """All events in the directory: how many are counted, how many different ones, and the sum of their numbers."""
    with kill_child.app.open(path) as live:
        frame = live.read_many(kill_child.Shop, [f"s{shop}" for shop in range(7)])
    return int(frame["count"].sum()), int(frame["numbers"].sum()), int(frame["total"].sum())


def _pushed_until_killed(path: Path, first: int, acknowledgements: int) -> int:
    """Runs the pushing process, kills it after so many acknowledgements, and returns the last number promised."""
    with subprocess.Popen([sys.executable, CHILD, str(path), str(first)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(acknowledgements):
            assert child.stdout.readline(), "the child ended by itself"
        child.kill()
        # What it had written before the signal reached it was acknowledged too.
        rest = child.stdout.read().split()
        child.wait()
    return int(rest[-1]) if rest else first


def test_every_acknowledged_event_is_counted_once(tmp_path: Path, runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill_child.app, "runner", runner)
    chance = random.Random(20)
    number = 0
    for _ in range(KILLS[runner]):
        promised = _pushed_until_killed(tmp_path, number, chance.randint(1, 60))
        count, different, total = _counted(tmp_path)
        assert count == different, "an event is counted twice"
        assert count >= promised, "an acknowledged event is lost"
        # The numbers have no gap: a push that was not acknowledged is there as a whole or not at all.
        assert total == count * (count - 1) // 2
        number = count
