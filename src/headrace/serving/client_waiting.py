"""What waiting is, for threads and for an event loop: the few things that the two clients do not have in common.

`client_async` is written with the names that begin with Async, and `client_sync` made of it uses the others.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

T = TypeVar("T")

AsyncLock = asyncio.Lock
Lock = threading.Lock
# As long as a thread may take to notice that its stream has ended; one that is still connecting is not waited for.
_ENDING = 1.0


class AsyncPull(Generic[T]):
    """Has a value fetched beside whoever waits for it, so that the waiting can end and the fetching go on.

    Args:
        fetch: Gets the next value; called again when that has been handed out.
    """

    def __init__(self, fetch: Callable[[], Awaitable[T | None]]) -> None:
        self._fetch = fetch
        self._task: asyncio.Future[T | None] | None = None
        self._closed = False

    async def next(self, timeout: float | None) -> T | None:
        """The next value; None if it did not come within `timeout` seconds, or this is closed."""
        if self._closed:
            return None
        if self._task is None:
            self._task = asyncio.ensure_future(self._fetch())
        task = self._task
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done or task.cancelled():
            return None
        self._task = None
        return task.result()

    async def pause(self, seconds: float) -> None:
        """Wait; `close` ends it."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Ends the fetching; again does nothing."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # it came too late to be raised to anybody


class Pull(Generic[T]):
    """As `AsyncPull`, on a thread, which is started by the first `next`."""

    def __init__(self, fetch: Callable[[], T | None]) -> None:
        self._fetch = fetch
        self._asked: queue.SimpleQueue[Future[T | None] | None] = queue.SimpleQueue()
        self._future: Future[T | None] | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def next(self, timeout: float | None) -> T | None:
        """The next value; None if it did not come within `timeout` seconds, or this is closed."""
        with self._lock:
            if self._closed.is_set():
                return None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headrace-client-changes", daemon=True)
                self._thread.start()
            if self._future is None:
                self._future = Future()
                self._asked.put(self._future)
            future = self._future
        if not wait({future}, timeout).done:
            return None
        self._future = None
        return future.result()

    def pause(self, seconds: float) -> None:
        """Wait; `close` ends it."""
        self._closed.wait(seconds)

    def _run(self) -> None:
        while (future := self._asked.get()) is not None:
            try:
                future.set_result(self._fetch())
            except BaseException as error:  # noqa: BLE001 - it is raised where the value is waited for
                future.set_exception(error)

    def close(self) -> None:
        """Ends the fetching, which must have been told; again does nothing."""
        with self._lock:
            self._closed.set()
            self._asked.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_ENDING)
