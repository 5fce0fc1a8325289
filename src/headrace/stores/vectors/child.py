"""The process that keeps the indexes of a directory: `python -m headrace.stores.vectors.child ENGINE PATH FD…`.

One thread does everything, so nothing needs a lock and nothing waits for one. It reads questions from its sockets,
answers searches at once, and does writes in slices of a few milliseconds between which searches are answered: the
longest that a search waits is one slice. (Another thread waits for the disk, and does nothing else.) What an engine
does in the background goes in slices too, when nothing is written.

It ends when its parent has hung up: a parent that is killed hangs up as well.
"""

from __future__ import annotations

import fcntl
import importlib
import itertools
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from headrace.document import Column
from headrace.errors import ConfigError, LockedError, StorageError
from headrace.filters import Filter, parse
from headrace.stores.disk import make_directory, storage_error
from headrace.stores.vectors.base import Terms, Vector
from headrace.stores.vectors.wire import (
    Frame,
    Ranked,
    Reader,
    pack,
    pack_found,
    unpack_search,
)

_PAGE = 50_000
_CHUNK = 1 << 20
_RETRY = 60.0
# How often to look whether the disk has done.
_DISK = 0.0002
# How long a process that was killed may take to let go of its lock.
_LOCK_PATIENCE = 10.0


class Engine(Protocol):
    """Keeps one index; made by `target(path, dimension, columns)`. It is asked by one thread."""

    def write(self, frame: Frame) -> Iterator[bool]:
        """Writes a frame of `pack_write`, in slices of a few milliseconds; durable when it ends.

        Yields:
            Whether there is nothing to do for the moment, but to wait for the disk.
        """
        ...

    def search(self, k: int, vector: Vector | None, terms: Terms | None, where: Filter | None) -> tuple[Ranked, Ranked]:
        """The best by meaning, and the best by words."""
        ...

    def ids(self) -> Iterator[bytes]:
        """The ids of all points."""
        ...

    def background(self) -> float | None:
        """Does a slice of what can wait; seconds until there is more of it, or None if only a write brings more."""
        ...

    def close(self) -> None:
        """Lets go of its files."""
        ...


class _Channel:
    """One socket: what has arrived of a question, and what has not yet been sent of an answer."""

    def __init__(self, descriptor: int) -> None:
        self.socket = socket.socket(fileno=descriptor)
        self.socket.setblocking(False)
        self.reader = Reader()
        self.left = memoryview(b"")

    def receive(self) -> Frame | None:
        """A question that is whole.

        Raises:
            EOFError: The parent has hung up.
        """
        try:
            data = self.socket.recv(min(max(self.reader.wanted(), 4096), _CHUNK))
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return self.reader.feed(data)

    def send(self, frame: bytes = b"") -> bool:
        """Sends what can be sent now; whether that was all."""
        if frame:
            self.left = memoryview(frame)
        try:
            while self.left:
                self.left = self.left[self.socket.send(self.left) :]
        except BlockingIOError:
            return False
        except OSError:  # hung up: the next read says so
            self.left = memoryview(b"")
        return True


