"""What a data directory holds for the Bytewax runner beside Bytewax's own recovery partitions.

    recovery/part-0.sqlite3 …    Bytewax's: positions of lanes and state of shards, at the end of every epoch
    lineage.json                 how many lanes and shards they are of, and which line of state each view is at

The numbers are fixed when the directory is made: a key's shard and a partition's lane must never change. A view whose
declaration changes begins a new line of state under new keys: what was saved of the old one is not gone on with.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bytewax.recovery import init_db_dir

from headrace.errors import ConfigError, StorageError
from headrace.runners.bytewax_recovery import forget_unfinished
from headrace.stores import disk
from headrace.stores.datadir import Layout

if TYPE_CHECKING:
    from headrace.app import App

FORMAT = 1
# Of each stream: how many workers can read it at once. Every lane is a reader of its own.
LANES = 8
# How finely state can be divided among workers.
SHARDS = 64
# Workers that write checkpoints at once; each is a database.
PARTITIONS = 4


@dataclass(frozen=True)
class Lineage:
    """The numbers that stored state depends on, and the line of each view."""

    lanes: int
    shards: int
    lines: dict[str, str]

    @classmethod
    def fresh(cls, app: App) -> Lineage:
        """Of state that is kept nowhere."""
        return cls(LANES, SHARDS, {name: _line() for name in app.views})

    def key(self, view: str, shard: int) -> str:
        """Under which key Bytewax keeps a view's shard."""
        return f"{view}:{self.lines[view]}/{shard}"


def recovery_folder(data: Path) -> Path:
    """Where Bytewax keeps its recovery partitions."""
    return Layout(data).recovery


def prepare(app: App, data: Path) -> Lineage:
    """Makes the recovery partitions if there are none, and says how to go on; for several processes at once.

    Raises:
        ConfigError: The directory was filled by the local runner.
        StorageError: It cannot be read or written.
    """
    folder, file = recovery_folder(data), data / "lineage.json"
    with _locked(data):
        if not folder.is_dir():
            if any((data / "journal").glob("[0-9]*")):
                raise ConfigError(
                    f"{data} holds checkpoints of the runner 'local', which 'bytewax' cannot go on from: name another "
                    "directory with --data, or run it with runner='local'"
                )
            file.unlink(missing_ok=True)
            _make(folder)
        forget_unfinished(folder)
        stored = _read(file)
        views = {name: view.fingerprint() for name, view in app.views.items()}
        held = stored.get("views", {})
        kept = {name: held[name] for name, print_ in views.items() if held.get(name, {}).get("fingerprint") == print_}
        lines = {name: kept[name]["line"] if name in kept else _line() for name in views}
        lineage = Lineage(stored.get("lanes", LANES), stored.get("shards", SHARDS), lines)
        content = {
            "format": FORMAT,
            "lanes": lineage.lanes,
            "shards": lineage.shards,
            "views": {name: {"line": lines[name], "fingerprint": print_} for name, print_ in views.items()},
        }
        if content != stored:
            _write(file, content)
        return lineage


def _line() -> str:
    return uuid.uuid4().hex[:16]


def _make(folder: Path) -> None:
    """The partitions, all or none."""
    unfinished = folder.with_suffix(".tmp")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        init_db_dir(unfinished, PARTITIONS)  # type: ignore[no-untyped-call]
        unfinished.replace(folder)
    except OSError as error:
        raise disk.storage_error(error, f"cannot make {folder}") from error


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise StorageError(
            f"cannot read {file}: {error}; restore it from a backup, or begin a new directory"
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise StorageError(
            f"expected {file} in format {FORMAT}, found {str(found)[:60]}: it was written by another version of "
            "headrace; run that version, or name another directory with --data"
        )
    return found


def _write(file: Path, content: dict[str, Any]) -> None:
    def fill(target: BinaryIO) -> None:
        target.write(json.dumps(content, indent=1).encode() + b"\n")

    disk.write_whole(file, fill)


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """One process at a time; the kernel lets go when it dies."""
    descriptor = os.open(data / "lineage.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
