"""Waits for the engine's next word: it is published on a channel, and asked for now and then in case one was missed."""

from __future__ import annotations

import threading
import time
from typing import Any

import redis

from headrace.errors import ClosedError
from headrace.stores.online.redis_link import AWAY, Link, away

# How often to ask when nothing is published, and how long to listen at a time, so that closing is noticed.
_POLL = 1.0
_SLICE = 0.2
# An engine speaks after every batch, hundreds of times a second; whoever listens is told at most this often.
_PAUSE = 0.01


class Listener:
    """Listens to a channel; one caller at a time."""

    def __init__(self, link: Link, channel: bytes) -> None:
        self._link, self._channel = link, channel
        self._heard: Any = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._last = 0.0

    def wait(self, timeout: float) -> bytes | None:
        """Waits for a message, at most so long; the newest if any came. None also says that it is time to ask.

        Raises:
            StorageError: The server is out of reach.
            ClosedError: The store was closed meanwhile.
        """
        deadline = time.monotonic() + min(timeout, _POLL)
        with self._lock:
            try:
                return self._listen(deadline)
            except AWAY as error:
                self._let_go()
                if self._closing.is_set():
                    raise ClosedError("the online store is closed") from None
                raise away(self._link.target, error) from None

    def _listen(self, deadline: float) -> bytes | None:
        if self._heard is None:
            self._heard = self._link.client().pubsub(ignore_subscribe_messages=False)
            self._heard.subscribe(self._channel)
        while (left := deadline - time.monotonic()) > 0:
            if self._closing.is_set():
                raise ClosedError("the online store is closed")
            message = self._heard.get_message(timeout=min(left, _SLICE))
            if message is not None:
                self._closing.wait(max(self._last + _PAUSE - time.monotonic(), 0))
                while (newer := self._heard.get_message(timeout=0)) is not None:
                    message = newer
                self._last = time.monotonic()
                data = message["data"]
                return data if isinstance(data, bytes) else b""
        return None

    def _let_go(self) -> None:
        heard, self._heard = self._heard, None
        if heard is not None:
            try:
                heard.close()
            except (redis.RedisError, OSError):
                return  # the connection was lost: there is nothing to take leave of

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            self._let_go()
