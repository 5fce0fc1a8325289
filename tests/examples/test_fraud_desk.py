"""examples/fraud_desk: the payments it makes up, its app, and its question to a model."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from desk import FOLDER, module
from model_server import ModelServer, calls, says, serving

import headrace as hr
from headrace.cli import parser as headrace_parser
from headrace.serving.server import BackgroundServer
from services.kafka import Tansu

payments, ask = module("payments"), module("ask")
QUESTION = "Is u17's card being misused right now?"


def made(count: int, seed: int = 1) -> list[dict[str, Any]]:
    return list(itertools.islice(payments.Town(1_000, seed), count))


class Kept:
    """A sink that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []

    def send(self, key: str, message: bytes) -> None:
        self.messages.append((key, message))

    def close(self) -> int:
        return 0


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[hr.Live]:
    """The app, fed by push, with a stolen card: u17's."""
    monkeypatch.setenv("HEADRACE_PAYMENTS", "")
    now = datetime.now(UTC)
    tests = [{"amount": 1.0, "merchant": f"shop {n}", "country": "PT", "declined": True} for n in range(9)]
    used = [{"amount": 2000.0, "merchant": "Harbour Bikes", "country": "PT"}]
    home = [{"amount": 25.0, "merchant": "Corner Café", "country": "IE"}]
    with module("app").app.open() as live:
        rows = [row | {"user_id": "u17", "at": now - timedelta(seconds=1)} for row in tests + used + home]
        assert live.push("payment", rows).rejected == []
        live.drain()
        yield live


