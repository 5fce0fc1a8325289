"""The client of the `chat` benchmark: streams begun on schedule, however many are still open.

Python on raw connections, kept alive, one stream at a time on each; one that is due while all are taken opens another.
What came is only looked at for its first token and its end; it is read when the round is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.bench.harness import BenchError
from headrace.bench.openloop import precise_timer

TIMEOUT = 60.0
_TOKEN = b'"content":"'
_END = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Streams:
    """Of each stream, in the order of the schedule: milliseconds from when it was due, and its text."""

    first: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    texts: list[str]


class _Connection(asyncio.Protocol):
    """A kept-alive connection, with the stream that is on it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.first = 0
        self.done: asyncio.Future[int] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def ask(self, request: bytes) -> int:
        """Send it and wait for the end of its answer; when that was."""
        assert self.transport is not None
        self.data, self.first = bytearray(), 0
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.done

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter_ns()
        self.data += data
        if not self.first and _TOKEN in self.data:
            self.first = now
        if self.done is None or self.done.done():
            return
        if len(self.data) > 12 and not self.data.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(BenchError(f"expected an answer, found {bytes(self.data[:400])!r}"))
        elif self.data.endswith(_END):
            self.done.set_result(now)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(BenchError(f"expected a whole answer, found the connection closed ({exc})"))


def load(port: int, requests: Sequence[bytes], rate: float, connections: int) -> Streams:
    """Begin the requests at `rate` a second and read them to their ends.

    Args:
        port: On the loopback.
        requests: Whole HTTP requests.
        rate: Streams begun in a second.
        connections: How many are opened beforehand.

    Raises:
        BenchError: One was not answered with 200, not to its end, or not within a minute.
    """
    precise_timer()
    return asyncio.run(_load(port, requests, rate, connections))


async def _load(port: int, requests: Sequence[bytes], rate: float, connections: int) -> Streams:
    loop = asyncio.get_running_loop()
    idle = [(await loop.create_connection(_Connection, "127.0.0.1", port))[1] for _ in range(connections)]
    every = list(idle)
    count = len(requests)
    first, end, raw = np.zeros(count), np.zeros(count), [b""] * count
    begin, begun = time.perf_counter_ns() + 20_000_000, loop.time() + 0.02

    async def one(i: int) -> None:
        if idle:
            connection = idle.pop()
        else:
            connection = (await loop.create_connection(_Connection, "127.0.0.1", port))[1]
            every.append(connection)
        finished = await connection.ask(requests[i])
        due = begin + i * 1e9 / rate
        first[i], end[i], raw[i] = (connection.first - due) / 1e6, (finished - due) / 1e6, bytes(connection.data)
        idle.append(connection)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for i in range(count):
                await asyncio.sleep(begun + i / rate - loop.time())
                group.create_task(one(i))

    try:
        async with asyncio.timeout(count / rate + TIMEOUT):
            await all_of_them()
    except TimeoutError:
        raise BenchError(f"expected all of {count:,} answers within {TIMEOUT:g} s, found some missing") from None
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        for connection in every:
            if connection.transport is not None:
                connection.transport.close()
    return Streams(first, end, [text(one) for one in raw])


def text(answer: bytes) -> str:
    """What a stream says, put together.

    Raises:
        BenchError: It does not end as it should.
    """
    events = [line[6:] for line in answer.split(b"\n") if line.startswith(b"data: ")]
    if not events or events[-1] != b"[DONE]":
        raise BenchError(f"expected a stream that ends with [DONE], found {answer[-200:]!r}")
    chunks = [msgspec.json.decode(event) for event in events[:-1]]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
