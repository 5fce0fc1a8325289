"""The demo as a user runs it: its output, its exit statuses, and that it leaves nothing behind."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from headrace.demo.answers import json_text
from headrace.demo.board import short_time, sparkline
from headrace.demo.show import run_demo

DAY = 1 / 7
# A shell that starts tests in the background has them ignore SIGINT, and children inherit that.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from headrace.demo.show import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.fixture
def at_full_speed(capsys: pytest.CaptureFixture[str]) -> str:
    assert run_demo(week="2013-02-08T16:00", weeks=DAY, speed=None) == 0
    return capsys.readouterr().out


def test_three_questions_are_answered(at_full_speed: str) -> None:
    for number, name in enumerate(("origin", "carrier", "route"), 1):
        assert f"\n{number}  " in at_full_speed
        assert f'"name": "{name}"' in at_full_speed
        assert f"call    {name}({{" in at_full_speed
    assert at_full_speed.count("as of   Sat 9 Feb ") == 3


def test_the_end_says_how_to_go_on_and_what_to_open(at_full_speed: str) -> None:
    end = at_full_speed[-600:]
    assert "headrace demo --serve" in end
    assert "headrace run headrace.demo.app:app --data" in end
    assert "http://127.0.0.1:8900/docs" in end


def test_what_is_no_terminal_gets_no_control_characters(at_full_speed: str) -> None:
    assert {c for c in at_full_speed if ord(c) < 32} == {"\n"}


def test_a_data_directory_is_gone_on_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def last_answer(weeks: float) -> str:
        options = {"week": "2013-02-08T16:00", "weeks": weeks, "speed": None, "data": str(tmp_path)}
        assert run_demo(**options) == 0
        out = capsys.readouterr().out
        return out[out.index("call    route") : out.index("took", out.index("call    route"))]

    last_answer(DAY / 2)
    continued = last_answer(DAY)
    assert run_demo(week="2013-02-08T16:00", weeks=DAY, speed=None) == 0
    whole = capsys.readouterr().out
    assert continued in whole


def test_a_missing_data_package_gives_one_message_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run_demo() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert 'pip install "headrace[demo]"' in err


def test_a_missing_rich_gives_one_message_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert run_demo() == 1
    assert capsys.readouterr().err.count('pip install "headrace[demo]"') == 1


@pytest.mark.parametrize("week", ["2014-06-01", "2012-12-31", "soon"])
def test_a_week_without_data_is_said(week: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_demo(week=week) == 1
    assert week in capsys.readouterr().err


def test_a_taken_port_is_found_before_the_replay(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run_demo(serve=True, port=port) == 1
    out, err = capsys.readouterr()
    assert str(port) in err
    assert "New York  " not in out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(number: signal.Signals, status: int, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"TMPDIR": str(tmp_path), "PATH": ""},
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        # The header is printed when the replay, of twenty seconds, has begun.
        assert any(line.startswith("New York") for line in demo.stdout)
        demo.send_signal(number)
        demo.stdout.read()
        errors = demo.stderr.read()
    assert (demo.returncode, errors, list(tmp_path.iterdir())) == (status, "", [])


def test_serving_goes_on_until_it_is_interrupted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--speed", "max", "--weeks", "0.2", "--serve", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"TMPDIR": str(tmp_path), "PATH": ""},
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        assert any(line.startswith("Going on with the year") for line in demo.stdout)
        row = httpx.get(f"http://127.0.0.1:{port}/v1/features/origin/EWR").json()
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        errors = demo.stderr.read()
    assert row["origin"] == "EWR"
    assert row["latest_departures"]
    assert (demo.returncode, errors, list(tmp_path.iterdir())) == (0, "", [])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (4.2e-7, "0.4 µs"),
        (8.44e-5, "84 µs"),
        (0.0031, "3.1 ms"),
        (0.9996, "1.0 s"),
        (3600, "60 min"),
    ],
)
def test_a_time_is_in_the_unit_that_suits_it(seconds: float | None, text: str) -> None:
    assert short_time(seconds) == text


def test_a_sparkline_shows_whatever_is_not_nothing() -> None:
    assert sparkline([0, 1, 50, 100], 100) == " ▁▄█"


VALUES = [
    {},
    [],
    {"a": [1, 2.5, None, True], "b": {"c": "d" * 20, "e": []}},
    {"list": [{"carrier": "UA", "flight": n, "at": "2013-02-09T20:59:00Z"} for n in range(9)]},
    "words " * 60 + "\nand a line of its own",
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("width", [40, 80, 200])
def test_filled_json_is_the_same_json(value: object, width: int) -> None:
    broken = json_text(value, width, 8).plain
    assert "".join(broken.split()) == "".join(json.dumps(value).split())


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("width", [40, 80])
def test_filled_json_keeps_to_its_width(value: object, width: int) -> None:
    first, *rest = json_text(value, width, 8).plain.splitlines()
    assert max([8 + len(first), *(len(line) for line in rest)]) <= width