@pytest.fixture
def url(desk: hr.Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the app is served; no model is configured."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "HEADRACE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with BackgroundServer(desk) as server:
        yield server.url


@pytest.fixture
def asked(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ask.py against a model."""

    def run(server: ModelServer, *more: str) -> tuple[int, str, str]:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        status = ask.main([QUESTION, "--url", url, "--model", "scripted", *more])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def reader_of_tools(request: Mapping[str, Any]) -> dict[str, Any]:
    """A model that looks u17 up, and then says what it has read."""
    last = request["messages"][-1]
    if last["role"] != "tool":
        return calls("spending", '{"user_id": "u17"}')
    found = json.loads(last["content"])
    return says(f"Yes: {found['declined_10m']} payments were declined within ten minutes.")


# -- payments.py -------------------------------------------------------------------------------------------------------


def test_a_seed_is_a_town() -> None:
    assert made(3_000) == made(3_000)
    assert made(300) != made(300, seed=2)


def test_the_app_takes_every_payment(desk: hr.Live) -> None:
    rows = [json.loads(payments.stamped(payment, datetime.now(UTC).timestamp())) for payment in made(2_000)]
    assert desk.push("payment", rows).rejected == []


def test_most_payments_are_ordinary() -> None:
    town = made(20_000)
    assert sum(payment["declined"] for payment in town) < 0.05 * len(town)
    assert sum(payment["amount"] > 1_000 for payment in town) < 0.01 * len(town)
    assert len({payment["user_id"] for payment in town}) > 900


def test_stolen_cards_are_tested_and_then_used() -> None:
    of_user = defaultdict(list)
    for payment in made(20_000):
        of_user[payment["user_id"]].append(payment)
    stolen = [
        user
        for user, paid in of_user.items()
        if sum(p["amount"] > 1_000 for p in paid) >= 2 and sum(p["amount"] <= 2 for p in paid) >= 8
    ]
    assert stolen
    assert all(len({payment["country"] for payment in of_user[user]}) > 1 for user in stolen)


def test_a_shop_is_misused_to_test_many_cards() -> None:
    declined = Counter(payment["merchant"] for payment in made(20_000) if payment["declined"])
    (_, most), (_, median) = declined.most_common(1)[0], declined.most_common()[len(declined) // 2]
    assert most > 5 * median


def test_stamps_are_out_of_order_within_the_lateness_of_the_app(desk: hr.Live) -> None:
    kept = Kept()
    assert payments.send(kept, payments.Town(1_000, 1), 1e6, 3_000, 1, threading.Event()) == 3_000
    times = [datetime.fromisoformat(json.loads(message)["at"]) for _, message in kept.messages]
    behind = [newest - at for newest, at in zip(itertools.accumulate(times, max), times, strict=True)]
    assert timedelta(seconds=4) < max(behind) < timedelta(microseconds=desk.app.streams["payment"].lateness)


def test_a_users_payments_are_sent_under_their_name() -> None:
    kept = Kept()
    payments.send(kept, payments.Town(100, 1), 1e6, 100, 1, threading.Event())
    assert all(key == json.loads(message)["user_id"] for key, message in kept.messages)


def test_it_stops_in_the_middle_of_a_pause() -> None:
    stop = threading.Event()
    stop.set()
    assert payments.send(Kept(), payments.Town(10, 1), 0.001, None, 1, stop) == 0


def test_it_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "payments.ndjson"
    assert payments.main(["--file", str(file), "--rate", "5000", "--seconds", "0.04"]) == 0
    assert len(file.read_bytes().splitlines()) == 200
    assert capsys.readouterr().out == f"200 payments written to {file}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_all_written(tmp_path: Path, number: signal.Signals) -> None:
    fifo = tmp_path / "payments"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    command = [sys.executable, str(FOLDER / "payments.py"), "--file", str(fifo), "--rate", "500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, fifo.open("rb") as read:
        first = read.readline()
        process.send_signal(number)
        lines = [first, *read]
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, f"{len(lines)} payments written to {fifo}\n")
    assert all(json.loads(line)["user_id"] for line in lines)


def test_without_a_broker_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "_ANSWER_SECONDS", 0.2)
    with pytest.raises(SystemExit, match=r"expected a broker at 127\.0\.0\.1:1, found none .* --file"):
        payments.main(["--brokers", "127.0.0.1:1", "--seconds", "1"])


# -- app.py ------------------------------------------------------------------------------------------------------------


def test_a_stolen_card_shows(desk: hr.Live) -> None:
    row = desk.read("spending", "u17")
    assert (row.declined_10m, row.shops_10m, row.large_1h, row.countries_1h) == (9, 11, 1, 2)
    assert (row.total_10m, row.most_1d, len(row.recent)) == (2025.0, 2000.0, 5)
    assert desk.read("shop", "Harbour Bikes").declined_share_10m == 0
    assert desk.read("shop", "shop 0").declined_share_10m == 1


def test_where_payments_come_from_is_said_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "payments.ndjson"
    assert payments.main(["--file", str(file), "--rate", "5000", "--seconds", "0.02"]) == 0
    monkeypatch.setenv("HEADRACE_PAYMENTS", f"file://{file}")
    with module("app").app.open() as live:
        live.drain()
        assert live.stats().streams["payment"].processed == 100


def test_a_topic_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with contextlib.closing(Tansu(tmp_path)) as broker:
        broker.start()
        topic = broker.create(partitions=3)
        options = ["--brokers", broker.bootstrap, "--topic", topic, "--rate", "5000", "--seconds", "0.1"]
        assert payments.main([*options, "--users", "20"]) == 0
        sent = Counter(json.loads(value)["user_id"] for *_, value in broker.rows(topic, 500) if value)
        monkeypatch.setenv("HEADRACE_PAYMENTS", broker.url(topic))
        with module("app").app.open() as live:
            live.drain(60)
            counted = live.read_many("spending", list(sent)).select("user_id", "count_10m").rows()
    assert Counter(dict(counted)) == sent


# -- ask.py ------------------------------------------------------------------------------------------------------------


def test_a_model_answers_with_what_the_tool_says(asked: Any, desk: hr.Live) -> None:
    with serving(reader_of_tools) as server:
        status, out, err = asked(server)
    assert (status, out) == (0, "Yes: 9 payments were declined within ten minutes.\n")
    assert 'spending({"user_id": "u17"}) -> ' in err
    first, second = server.requests
    assert first["tools"] == desk.tools()
    assert first["messages"][-1] == {"role": "user", "content": QUESTION}
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "tool"]
    assert second["messages"][-1]["tool_call_id"] == second["messages"][-2]["tool_calls"][0]["id"]


def test_several_calls_at_once_are_all_answered(asked: Any) -> None:
    def model(request: Mapping[str, Any]) -> dict[str, Any]:
        said = [message for message in request["messages"] if message["role"] == "tool"]
        if not said:
            return calls("spending", '{"user_id": "u17"}', '{"user_id": "u18"}')
        return says(" ".join(str(json.loads(message["content"])["declined_10m"]) for message in said))

    with serving(model) as server:
        assert asked(server)[:2] == (0, "9 0\n")


def test_a_wrong_call_is_told_to_the_model_which_mends_it(asked: Any) -> None:
    def model(request: Mapping[str, Any]) -> dict[str, Any]:
        last = request["messages"][-1]
        if last["role"] == "user":
            return calls("spending", '{"user": "u17"}')
        if "error" in json.loads(last["content"]):
            return reader_of_tools({"messages": [{"role": "user"}]})
        return reader_of_tools(request)

    with serving(model) as server:
        status, out, _ = asked(server)
    assert (status, out.startswith("Yes: 9 payments")) == (0, True)
    assert "user_id" in json.loads(server.requests[1]["messages"][-1]["content"])["error"]


def test_a_model_that_only_calls_is_stopped(asked: Any) -> None:
    with serving(lambda request: calls("spending", '{"user_id": "u17"}')) as server:
        status, out, err = asked(server)
    assert (status, out, len(server.requests)) == (1, "", ask.ROUNDS)
    assert "expected an answer within 5 rounds" in err


def test_a_wrong_key_is_said(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-guess")
    with serving(reader_of_tools, key="another") as server:
        status, out, err = asked(server)
    assert (status, out, server.requests) == (1, "", [])
    assert "the model could not be asked" in err


def test_without_a_model_the_tool_speaks_and_it_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main([QUESTION, "--url", url]) == 0
    out = capsys.readouterr().out
    assert out.startswith("No model is configured: nobody has read the question")
    shown = json.loads(out[out.index("{") : out.rindex("}") + 1])
    assert (shown["user_id"], shown["declined_10m"]) == ("u17", 9)


def test_without_a_model_and_a_user_the_tools_are_named(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["What is going on?", "--url", url]) == 0
    assert "spending, shop" in capsys.readouterr().out


def test_without_a_server_it_says_so(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main([QUESTION, "--url", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9" in capsys.readouterr().err


# -- README.md ---------------------------------------------------------------------------------------------------------


def commands() -> list[list[str]]:
    """Each command of the README's blocks, as words, without the variables before it and the `&` after it."""
    text = (FOLDER / "README.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [
        [word for word in line if word != "&" and not re.match(r"[A-Z_]+=", word)]
        for line in words
        if line != ["export"]
    ]


@pytest.mark.parametrize("line", commands(), ids=" ".join)
def test_the_readmes_commands_are_ones(line: list[str]) -> None:
    parsers = {"payments.py": payments.parser, "ask.py": ask.parser}
    if line[0] == "python":
        parsers[Path(line[1]).name]().parse_args(line[2:])
    elif line[0] == "headrace":
        assert headrace_parser().parse_args(line[1:]).app == "app:app"
    else:
        assert line[0] in ("export", "curl", "docker")
