"""kill -9 while a model is asked, at random moments and between any two steps: all comes out, once, in order."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import enrich_child
import pytest
import stepping_child
from answering import ModelServer, numbers

import headrace as hr

CHILD = Path(enrich_child.__file__)
KILLS = 12


def grade(body: dict[str, Any]) -> Any:
    """A model that tells odd numbers from even ones."""
    grades = [{"grade": "odd" if number % 2 else "even"} for number in numbers(body)]
    if "answers" in body["response_format"]["json_schema"]["schema"]["properties"]:
        return {"answers": [{"n": n, "answer": one} for n, one in enumerate(grades, 1)]}
    return grades[0]


def _pushed_until_killed(path: Path, first: int, server: ModelServer, calls: int) -> int:
    """Runs the pushing process, kills it after so many calls of the model, and returns the last number promised."""
    command = [sys.executable, str(CHILD), str(path), str(first), server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline(), "the child ended by itself"
        server.wait_for(len(server.asked) + calls)
        child.kill()
        rest = child.stdout.read().split()
        child.wait()
    return int(rest[-1]) if rest else first


def _came_once(live: hr.Live, taken: Any, out: Any) -> int:
    """Checks that what came in came out, once and in order; returns how many there were."""
    shops = [f"s{shop}" for shop in range(enrich_child.SHOPS)]
    number = int(live.read_many(taken, shops)["count"].sum())
    came = live.read_many(out, shops)
    assert int(came["count"].sum()) == number, "an event is lost, or came out twice"
    assert int(came["numbers"].sum()) == number
    assert int(came["total"].sum()) == number * (number - 1) // 2
    for recent in came["recent"].to_list():
        found = [one["number"] for one in reversed(recent or [])]
        assert found == sorted(found)
        assert all(one["grade"] == ("odd" if one["number"] % 2 else "even") for one in recent or [])
    assert live.dead_letters.count() == {}
    return number


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", stepping_child.STEPS)
def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(tmp_path: Path, step: str, when: str) -> None:
    nth = "5" if step == "read" else "2"  # it reads before there is anything
    with ModelServer(grade) as server:
        command = [sys.executable, stepping_child.__file__, str(tmp_path), server.url, step, when, nth]
        assert subprocess.run(command, timeout=120, check=False).returncode == -signal.SIGKILL
        app, _, taken, out = enrich_child.declared(server.url)
        with app.open(tmp_path) as live:
            live.drain(60)
            assert _came_once(live, taken, out) >= 5


def test_every_event_comes_out_once_and_in_order(tmp_path: Path) -> None:
    chance = random.Random(9)
    number = 0
    with ModelServer(grade) as server:
        for _ in range(KILLS):
            _pushed_until_killed(tmp_path, number, server, chance.randint(1, 60))
            app, _, taken, out = enrich_child.declared(server.url)
            with app.open(tmp_path) as live:
                live.drain(60)
                number = _came_once(live, taken, out)
        asked = [number for body in server.asked for number in numbers(body)]
    # What was answered before a kill is not asked again; only what was under way is.
    assert len(asked) - len(set(asked)) <= KILLS * 4 * 3
