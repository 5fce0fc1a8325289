"""One connection to a queue: a thread with an event loop, that takes messages and confirms them.

A message is confirmed once its change is stored; then the server forgets it. Until then it is the server's, and comes
again on the next connection, in the order in which it stood: what was not confirmed is always the end of what was
delivered. That holds because a message is never given back by itself (a quorum queue would put it behind newer ones)
but always with all others, by closing the connection.

Prefetch bounds what is held without being stored, by number. Bytes are bounded here: past the limit no more is kept,
and once what is held is stored the reader connects again, for fewer.

A stream keeps its messages: there a message is confirmed when it is read, and where to go on is an offset.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from aiormq.abc import AbstractChannel, DeliveredMessage, FieldTable
from aiormq.exceptions import ChannelAccessRefused, ConnectionNotAllowed

from headrace.errors import ConfigError, HeadraceError, StorageError
from headrace.sources.handover import Handover
from headrace.sources.rabbitmq_messages import Message
from headrace.sources.rabbitmq_url import RabbitUrl

CONNECT = 10.0  # seconds
ANSWER = 5.0
COUNT = 5.0  # seconds between two questions for the number of messages
_LAST = 1.0  # seconds in which a stream that has a message tells its last ones
_OFFSET = "x-stream-offset"
_FAILURES = (AMQPError, ChannelInvalidStateError, OSError, asyncio.TimeoutError, EOFError)


def explained(error: BaseException, url: RabbitUrl) -> HeadraceError:
    """What went wrong as an error of ours, without a password; ConfigError if trying again would not help."""
    if isinstance(error, HeadraceError):
        return error
    text = url.login.hide(str(error))[:500] or type(error).__name__
    if isinstance(error, ChannelNotFoundEntity) and "home node" not in text:  # which is down, and may come back
        return ConfigError(f"{url.name} is not there; declare=true makes a queue ({text})")
    if isinstance(error, ProbableAuthenticationError | AuthenticationError | ChannelAccessRefused):
        return ConfigError(f"{url.name} refuses the login; check the user, the password and the rights ({text})")
    if isinstance(error, ConnectionNotAllowed) or (isinstance(error, InvalidFrameError) and "OpenOk" in str(error)):
        return ConfigError(f"{url.name}: the vhost is not there, or the user may not use it ({text})")
    if isinstance(error, ChannelPreconditionFailed):
        return ConfigError(f"{url.name}: the queue is of another kind than expected ({text})")
    return StorageError(f"{url.name} is out of reach: {text}")


class Link:
    """A connection that receives messages, from when it is made until it is closed or fails.

    Args:
        prefetch: How many messages may be held.
        offset: Where a stream is read on; None where the URL says.

    Attributes:
        ready: Done when messages can come, or with what went wrong.
        stream: Whether the queue is a stream, once it is ready.
        inbox: The messages that came; a stream's with the offset that was expected.
        prefetch: How many messages may be held.
        received: How many came.
        overfull: Whether messages were left to the server for want of room.
        largest: Bytes of the largest message.
        lost: The offset that a stream was to be read on from and does not have: it is read from its beginning.
    """

    def __init__(self, url: RabbitUrl, prefetch: int, offset: int | None) -> None:
        self.url, self.prefetch = url, prefetch
        self.ready: Future[None] = Future()
        self.stream = False
        self.inbox: Handover[Message] = Handover()
        self.received = self.largest = 0
        self.overfull = False
        self.lost: int | None = None
        self._resumed = offset is not None
        self._offset = url.start if offset is None and isinstance(url.start, int) else offset
        self._held: deque[tuple[int, int]] = deque()  # tags and sizes, in order
        self._held_bytes = self._confirmed = self._waiting = 0
        self._channel: AbstractChannel | None = None
        self._tag = ""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace {url.name}", daemon=True)
        self._thread.start()
        self._started.wait()

    # From the reader's threads.

    @property
    def held(self) -> int:
        """How many messages were received and not confirmed."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many messages wait in the server or here, as last heard."""
        return self._waiting + len(self._held)

    def confirm(self, tag: int) -> None:
        """The server may forget the messages up to this one."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: what was not confirmed comes again
            self._loop.call_soon_threadsafe(self._confirm, tag)

    def is_empty(self) -> bool:
        """Asks whether the server has nothing that was not received; False also if there is no answer."""
        asked = self._remaining()
        try:
            future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:
            asked.close()
            return False
        try:
            return future.result(ANSWER + _LAST)
        except (*_FAILURES, concurrent.futures.CancelledError):
            future.cancel()
            return False

    def close(self) -> None:
        """Ends it: what was confirmed is told to the server, what was not comes again."""
        self.inbox.close()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(CONNECT)

    # In the thread.

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._stop, self._leaving, self._anchored = asyncio.Event(), asyncio.Event(), asyncio.Event()
            self._started.set()
            runner.run(self._main())

    async def _main(self) -> None:
        work = asyncio.ensure_future(self._work())
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self.ready.done():
            self._leaving.set()  # not in the middle of a request: its channel could not be closed in order then
            await asyncio.wait({work}, timeout=ANSWER)
        work.cancel()
        (ended,) = await asyncio.gather(work, return_exceptions=True)
        assert ended is None or isinstance(ended, BaseException)
        closed = StorageError(f"{self.url.name}: the connection was closed")
        quiet = self._stop.is_set() or ended is None or isinstance(ended, asyncio.CancelledError)
        error = closed if quiet or ended is None else explained(ended, self.url)
        if not self.ready.done():
            self.ready.set_exception(error)
        self.inbox.fail(error if isinstance(error, StorageError) else StorageError(str(error)))
        if isinstance(ended, Exception) and not isinstance(ended, (*_FAILURES, HeadraceError)):
            raise ended

    async def _work(self) -> None:
        """Connects, receives, and returns or raises when that has ended."""
        connection = await aio_pika.connect(self.url.uri, timeout=CONNECT)
        try:
            await self._declare(connection)
            channel = await self._consume(connection)
            cancelled = self._loop.create_future()
            channel.on_consumer_cancel_callbacks.add(lambda _: None if cancelled.done() else cancelled.set_result(1))
            counting = self._spawn(self._count(channel))
            self.ready.set_result(None)
            await asyncio.wait({cancelled, channel.closing, counting}, return_when=asyncio.FIRST_COMPLETED)
            if cancelled.done():
                raise StorageError(f"{self.url.name}: the server has ended the reading; was the queue deleted?")
            if channel.closing.done():
                raise channel.closing.exception() or StorageError(f"{self.url.name}: the server closed the channel")
        finally:
            await self._leave(connection)

    async def _leave(self, connection: AbstractConnection) -> None:
        """Closes in order, so that all that was confirmed has been told."""
        self._leaving.set()
        with contextlib.suppress(*_FAILURES, asyncio.CancelledError):
            async with asyncio.timeout(ANSWER):
                await asyncio.gather(*self._tasks, return_exceptions=True)
                if self._channel is not None and not self._channel.is_closed:
                    await self._channel.close()
        with contextlib.suppress(*_FAILURES, asyncio.CancelledError):
            async with asyncio.timeout(ANSWER):
                await connection.close()

    async def _declare(self, connection: AbstractConnection) -> None:
        """Sees to it that the queue is there; the channel is one of its own, for a mistake closes it."""
        url = self.url
        channel = await _channel(connection)
        try:
            await channel.queue_declare(url.queue, passive=True, timeout=ANSWER)
        except ChannelNotFoundEntity:
            if not url.declare:
                raise
            channel = await _channel(connection)
            arguments: FieldTable | None = {"x-queue-type": url.type} if url.type else None
            await channel.queue_declare(url.queue, durable=True, arguments=arguments, timeout=ANSWER)
        await channel.close()

    async def _consume(self, connection: AbstractConnection) -> AbstractChannel:
        """Asks for messages, as of a stream first: the server says if it is none."""
        if self.url.type in ("classic", "quorum"):
            return await self._ask(connection, None)
        # One before the first that is wanted: if it comes, the stream is the one that was read.
        anchor = self._offset - 1 if self._offset and self._resumed else None
        start: Any = self.url.start if self._offset is None else self._offset
        try:
            channel = await self._ask(connection, start if anchor is None else anchor)
        except ChannelPreconditionFailed as error:
            if self.url.type == "stream" or _OFFSET not in str(error):
                raise
            return await self._ask(connection, None)
        if anchor is not None:
            try:
                await asyncio.wait_for(self._anchored.wait(), _LAST)
            except TimeoutError:
                self.lost, self._offset = self._offset, None
                await channel.close()
                return await self._ask(connection, "first")
        return channel

    async def _ask(self, connection: AbstractConnection, start: Any) -> AbstractChannel:
        channel = self._channel = await _channel(connection)
        self.stream = start is not None
        await channel.basic_qos(prefetch_count=self.prefetch, timeout=ANSWER)
        arguments: FieldTable | None = None if start is None else {_OFFSET: start}
        found = await channel.basic_consume(self.url.queue, self._received, arguments=arguments, timeout=ANSWER)
        self._tag = found.consumer_tag or ""
        return channel

    async def _received(self, delivered: DeliveredMessage) -> None:
        tag, properties = delivered.delivery_tag or 0, delivered.header.properties
        headers = properties.headers or {}
        offset = _offset(delivered) if self.stream else None
        self._anchored.set()
        if self.overfull:
            return
        if offset is not None and self._offset is not None and offset < self._offset:
            if self._channel is not None:
                self._spawn(self._channel.basic_ack(tag, wait=False))
            return
        size = len(delivered.body)
        self.received += 1
        self.largest = max(self.largest, size)
        self._held.append((tag, size))
        self._held_bytes += size
        message = Message(
            tag,
            bytes(delivered.body),
            {name: value for name, value in headers.items() if name != _OFFSET},
            properties.message_id,
            properties.message_type,
            properties.timestamp,
            offset,
        )
        if offset is not None:
            self._offset = offset + 1
        self.inbox.put(message, 1, size, wait=False)
        if self._held_bytes > self.url.bytes and self._channel is not None:
            self.overfull = True
            self._spawn(self._channel.basic_cancel(self._tag, nowait=True))

    def _confirm(self, tag: int) -> None:
        if tag <= self._confirmed or self._channel is None or self._channel.is_closed:
            return
        self._confirmed = tag
        while self._held and self._held[0][0] <= tag:
            self._held_bytes -= self._held.popleft()[1]
        self._spawn(self._channel.basic_ack(tag, multiple=True, wait=False))

    def _spawn(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """A task that is kept until it has ended; what it fails with is the connection's failure, told by that."""

        async def quietly() -> None:
            with contextlib.suppress(*_FAILURES):
                await work

        task = self._loop.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # How much there is.

    async def _count(self, channel: AbstractChannel) -> None:
        """Hears now and then how many messages wait, and that the server is there; a stream's count says nothing."""
        while not self._leaving.is_set():
            found = await channel.queue_declare(self.url.queue, passive=True, timeout=ANSWER)
            self._waiting = found.message_count or 0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), COUNT)

    async def _remaining(self) -> bool:
        channel = self._channel
        if channel is None or channel.is_closed or not self.ready.done():
            return False
        if self.stream and not await self._has_last():
            return False
        # The answer comes after all that was sent before it on this channel.
        found = await channel.queue_declare(self.url.queue, passive=True, timeout=ANSWER)
        for _ in range(3):  # each message is taken by a task that was made before this one goes on
            await asyncio.sleep(0)
        self._waiting = 0 if self.stream else found.message_count or 0
        return not self._waiting and not self.inbox.bytes and not self.overfull

    async def _has_last(self) -> bool:
        """Whether a message of a stream's last chunk was received; chunks are sent whole."""
        assert self._channel is not None
        first: asyncio.Future[int] = self._loop.create_future()

        async def told(delivered: DeliveredMessage) -> None:
            if not first.done():
                first.set_result(_offset(delivered))

        connection = self._channel.connection
        channel = await connection.channel(publisher_confirms=False, timeout=ANSWER)
        try:
            await channel.basic_qos(prefetch_count=1, timeout=ANSWER)
            await channel.basic_consume(self.url.queue, told, arguments={_OFFSET: "last"}, timeout=ANSWER)
            last = await asyncio.wait_for(first, _LAST)
        except TimeoutError:
            return True  # there is none
        finally:
            await channel.close()
        if self._offset is None:  # it begins after all that is there, or at a time that may be
            return self.url.start not in ("first", "last")
        return self._offset > last


def _offset(delivered: DeliveredMessage) -> int:
    """Where a message is in its stream."""
    found = (delivered.header.properties.headers or {}).get(_OFFSET)
    if not isinstance(found, int):
        raise StorageError(f"expected a stream's message to have the header {_OFFSET}, found {found!r}")
    return found


async def _channel(connection: AbstractConnection) -> AbstractChannel:
    # A server that is just starting accepts connections, and may never answer what it is asked on them.
    async with asyncio.timeout(ANSWER):
        channel = await connection.channel(publisher_confirms=False)
        return await channel.get_underlay_channel()
