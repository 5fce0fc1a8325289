"""`headrace status`: what a person sees of a running app."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

import headrace as hr
from headrace.cli import main
from headrace.cli.status import drawn
from headrace.serving.server import BackgroundServer

START = datetime(2026, 1, 1, tzinfo=UTC)


class Payment(hr.Event):
    user_id: str
    amount: float
    at: datetime = hr.event_time()


@pytest.fixture
def app() -> hr.App:
    made = hr.App("till", clock="event")
    payments = made.stream(Payment)

    @made.features(payments, key="user_id")
    class Spending:
        """What a user has spent lately."""

        total_1h = hr.sum("amount", over="1h")

    return made


def test_a_running_app_in_a_terminal(app: hr.App, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, the delay, dead letters and what each view holds; ready is exit status 0."""
    with app.open() as live, BackgroundServer(live) as server:
        rows = [{"user_id": f"u{n}", "amount": n, "at": START + timedelta(seconds=n)} for n in range(1200)]
        live.push("payment", [*rows, {"user_id": "u1"}])
        live.drain()
        assert main(["status", server.url]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("till: ready; 0.0 s behind its input; up ")
    assert shown[2].split() == [
        "stream",
        "events",
        "rejected",
        "late",
        "letters",
        "lag",
        "delay",
        "fresh",
        "p50",
        "p99",
        "batch",
        "p50",
        "source",
    ]
    assert shown[3].split() == ["payment", "1,200", "1", "0", "1", "–", "0", "ms", "–", "–", "≤", "10,000", "ok"]
    assert shown[6].split()[:3] == ["spending", "1,200", "1,200"]
    assert shown[8] == "queue: 0 events; checkpoint: none yet"


def test_the_same_as_json(app: hr.App, capsys: pytest.CaptureFixture[str]) -> None:
    with app.open() as live, BackgroundServer(live) as server:
        assert main(["status", server.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["app"] == "till"


def test_an_app_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and the address that was tried."""
    assert main(["status", "http://127.0.0.1:9"]) == 1
    assert "found none" in capsys.readouterr().err


def test_what_is_wrong_is_said_first(app: hr.App) -> None:
    """Not ready and lagging are in the first line; lag is shown by partition."""
    with app.open() as live:
        status = live.status()
    stream = {
        **json.loads(json.dumps(status["streams"]["payment"])),
        "lag": {"0": 1500, "1": 0},
        "problem": "no broker answers",
        "freshness": {"bounds": [0.01, 1.0], "counts": [98, 1, 1], "sum": 3.0},
        "batch_rows": {"bounds": [1.0], "counts": [0, 0], "sum": 0.0},
    }
    figures = {**status, "ready": False, "problem": "Redis is away", "behind": 42.0, "lagging": True}
    lines = drawn({**figures, "streams": {"payment": stream}}).splitlines()
    assert lines[0].startswith("till: NOT READY: Redis is away; 42.0 s behind its input, LAGGING; up ")
    assert lines[3].split()[5:] == ["1,500", "–", "≤", "10", "ms", "≤", "1", "s", "–", "no", "broker", "answers"]
    assert [line.split() for line in lines[6:8]] == [["payment", "0", "1,500"], ["payment", "1", "0"]]
