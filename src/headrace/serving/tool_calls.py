"""Running tools within limits: of time, of how many at once, and of what comes back.

A model waits for its tools, so each call has a time in which it is answered or told that it is not. What can block (a
search, a context, a store elsewhere) runs on threads of which there are few, with a bounded queue in front. Python
cannot stop a thread: a call that is given up leaves the queue at once if it had not begun, and if it had, holds its
thread until its own work ends, and is counted until then. So however many calls are given up, no more than the
threads ever run. What a call answers is bounded too: a model pays for each token.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.errors import ClosedError, HeadraceError, InputError, StaleError
from headrace.serving import tools
from headrace.serving.problems import BUSY, ProblemError

if TYPE_CHECKING:
    from headrace.serving.live import Live

log = logging.getLogger("headrace.tools")

DEFAULT_SECONDS = 10.0
MOST_BYTES = 64 << 10
"""The longest answer of a view or a collection; a context has a budget of its own."""
NOTE = "_note"
"""Where an answer says what was left out of it; no key or feature can have a name that begins like this."""
_THREADS = 8
_QUEUED = 128
_LEAST_TEXT = 200

Arguments = Mapping[str, Any] | str | None


class Calls:
    """The threads of one running app's tools, and the queue in front of them."""

    def __init__(self, threads: int = _THREADS, queued: int = _QUEUED) -> None:
        self._threads = threads
        self._most = threads + queued
        self._inside = 0
        self._closed = False
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def inside(self) -> int:
        """How many calls run or wait for a thread."""
        return self._inside

    def submit(self, work: Callable[[], dict[str, Any]]) -> Future[dict[str, Any]]:
        """Starts a call as soon as a thread is free.

        Raises:
            ProblemError: The threads are taken and so is the queue.
            ClosedError: The app is closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("expected an open app, found it closed; open it again with app.open()")
            if self._inside >= self._most:
                raise ProblemError(BUSY, f"expected fewer than {self._most} tool calls at once; call again shortly")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "headrace-tool")
            self._inside += 1
            future = self._pool.submit(work)
        future.add_done_callback(self._left)
        return future

    def _left(self, _: Future[Any]) -> None:
        with self._lock:
            self._inside -= 1

    def close(self) -> None:
        """Takes no more calls, and gives up those that have not begun."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def at_once(live: Live, name: str) -> bool:
    """Whether a tool never waits: a look-up of a row that is in this process."""
    return name in live.app.views and not live.remote


def call(live: Live, calls: Calls, name: str, arguments: Arguments, timeout: float) -> dict[str, Any]:
    """Runs a tool; the errors are those of `Live.call`."""
    seconds = checked(timeout)
    if at_once(live, name):
        return answered(live, name, arguments)
    future = calls.submit(lambda: answered(live, name, arguments))
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done() and not future.cancelled():
            raise
        future.cancel()
        raise too_slow(name, seconds) from None


async def call_async(live: Live, calls: Calls, name: str, arguments: Arguments, timeout: float) -> dict[str, Any]:
    """As `call`, on an event loop; cancelled, it gives the call up."""
    seconds = checked(timeout)
    if at_once(live, name):
        return answered(live, name, arguments)
    return await run_async(calls, name, lambda: answered(live, name, arguments), seconds)


async def run_async(calls: Calls, name: str, work: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Runs work on a tool's thread within a limit; cancelled, it is given up.

    Raises:
        StaleError: It took longer.
        ProblemError: The threads are taken and so is the queue.
    """
    future = calls.submit(work)
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
    except TimeoutError:
        if future.done() and not future.cancelled():
            raise
        raise too_slow(name, seconds) from None


def checked(timeout: float) -> float:
    """A limit of seconds.

    Raises:
        InputError: It is none.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not (0 <= timeout < math.inf):
        raise InputError(f"expected timeout to be a number of seconds from 0, found {timeout!r}")
    return float(timeout)


def too_slow(name: str, seconds: float) -> StaleError:
    """What a model is told when its call was not answered in time."""
    return StaleError(
        f"{name}: expected an answer within {seconds:g} s, found none yet. Call it again, or ask for less; "
        "if it stays so, answer without it and say that it could not be looked up"
    )


def problem(name: str, error: Exception) -> str:
    """What a model is told when its call failed: of an error that is not Headrace's own, only where the log has it."""
    if isinstance(error, HeadraceError):
        return str(error)
    number = uuid.uuid4().urn
    log.error("the tool %s failed: %s", name, number, exc_info=error)
    return f"{name}: the tool failed, which no other arguments will mend; the log has {number}"


def answered(live: Live, name: str, arguments: Arguments) -> dict[str, Any]:
    """What a tool answers, within its bound."""
    answer = tools.call(live, name, arguments)
    if name in live.app.views or name in live.app.collections:
        return shortened(answer)
    return answer


def shortened(answer: dict[str, Any], most: int = MOST_BYTES) -> dict[str, Any]:
    """An answer of at most `most` bytes of JSON: the last entries of its longest list go first, then ends of texts.

    What was left out is said under `NOTE`.
    """
    if _size(answer) <= most:
        return answer
    made = copy.deepcopy(answer)
    room = most - 500  # the note
    left_out: dict[str, str] = {}
    while (size := _size(made)) > room:
        place = _longest(made)
        if place is None:
            break
        holder, name, path = place
        value = holder[name]
        keep = int(len(value) * room / size * 0.9)
        if isinstance(value, str):
            holder[name] = value[: max(_LEAST_TEXT, min(keep, len(value) - 1)) - 1] + "…"
            left_out[path] = f"the end of {path}"
        else:
            dropped = max(1, len(value) - max(keep, 1))
            before = int(left_out.get(path, "0").partition(" ")[0])
            del value[len(value) - dropped :]
            left_out[path] = f"{before + dropped} of {path}"
    shown = [*left_out.values()][:5]
    made[NOTE] = f"This answer was too long and is shortened; left out: {', '.join(shown)}. Ask for less to see all."
    return made


def _longest(answer: dict[str, Any]) -> tuple[Any, Any, str] | None:
    """Where the longest list of several entries is, or else the longest text: its holder, its place there, its path."""
    holder: Any = answer
    path = ""
    while True:
        items = list(holder.items() if isinstance(holder, dict) else enumerate(holder))
        if not items:
            return None
        name, value = max(items, key=lambda item: _size(item[1]))
        if isinstance(name, str):
            path = f"{path}.{name}" if path else name
        if isinstance(value, list) and len(value) > 1:
            return holder, name, path
        if isinstance(value, str):
            return (holder, name, path) if len(value) > _LEAST_TEXT else None
        if not isinstance(value, dict | list):
            return None
        holder = value


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))
