"""The engine by itself, as one of the processes of a Bytewax cluster; reads are answered by replicas.

All processes of a cluster run one declaration on one data directory and share an online store. They live and die
together: when one is killed, the others stop, and the cluster goes on from the last epoch when all are started again,
with as many workers as are then wanted.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import FrameType

from bytewax.dataflow import Dataflow

from headrace.app import App
from headrace.errors import ClosedError, ConfigError, LockedError
from headrace.registry import shown_url
from headrace.runners.bytewax_flow import dataflow
from headrace.runners.bytewax_lineage import prepare, recovery_folder
from headrace.runners.bytewax_site import Site
from headrace.runners.bytewax_start import execute
from headrace.runners.setaside import SetAside
from headrace.stores.datadir import DataDir, Layout
from headrace.stores.dead_letters import DeadLetters

logger = logging.getLogger("headrace")

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
# How long another process of the cluster may take to make the data directory, in seconds.
_PATIENCE = 3.0


def run_cluster(app: App, data: Path, workers: int = 1, process: int = 0, addresses: Sequence[str] = ()) -> int:
    """Runs one process of a cluster until it is told to stop, or its sources end.

    SIGTERM or Ctrl-C ends the input: what was read is finished and saved. Give it to all processes; each waits for the
    others.

    Args:
        app: What runs.
        data: The data directory, the same for all processes.
        workers: Threads of this process that share the work.
        process: Which of the addresses is this process, from 0.
        addresses: Where each process listens for the others, as "host:port"; none for one process alone.

    Returns:
        The exit status.

    Raises:
        ConfigError: The online store cannot be shared, there is nothing to read, or the numbers do not fit.
        LockedError: The directory is open in a process that is not of this cluster, or one with this number runs.
        ClosedError: Another process of the cluster has died.
    """
    _check(workers, process, addresses)
    with ExitStack() as held:
        held.enter_context(_directory(Path(data), process))
        site = held.enter_context(_site(app, Path(data)))
        held.enter_context(_stopping(site))
        try:
            recovery = recovery_folder(Path(data))
            execute(dataflow(site), app, recovery, workers=workers, process=process, addresses=addresses)
        except BaseException as error:
            if site.error is not None:
                raise site.error from error
            # A panic in Rust is no Exception; where only Bytewax runs, it means the connection to another process.
            if type(error).__name__ == "PanicException" and addresses:
                raise ClosedError(
                    f"process {process} has lost the others of its cluster, which live and die together: see which one "
                    "ended first, and start all of them again; they go on from the last checkpoint"
                ) from None
            raise
    return 0


def _check(workers: int, process: int, addresses: Sequence[str]) -> None:
    if workers < 1 or not 0 <= process < max(1, len(addresses)):
        raise ConfigError(
            f"expected at least 1 worker, and a process from 0 to {max(1, len(addresses)) - 1} for the "
            f"{len(addresses)} addresses given, found {workers} workers and process {process}"
        )
    if any(address.rpartition(":")[0] not in _LOOPBACK for address in addresses):
        logger.warning(
            "the processes of a cluster trust whoever reaches %s: what they send each other is neither encrypted nor "
            "signed. Let nobody else reach these ports",
            ", ".join(addresses),
        )


def flow(app: App, data: str | Path) -> Dataflow:
    """The app as a dataflow for `bytewax.run`, with its recovery partitions made in `data`/recovery.

    Raises:
        ConfigError: The online store cannot be shared, or there is nothing to read.
    """
    held = ExitStack()
    atexit.register(held.close)
    held.enter_context(_directory(Path(data), None))
    return dataflow(held.enter_context(_site(app, Path(data))))


def flow_of(target: str, data: str) -> Dataflow:
    """`flow` of the App that "module:name" stands for, found from the current directory too."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module, _, name = target.partition(":")
    app = getattr(importlib.import_module(module), name or "app", None)
    if not isinstance(app, App):
        raise ConfigError(f"{target}: expected an hr.App, as in 'myapp:app', found {type(app).__name__}")
    return flow(app, data)


@contextmanager
def _site(app: App, data: Path) -> Iterator[Site]:
    """What this process has of the dataflow."""
    if all(stream.url is None for stream in app.streams.values()):
        raise ConfigError(
            f"expected a stream with a source, as kafka://…: a cluster takes no pushes, and {app.name!r} declares none"
        )
    with closing(DeadLetters(Layout(data).dead_letters)) as letters:
        site = Site(app, prepare(app, data), SetAside(letters, app.clock.now, app.streams))
        with closing(site):
            if not site.store.remote:
                raise ConfigError(
                    "expected an online store that replicas can read, such as redis://host:6379/0, found "
                    f"{shown_url(app.online)!r}: the processes of a cluster answer no reads; name it with --online or "
                    "HEADRACE_ONLINE, for the replicas too"
                )
            yield site


@contextmanager
def _directory(data: Path, process: int | None) -> Iterator[None]:
    """Holds the data directory, together with the other processes of the cluster and with nobody else.

    Raises:
        LockedError: Another runner has it open, or another process has this one's number.
        StorageError: It cannot be made, written or read, is not a data directory, or is of a newer version.
    """
    with suppress(LockedError):
        # Whoever is the first makes it what it must be.
        DataDir(data).close()
    with ExitStack() as held:
        held.enter_context(_lock(data / "lock", fcntl.LOCK_SH, f"another process has {data} open alone: stop it"))
        if process is not None:
            holder = f"process {process} of a cluster on {data} runs already: stop it, or give this one another number"
            held.enter_context(_lock(data / f"process-{process}.lock", fcntl.LOCK_EX, holder))
        yield


@contextmanager
def _lock(file: Path, how: int, refused: str) -> Iterator[None]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Another process of the cluster may be making the directory just now.
                if time.monotonic() > deadline:
                    raise LockedError(refused) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _stopping(site: Site) -> Iterator[None]:
    """SIGTERM and the first Ctrl-C end the input."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        logger.info("stopping: what was read is finished and saved")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Elsewhere: the worker whose thread this may be has to go on, for the lanes to end.
        threading.Thread(target=site.end, name="headrace-stop", daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
