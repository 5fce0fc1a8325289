"""Asks a model about events, and asks again, until there is an answer that can be used or a reason why there is none.

Three things go wrong, and each is answered otherwise. A *wrong answer* is the model's: it is asked again, told what was
wrong, so many times. A *refused question* (400, 413, 422) is the event's: no server will ever answer it. Anything else
is an *outage* and no event's fault: it is waited for, with backoff, for as long as it takes. One case lies between:
a question on which a server fails every time, as too long a one may. It is told from an outage by whether other calls
are answered between its failures; where there are none to tell by, a call of a few tokens is made before it is sent
again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import polars as pl

from headrace.enrich import prompt
from headrace.enrich.derived import Answers, BadAnswerError, parsed, several
from headrace.enrich.prompt import Json, Question
from headrace.enrich.spec import Llm
from headrace.errors import StorageError
from headrace.runners.enriching.figures import Tally
from headrace.runners.enriching.governor import Governor
from headrace.units import SECOND
from headrace.upstream.client import Server
from headrace.upstream.failures import UpstreamError
from headrace.upstream.pool import ATTEMPTS, Pool
from headrace.upstream.wire import SlowConnectError

logger = logging.getLogger("headrace")
T = TypeVar("T")

_QUESTIONS_FAULT = frozenset({400, 413, 422})
# What says nothing about a question: a server that is not there, has too much to do, or does not take our key.
_AWAY = frozenset({"upstream_connection", "upstream_busy", "upstream_refused"})
_TOO_LONG = 504
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 15.0
_POLL = 0.1  # seconds: how often the app's clock is looked at while a budget or the rate is waited for
_OVERHEAD = 16  # tokens that a message takes beside its text
_ENTRY = 16  # tokens that one of several answers takes beside itself
_MOST_USAGE = 1_000_000_000  # tokens: no call takes more, whatever its server says
_PROBE: Json = {"messages": [{"role": "user", "content": "Answer with the word ok."}], "max_tokens": 8}


@dataclass(frozen=True)
class Found:
    """An answer: its columns, and as it was said."""

    frame: pl.DataFrame
    said: bytes


@dataclass(frozen=True)
class Failed:
    """No answer, and why."""

    reason: str


Outcome = Found | Failed


@dataclass
class Asked:
    """A question on its way.

    Attributes:
        key: What its answer is kept under; None if it is not kept.
        outcome: What comes of it.
    """

    question: Question
    key: bytes | None
    outcome: asyncio.Future[Outcome] = field(repr=False)


class FaultError(Exception):
    """A question that will never be answered; the message is the reason."""


class Asker:
    """Asks about the events of one enrichment; for one event loop.

    Args:
        spec: How.
        pool: Whom.
        answers: What makes columns of answers.
        governor: When.
        tally: Where it is counted.
    """

    def __init__(self, spec: Llm, pool: Pool, answers: Answers, governor: Governor, tally: Tally) -> None:
        self._spec, self._pool, self._answers, self._governor = spec, pool, answers, governor
        self._prefix = msgspec.json.encode(prompt.system(spec, False))
        self._gate = asyncio.Lock()
        self._successes = 0
        self.tally = tally
        self.running = 0

    async def ask(self, batch: Sequence[Asked]) -> None:
        """Ask about events, in one call if all goes well, until each has its outcome."""
        left = await self._together(batch) if len(batch) > 1 else list(batch)
        attempts = self._spec.attempts - (len(batch) > 1)
        for one in left:
            one.outcome.set_result(await self._alone(one, max(1, attempts)))

    async def _together(self, batch: Sequence[Asked]) -> list[Asked]:
        """One call about all; those that it did not answer are left."""
        questions = [one.question for one in batch]
        try:
            text = await self._text(prompt.messages(self._spec, questions), len(batch))
            found = several(text, len(batch))
        except (FaultError, BadAnswerError) as error:
            # Which of them it was shows when they are asked about alone.
            self.tally.wrong += isinstance(error, BadAnswerError)
            return list(batch)
        left = []
        for place, one in enumerate(batch):
            try:
                one.outcome.set_result(self._read(found.get(place)))
            except BadAnswerError:
                self.tally.wrong += 1
                left.append(one)
        return left

    async def _alone(self, one: Asked, attempts: int) -> Outcome:
        first = asked = prompt.messages(self._spec, [one.question])
        reason = ""
        for _ in range(attempts):
            text = None
            try:
                text = await self._text(asked, 1)
                return self._read(parsed(text))
            except FaultError as fault:
                return Failed(str(fault))
            except BadAnswerError as error:
                self.tally.wrong += 1
                reason = str(error)
                asked = prompt.again(first, str(text or ""), reason)
        return Failed(f"the model's answers cannot be used, {self._spec.attempts} attempts; the last: {reason}")

    def _read(self, answer: Any) -> Found:
        return Found(self._answers.read(answer), msgspec.json.encode(answer))

    # -- calls -----------------------------------------------------------------------------------------------------

    async def _text(self, messages: list[Json], count: int) -> Any:
        """What a model says, however long it takes until one is there.

        Raises:
            FaultError: The question cannot be answered.
            BadAnswerError: The model says that it will not.
        """
        written = (self._spec.max_tokens + _ENTRY) * count if count > 1 else self._spec.max_tokens
        body = {"messages": messages, "response_format": prompt.form(self._spec, count > 1), "max_tokens": written}
        body = {name: value for name, value in {**body, **self._spec.options}.items() if value is not None}
        failures = blamed = 0
        seen: int | None = None  # how many calls had been answered when this question failed last
        while True:
            tried: set[str] = set()
            try:
                if seen == self._successes:
                    await self._call(_PROBE, 8, set())
                    self._successes += 1
                whole = await self._call(body, written, tried)
            except UpstreamError as error:
                if tried and error.status in _QUESTIONS_FAULT and not error.harmful:
                    raise FaultError(str(error)) from None
                self.tally.problem = str(error)
                if tried and error.code not in _AWAY:
                    blamed += seen is not None  # others have been answered since, or it would not have been sent
                    seen = self._successes
                    if blamed >= self._spec.attempts:
                        self.tally.problem = None
                        raise FaultError(f"the model server fails on this and on nothing else: {error}") from None
                failures += 1
                await asyncio.sleep(max(_backoff(failures), error.retry_after or 0.0))
                continue
            self._successes += 1
            self.tally.problem = None
            return _content(whole)

    async def _call(self, body: Json, written: int, tried: set[str]) -> Json:
        """One call, once the governor lets it begin; `tried` is told the servers that it was sent to.

        Raises:
            UpstreamError: No server answered it.
            FaultError: The budget does not allow it, and events are not to wait.
        """
        read = sum(len(str(one["content"]).encode()) for one in body["messages"]) // 3 + _OVERHEAD * len(
            body["messages"]
        )
        read += len(msgspec.json.encode(body.get("response_format"))) // 3
        reserved = (read + written, self._spec.price(read, written))
        begun = await self._admit(reserved)
        taken = (0, 0.0)
        try:
            whole = await self._open(body, tried)
            taken_read, taken_written = _usage(whole, read)
            taken = (taken_read + taken_written, self._spec.price(taken_read, taken_written))
        except asyncio.CancelledError:
            taken = reserved  # the server may go on for all we know
            raise
        except UpstreamError as error:
            if error.status == _TOO_LONG and tried and not isinstance(error.__cause__, SlowConnectError):
                taken = reserved  # likewise
            raise
        finally:
            if taken is not reserved:
                await self._settle(begun, reserved, taken)
            self.running -= 1
        self.tally.calls += 1
        self.tally.read += taken_read
        self.tally.written += taken_written
        self.tally.cost += taken[1]
        return whole

    async def _open(self, body: Json, tried: set[str]) -> Json:
        def for_server(server: Server) -> bytes:
            tried.add(server.name)
            return msgspec.json.encode(body | {"model": server.spec.model or self._spec.model or "default"})

        deadline = asyncio.get_running_loop().time() + self._spec.time_limit
        answer = await self._pool.open(
            for_server,
            self._spec.model,
            stream=False,
            prefix=self._prefix,
            deadline=deadline,
            # Where calls are counted, each time that one is made again is one.
            attempts=ATTEMPTS if self._spec.per_minute is None else 1,
        )
        await self._pool.release(answer)
        return answer.whole or {}

    async def _admit(self, reserved: tuple[int, float]) -> int:
        """Waits until a call may begin; returns when it did, by the app's clock."""
        if (why := self._governor.impossible(*reserved)) is not None:
            raise FaultError(why)
        while True:
            async with self._gate:
                wait = self._governor.wait(*reserved)
                if wait is None:
                    self.tally.pause = None
                    begun = await self._stored(lambda: self._governor.begin(*reserved))
                    self.running += 1
                    return begun
            what, left = wait
            if what != "the rate" and self._spec.over_budget == "skip" and not self.running:
                raise FaultError(f"there is nothing left of {what}")
            self.tally.pause = what
            await asyncio.sleep(min(_POLL, max(0.001, left / SECOND)))

    async def _settle(self, begun: int, reserved: tuple[int, float], taken: tuple[int, float]) -> None:
        async with self._gate:
            await self._stored(lambda: self._governor.end(begun, reserved, taken))
            self.tally.pause = None  # whoever waits looks again

    async def _stored(self, work: Callable[[], T]) -> T:
        if not self._spec.limits:
            return work()
        return await persist(self.tally, work)


