"""The parent's side of an index's process: starting it, asking it, and starting it again if it dies.

An index has a process of its own because Python lets one thread run at a time: what holds the interpreter (a search of
Qdrant Edge, a batch being put into cells) would hold up the features, and a busy feature engine would hold up each of
the many short steps of a search. Across a socket a search costs the caller one wait.

The process is a child that reads its end of some socket pairs, so it ends with its parent, however that ended. Each
caller takes a pair for one question and its answer; there are few, so few questions can wait in the child. What it
acknowledged is on disk: if it dies it is started again, and what was asked and not answered is asked once more, which
is harmless, since writes are absolute.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.errors import ClosedError, ConfigError, HeadraceError, LockedError, StorageError
from headrace.stores.vectors.wire import Frame, Reader, pack

CHANNELS = 8
# An answer that has not come by then never will: a disk that hangs, or a stopped process.
PATIENCE = 120.0
# Opening reads what the index holds.
OPEN_PATIENCE = 900.0
_STOP = 20.0
_CHUNK = 1 << 20

_log = logging.getLogger(__name__)
_ERRORS: dict[str, type[HeadraceError]] = {"config": ConfigError, "storage": StorageError, "locked": LockedError}


class _DiedError(Exception):
    """The process is gone, and the answer with it."""


class Host:
    """Keeps the process of the indexes in a directory; any thread may call any method.

    Args:
        engine: "module:attr" of what keeps one index (see `child.Engine`).
        path: The directory.
    """

    def __init__(self, engine: str, path: Path) -> None:
        self._engine, self._path = engine, path
        self._lock = threading.RLock()
        self._child: _Child | None = None
        # What each open index was opened with: opened so again in a new process.
        self._open: dict[str, dict[str, Any]] = {}

    def open(self, name: str, **how: Any) -> Frame:
        """Opens an index, in a process that is started for the first one.

        Raises:
            ConfigError: It is open already, or cannot be opened like that.
            StorageError: It cannot be opened.
        """
        with self._lock:
            if name in self._open:
                raise ConfigError(f"the vector index {name!r} is open already; close it first, or use another name")
            request = {"do": "open", "name": name, **how}
            child = self._running()
            try:
                answer = child.ask(pack(request), OPEN_PATIENCE)
            except _DiedError as error:
                self._end()
                raise StorageError(f"the process of the vector index {name!r} died as it opened it ({error})") from None
            except HeadraceError:
                if not self._open:
                    self._end()
                raise
            self._open[name] = request
            return answer

    def ask(self, frame: bytes) -> Frame:
        """A question and its answer.

        Raises:
            StorageError: The process did not answer, or says that the disk did not.
        """
        for last in (False, True):
            child = self._running()
            try:
                return child.ask(frame, PATIENCE)
            except _DiedError as error:
                if last:
                    raise StorageError(
                        f"the process of the vector indexes in {self._path} died twice over one request ({error}); "
                        "its own message is on standard error"
                    ) from None
                self._replace(child, error)
        raise AssertionError

    def release(self, name: str, do: str) -> None:
        """Closes or drops an index; the process ends with the last one."""
        with self._lock:
            if self._open.pop(name, None) is None or self._child is None:
                return
            try:
                self._child.ask(pack({"do": do, "name": name}), OPEN_PATIENCE)
            except _DiedError as error:
                if do == "drop":
                    raise StorageError(f"the process of the vector index {name!r} died as it was dropped") from error
            finally:
                if not self._open:
                    self._end()

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        child = self._child
        return child.process.pid if child is not None else None

    def _running(self) -> _Child:
        """The process, with every index open that is open here.

        Raises:
            StorageError: One cannot be opened again.
        """
        if (child := self._child) is not None:
            return child
        with self._lock:
            if self._child is None:
                child = self._child = _Child(self._engine, self._path)
                for name, request in self._open.items():
                    try:
                        child.ask(pack(request), OPEN_PATIENCE)
                    except (_DiedError, HeadraceError) as failed:
                        self._end()
                        raise StorageError(f"the vector index {name!r} cannot be opened again: {failed}") from None
            return self._child

    def _replace(self, dead: _Child, error: _DiedError) -> None:
        with self._lock:
            if not self._open:
                raise ClosedError("the vector index has been closed; open it again")
            if self._child is dead:
                self._end()
                _log.warning(
                    "the process of the vector indexes in %s died (%s); it is started again", self._path, error
                )

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


class _Child:
    """One process, and the pairs of sockets that it is asked through."""

    def __init__(self, engine: str, path: Path) -> None:
        pairs = [socket.socketpair() for _ in range(CHANNELS)]
        theirs = [pair[1].fileno() for pair in pairs]
        self._channels: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        self._ours = [pair[0] for pair in pairs]
        for each in self._ours:
            self._channels.put(each)
        # One thread a product: its matrices are small, and the other core is the features'.
        threads = dict.fromkeys(
            ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
        )
        command = [sys.executable, "-m", "headrace.stores.vectors.child", engine, str(path), *map(str, theirs)]
        try:
            self.process = subprocess.Popen(
                command, pass_fds=theirs, stdin=subprocess.DEVNULL, env={**os.environ, **threads}
            )
        except OSError as error:
            self._hang_up()
            raise StorageError(f"the process of the vector indexes cannot be started: {error}") from error
        finally:
            for _, their in pairs:
                their.close()

    def ask(self, frame: bytes, patience: float) -> Frame:
        try:
            channel = self._channels.get(timeout=patience)
        except queue.Empty:
            raise StorageError(f"the process of the vector indexes has been busy for {patience:g} s") from None
        try:
            channel.settimeout(patience)
            channel.sendall(frame)
            answer = _received(channel)
        except TimeoutError:
            # What comes later on this channel would be taken for the answer to something else.
            self.process.kill()
            raise _DiedError(f"no answer in {patience:g} s") from None
        except OSError as error:
            raise _DiedError(str(error)) from None
        finally:
            self._channels.put(channel)
        problem = answer.header.get("error")
        if problem is not None:
            raise _ERRORS[problem](answer.header["message"])
        return answer

    def close(self) -> None:
        """Hangs up, which ends it; and ends it if it does not."""
        self._hang_up()
        try:
            self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _hang_up(self) -> None:
        for each in self._ours:
            # This also wakes a thread that waits for an answer; the other side may have gone already.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _received(channel: socket.socket) -> Frame:
    reader = Reader()
    while True:
        data = channel.recv(min(max(reader.wanted(), 4096), _CHUNK))
        if not data:
            raise _DiedError("it hung up")
        frame = reader.feed(data)
        if frame is not None:
            return frame


def columns_json(columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns as they travel."""
    return {name: [column.type, column.many] for name, column in columns.items()}
