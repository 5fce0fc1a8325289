"""A server that speaks MongoDB's protocol, change streams included: SecantusDB, a wheel.

A process of its own on a free port of 127.0.0.1, with its files in a directory of the test's, which outlive a kill. It
is a beta. What was found to be wrong, or different from MongoDB:

- a rename onto the collection is told as a drop and an invalidate, without the rename;
- a token is refused as too old only once the log was cut, which is looked at every 1,000 writes;
- a token that it never gave is refused with code 9 (FailedToParse) where MongoDB has codes of its own for that;
- what was acknowledged just before a kill may be lost, collections included, unless it runs with `--sync-on-commit`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from services.kafka import free_ports

PATIENCE = 30.0


class Mongo:
    """The server, and what a test asks of it.

    Args:
        folder: Where its files go.
        options: More of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._client: MongoClient[dict[str, Any]] | None = None

    def start(self) -> Mongo:
        """Starts it, and returns once it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [str(Path(sys.executable).parent / "secantusd-py"), "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--storage-path", str(self.folder / "data"), *self._options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            said = (self.folder / "log").read_text()[-2000:]
            assert self._process.poll() is None, f"the server ended: {said}"
            assert time.monotonic() < deadline, f"the server did not answer within {PATIENCE} s: {said}"
            time.sleep(0.02)
        return self

    def answers(self) -> bool:
        with contextlib.suppress(PyMongoError):
            return bool(self.client.admin.command("ping"))
        return False

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in order."""
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

    def close(self) -> None:
        """Ends it, whatever it does."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def __enter__(self) -> Mongo:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, collection: str, **options: Any) -> str:
        """The URL of a collection of the database "news"; idle requests are short, so that tests are."""
        query = "".join(f"&{name}={value}" for name, value in ({"wait": "20ms"} | options).items())
        return f"mongodb://{self.address}/news?collection={collection}{query}"

    @property
    def client(self) -> MongoClient[dict[str, Any]]:
        """A client of the test's own."""
        if self._client is None:
            self._client = MongoClient(f"mongodb://{self.address}/?serverSelectionTimeoutMS=200&connectTimeoutMS=200")
        return self._client

    def collection(self, **options: Any) -> Any:
        """A new collection of the database "news"."""
        return self.client["news"].create_collection(f"c-{uuid.uuid4().hex[:12]}", **options)