async def persist(tally: Tally, work: Callable[[], T]) -> T:
    """Do what a store is needed for, in another thread; again, with backoff, for as long as the store fails."""
    failures = 0
    while True:
        try:
            done = await asyncio.to_thread(work)
        except StorageError as error:
            failures += 1
            tally.problem = str(error)
            logger.warning("%s; trying again", error)
            await asyncio.sleep(_backoff(failures))
            continue
        if failures:
            tally.problem = None
        return done


def _backoff(failures: int) -> float:
    """Seconds; with jitter, or all that wait would come back at once."""
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(failures, 16)) * (0.5 + random.random() / 2)


def _content(whole: Json) -> Any:
    choice = whole["choices"][0] if whole.get("choices") else {}
    message = choice.get("message") or {}
    text = message.get("content")
    if isinstance(text, list):
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    if not text and message.get("refusal"):
        raise BadAnswerError(f"expected a JSON object, found a refusal: {str(message['refusal'])[:200]}")
    if choice.get("finish_reason") == "length":
        raise BadAnswerError("expected a JSON object, found one that was cut off: it is longer than max_tokens")
    return text


def _usage(whole: Json, read: int) -> tuple[int, int]:
    """Tokens read and written, as the server tells it; where it does not, or what cannot be, an estimate."""
    told = whole.get("usage")
    found = [told.get(name) if isinstance(told, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    said = len(msgspec.json.encode(whole.get("choices"))) // 4
    counted = [
        one if isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= _MOST_USAGE else guess
        for one, guess in zip(found, (read, said), strict=True)
    ]
    return counted[0], counted[1]
