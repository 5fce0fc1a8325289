"""The ways to an app that is served: what conftest opens as `live`, over HTTP, for threads and for event loops.

An `AsyncRemote` stands behind the methods of `Live`, so that one test holds for all three.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import headrace as hr
from headrace.serving.server import BackgroundServer


class Awaited:
    """Each call runs on an event loop of a thread of its own, and is waited for."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._remote = hr.connect_async(url, **options)

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._remote, name)
        if not inspect.iscoroutinefunction(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = self.run(found(*args, **kwargs))
            return Iterated(self, answer) if hasattr(answer, "__aiter__") else answer

        return call

    def close(self) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """As `asyncio.run` ends: what was begun ends before the loop does."""
        await self._remote.close()
        if rest := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(rest, timeout=10)
        await self._loop.shutdown_asyncgens()


class Iterated:
    """An asynchronous iterator that can be closed, as an ordinary one."""

    def __init__(self, awaited: Awaited, of: Any) -> None:
        self._awaited, self._of = awaited, of

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        return (lambda *args, **kwargs: self._awaited.run(found(*args, **kwargs))) if callable(found) else found

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        async def one() -> Any:
            return await anext(self._of, StopAsyncIteration)

        if (found := self._awaited.run(one())) is StopAsyncIteration:
            raise StopIteration
        return found

    def __enter__(self) -> Iterated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def url(live: hr.Live) -> Iterator[str]:
    with BackgroundServer(live) as server:
        yield server.url


@pytest.fixture
def remote(url: str) -> Iterator[hr.Remote]:
    with hr.connect(url) as connected:
        yield connected


@pytest.fixture
def awaited(url: str) -> Iterator[Awaited]:
    connected = Awaited(url)
    yield connected
    connected.close()
