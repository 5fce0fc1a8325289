"""Contexts: a function's parts, read together, and packed into a token budget.

A request goes through four steps. The function says what is wanted; no part is read meanwhile, so that all can be read
together. Everything is read at one point (see `point`), the searches beside each other. What is too old for the request
is waited for, told or refused. Then the packer takes what is worth most into the budget, and the pack knows what it is
true to.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_all
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace.assembly.pack import Candidate, Pack, Point
from headrace.assembly.packer import pack as packed
from headrace.declarations import MOST_BUDGET
from headrace.errors import ClosedError, ConfigError, InputError, StaleError
from headrace.parts import Lookup, Recall, Search, Text
from headrace.serving import context_items
from headrace.serving.context_freshness import Limit, Old, behind, old_rows, wait
from headrace.serving.context_parts import Leaf, parts
from headrace.serving.point import PATIENCE, point
from headrace.serving.read_point import ReadPoint
from headrace.serving.token import Token
from headrace.serving.token_counts import counter
from headrace.units import duration, from_micros

if TYPE_CHECKING:
    from headrace.declarations import Context
    from headrace.runners.library.hits import Hit
    from headrace.runners.library.search import Asked
    from headrace.serving.live import Live

# Searches that all contexts of an app run beside each other; a context's own thread runs one of them.
_THREADS = 4
_LONGEST_TIMEOUT = 3600.0


@dataclass(frozen=True)
class Request:
    """A context, and how it is asked for.

    Attributes:
        arguments: As the function takes them.
        plain: The same as JSON has them.
        after: A token; None to wait for nothing.
        timeout: Seconds to wait, for all that there is to wait for.
    """

    context: Context
    arguments: Mapping[str, Any]
    plain: Mapping[str, Any]
    budget: int
    limit: Limit
    on_stale: str
    after: Token | None
    timeout: float
    consistent: bool

    @classmethod
    def of(
        cls,
        live: Live,
        target: Context | str,
        budget: int | None,
        max_age: str | timedelta | float | None,
        on_stale: str | None,
        after: Token | str | None,
        timeout: float,
        consistent: bool | None,
        arguments: Mapping[str, Any],
    ) -> Request:
        """Checks a request; what it leaves open is as the context declares it.

        Raises:
            UnknownNameError: There is no such context.
            InputError: Something in it cannot be used.
        """
        context = live.app.context_of(target)
        name = context.name
        given, plain = context.arguments.check(name, arguments)
        budget = context.budget if budget is None else budget
        if isinstance(budget, bool) or not isinstance(budget, int) or not 1 <= budget <= MOST_BUDGET:
            raise InputError(f"{name}: expected a budget from 1 to {MOST_BUDGET:,} tokens, found {budget!r}")
        on_stale = context.on_stale if on_stale is None else on_stale
        if on_stale not in ("wait", "flag", "refuse"):
            raise InputError(f'{name}: expected on_stale to be "wait", "flag" or "refuse", found {on_stale!r}')
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= _LONGEST_TIMEOUT:
            raise InputError(f"{name}: expected a timeout from 0 to {_LONGEST_TIMEOUT:g} seconds, found {timeout!r}")
        try:
            limit = Limit(context.max_age, False) if max_age is None else Limit(duration(max_age), True)
        except ConfigError as error:
            raise InputError(f"{name}: max_age: {error}") from None
        token = None if after is None else Token.parse(after)
        one = context.consistent if consistent is None else consistent
        if not isinstance(one, bool):
            raise InputError(f"{name}: expected consistent to be True or False, found {one!r}")
        return cls(context, given, plain, budget, limit, on_stale, token, float(timeout), one)


class Contexts:
    """Makes the packs of an app.

    Args:
        live: The app, running.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._described: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def pack(self, request: Request) -> Pack:
        """The pack of a request.

        Raises:
            InputError: The function yields what cannot be read.
            StaleError: What is asked for is older than it may be, and did not become fresher in time.
        """
        started = time.monotonic()
        deadline = started + request.timeout
        live, context = self._live, request.context
        leaves = parts(live.app, context, request.arguments)
        counts = counter(context.tokenizer)
        while True:
            candidates, read, old = self._read(request, leaves, max(0.0, deadline - time.monotonic()))
            if not old or request.on_stale == "flag":
                break
            told = "; ".join(one.words for one in old)
            if request.on_stale == "refuse":
                raise StaleError(f"{context.name}: {told}")
            if time.monotonic() >= deadline:
                raise StaleError(f"{context.name}: {told}; it did not become fresher within {request.timeout:g} s")
            wait(old, deadline)
        read = replace(read, stale=tuple(one.words for one in old))
        result = packed(candidates, request.budget, counts, read)
        return Pack(
            id=f"pack_{secrets.token_hex(16)}",
            context=context.name,
            arguments=request.plain,
            sections=result.sections,
            dropped=result.dropped,
            tokens=result.tokens,
            budget=request.budget,
            counter=counts.name,
            point=read,
        )

    def _read(self, request: Request, leaves: Sequence[Leaf], left: float) -> tuple[list[Candidate], Point, list[Old]]:
        """Reads all parts at one point: what may be packed, what it is true to, and what of it is too old."""
        live = self._live
        lookups = [leaf for leaf in leaves if isinstance(leaf, Lookup)]
        searches = [leaf for leaf in leaves if isinstance(leaf, Search)]
        recalls = [leaf for leaf in leaves if isinstance(leaf, Recall)]
        asked = [_asked(live, one) for one in searches]
        names = list(dict.fromkeys(one.collection.name for one in searches))
        tables = list(dict.fromkeys(one.memory.table.name for one in recalls))
        # A memory is searched by meaning only if something is asked of it.
        held = [*names, *(one.memory.collection.name for one in recalls if one.question.strip())]
        old = behind(live, request.limit, bool(lookups), names)
        with point(
            live,
            [(one.view, one.key) for one in lookups],
            list(dict.fromkeys(held)),
            tables,
            after=request.after,
            timeout=left,
            consistent=request.consistent,
            patience=None if request.on_stale == "wait" else PATIENCE,
        ) as read:
            hits, recalled = self._found(read, searches, asked, recalls)
        rows = list(read.rows)
        old += old_rows(live, request.limit, [(_named(one), row) for one, row in zip(lookups, rows, strict=True)])
        made: dict[int, list[Candidate]] = {}
        for lookup, row in zip(lookups, rows, strict=True):
            made[id(lookup)] = [context_items.features(lookup, row, self._features(lookup))]
        for search, found in zip(searches, hits, strict=True):
            made[id(search)] = [context_items.passages(search, found)]
        made |= {id(recall): found for recall, found in zip(recalls, recalled, strict=True)}
        made |= {id(leaf): [context_items.text(leaf)] for leaf in leaves if isinstance(leaf, Text)}
        candidates = [one for leaf in leaves for one in made[id(leaf)]]
        return candidates, _point(read, candidates), old

    def _features(self, part: Lookup) -> dict[str, str]:
        """What each feature of a view is: told the same in every request."""
        view = part.view
        if view.name not in self._described:
            self._described[view.name] = {name: one.describe() for name, one in view.features.items()}
        return self._described[view.name]

    # -- searches beside each other --------------------------------------------------------------------------------

    def _found(
        self, read: ReadPoint, searches: Sequence[Search], asked: Sequence[Asked], recalls: Sequence[Recall]
    ) -> tuple[list[list[Hit]], list[list[Candidate]]]:
        """What is searched for and what is recalled."""
        hits = [partial(read.search, one.collection.name, of) for one, of in zip(searches, asked, strict=True)]
        recalled = [partial(_recalled, self._live, read, one) for one in recalls]
        found = self._beside([*hits, *recalled])
        return found[: len(hits)], found[len(hits) :]

    def _beside(self, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
        """What some jobs return; they mostly wait for indexes, each for its own."""
        if not jobs:
            return []
        futures = [self._pool().submit(job) for job in jobs[1:]]
        try:
            return [jobs[0](), *(future.result() for future in futures)]
        finally:
            # The point is let go of when this returns: nothing may search in it any more.
            for future in futures:
                future.cancel()
            wait_all(futures)

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._closed:
                raise ClosedError(f"the app {self._live.app.name!r} is closed; open it again")
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="headrace-context")
            return self._threads

    def close(self) -> None:
        """Lets go of the threads; again does nothing."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)


def _asked(live: Live, part: Search) -> Asked:
    from headrace.runners.library.search import Asked  # an app without tables does not load it

    running = live.library.collections[part.collection.name]
    return Asked.of(running, part.question, part.k, part.where, part.mode, part.diversity)


def _recalled(live: Live, read: ReadPoint, part: Recall) -> list[Candidate]:
    from headrace.serving.memory import candidates

    return candidates(live, read, part)


def _named(part: Lookup) -> str:
    key = "/".join(map(str, part.key)) if isinstance(part.key, tuple) else str(part.key)
    return f"{part.view.name}/{key if len(key) <= 60 else key[:57] + '…'}"


def _point(read: ReadPoint, candidates: Sequence[Candidate]) -> Point:
    times = [item.as_of for candidate in candidates for item in candidate.items if item.as_of is not None]
    return Point(
        now=from_micros(read.now),
        as_of=max(times, default=None),
        token=read.token,
        positions=read.positions,
        consistent=read.consistent,
        lagging=read.lagging,
    )