class Server:
    """The loop."""

    def __init__(self, engine: Any, path: Path, descriptors: list[int]) -> None:
        self._engine, self._path = engine, path
        self._engines: dict[str, Engine] = {}
        self._columns: dict[str, dict[str, Column]] = {}
        self._writes: deque[tuple[_Channel, Iterator[bool]]] = deque()
        self._pages: dict[str, Iterator[bytes]] = {}
        self._selector = selectors.DefaultSelector()
        self._channels = [_Channel(one) for one in descriptors]
        self._due = 0.0
        self._waiting = False
        for channel in self._channels:
            self._selector.register(channel.socket, selectors.EVENT_READ, channel)

    def run(self) -> None:
        while self._selector.get_map():
            for key, events in self._selector.select(self._pause()):
                self._serve(key.data, events)
            if self._writes:
                self._continue_write()
            elif time.monotonic() >= self._due:
                pauses = [pause for each in self._engines.values() if (pause := _background(each)) is not None]
                self._due = time.monotonic() + min(pauses, default=float("inf"))
        for engine in self._engines.values():
            engine.close()

    def _pause(self) -> float | None:
        if self._writes:
            return _DISK if self._waiting else 0.0
        return None if self._due == float("inf") else max(self._due - time.monotonic(), 0.0)

    def _serve(self, channel: _Channel, events: int) -> None:
        if events & selectors.EVENT_WRITE and channel.send():
            self._selector.modify(channel.socket, selectors.EVENT_READ, channel)
        if not events & selectors.EVENT_READ:
            return
        try:
            frame = channel.receive()
        except EOFError:
            self._selector.unregister(channel.socket)
            channel.socket.close()
            return
        if frame is None:
            return
        try:
            answer = getattr(self, f"_do_{frame.header['do']}")(channel, frame)
        except (ConfigError, StorageError) as error:
            answer = _problem(error)
        if answer is not None:
            self._answer(channel, answer)

    def _answer(self, channel: _Channel, frame: bytes) -> None:
        if not channel.send(frame):
            self._selector.modify(channel.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, channel)

    def _continue_write(self) -> None:
        channel, work = self._writes[0]
        try:
            self._waiting = next(work)
            return
        except StopIteration:
            answer = pack({})
        except (ConfigError, StorageError) as error:
            answer = _problem(error)
        self._writes.popleft()
        self._waiting, self._due = False, 0.0
        self._answer(channel, answer)

    def _of(self, name: str) -> Engine:
        """An index that is open.

        Raises:
            StorageError: It has been closed by another thread meanwhile.
        """
        engine = self._engines.get(name)
        if engine is None:
            raise StorageError(f"the vector index {name!r} has been closed; open it again")
        return engine

    def _do_open(self, _: _Channel, frame: Frame) -> bytes:
        header = frame.header
        name, dimension = header["name"], header["dimension"]
        columns = {column: Column(kind, many) for column, (kind, many) in header["columns"].items()}
        self._engines[name] = self._engine(self._path / name, dimension, columns)
        self._columns[name] = columns
        self._due = 0.0
        return pack({})

    def _do_write(self, channel: _Channel, frame: Frame) -> None:
        name = frame.header["name"]
        self._writes.append((channel, self._of(name).write(frame)))

    def _do_search(self, _: _Channel, frame: Frame) -> bytes:
        name, where = frame.header["name"], frame.header["where"]
        vector, terms = unpack_search(frame)
        engine = self._of(name)
        tree = None if where is None else parse(where, self._columns[name])
        return pack_found(*engine.search(frame.header["k"], vector, terms, tree))

    def _do_ids(self, _: _Channel, frame: Frame) -> bytes:
        """A page of ids, as they were when the first one was asked for."""
        name = frame.header["name"]
        if frame.header["first"]:
            self._pages[name] = iter(list(self._of(name).ids()))
        page = list(itertools.islice(self._pages.get(name, iter(())), _PAGE))
        return pack({"last": len(page) < _PAGE}, *page)

    def _do_close(self, _: _Channel, frame: Frame) -> bytes:
        self._finish_writes()
        name = frame.header["name"]
        self._of(name).close()
        del self._engines[name], self._columns[name]
        self._pages.pop(name, None)
        return pack({})

    def _do_drop(self, channel: _Channel, frame: Frame) -> bytes:
        self._do_close(channel, frame)
        remove(self._path / frame.header["name"])
        return pack({})

    def _finish_writes(self) -> None:
        while self._writes:
            self._continue_write()


def _background(engine: Engine) -> float | None:
    """What can wait can fail, too, and be tried again: all that was written is there."""
    try:
        return engine.background()
    except (StorageError, OSError) as error:
        print(f"headrace: a vector index's upkeep failed and is tried again: {error}", file=sys.stderr, flush=True)  # noqa: T201 - its log
        return _RETRY


def _problem(error: ConfigError | StorageError) -> bytes:
    kind = "config" if isinstance(error, ConfigError) else "locked" if isinstance(error, LockedError) else "storage"
    return pack({"error": kind, "message": str(error)})


def remove(path: Path) -> None:
    """Takes a directory away; what an interruption leaves is not taken for an index."""
    gone = path.with_name(f"{path.name}.gone")
    try:
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise storage_error(error, f"cannot remove {path}") from error


def locked(path: Path) -> BinaryIO:
    """The directory's lock, held until the file is closed.

    Raises:
        LockedError: Another process has it.
    """
    make_directory(path)
    try:
        file = (path / "lock").open("wb")
    except OSError as error:
        raise storage_error(error, f"cannot use {path}") from error
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise LockedError(
                    f"another process has the vector indexes in {path} open; stop it, or use another directory"
                ) from None
            time.sleep(0.02)


def _refuse(channels: list[int], error: StorageError) -> None:
    """Answers the first question with why there is no index."""
    for one in channels:
        socket.socket(fileno=one).sendall(_problem(error))


def main(engine: str, path: str, *descriptors: str) -> None:
    """The process."""
    # Ctrl-C goes to the whole group; the parent closes what is open and hangs up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channels = [int(one) for one in descriptors]
    try:
        lock = locked(Path(path))
    except StorageError as error:
        _refuse(channels, error)
        return
    module, _, attr = engine.partition(":")
    Server(getattr(importlib.import_module(module), attr), Path(path), channels).run()
    lock.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Everything is on disk; taking a million objects apart would only take time.
    os._exit(0)
